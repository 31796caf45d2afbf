"""Registered means tested: the laws that every family keeps, whatever runs it."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.policies.registry import FAMILIES
from dysl_vla_ros.skipping.depth_rules import FixedPlan, FullDepth
from dysl_vla_ros.skipping.stack import SkippableStack, StackResult, full_result
from dysl_vla_ros.skipping.streams import no_bridge
from effort import examples
from runtime_families import FAMILIES_UNDER_TEST, PARTITION, Recorded, families, observation, policy_of
from small_stacks import trained_like

LAYERS = PARTITION.num_layers
SEED = 7  # of the noise
GENTLE = hypothesis_settings(deadline=None, max_examples=examples(8, 25))
one_plan = st.tuples(*(st.integers(first, end) for first, end in PARTITION.blocks))
plans = st.lists(one_plan, min_size=1, max_size=5)


def decoded(policy: VlaPolicy, result: StackResult, context: Any, bridge: Any = no_bridge) -> Tensor:
    """Return the actions of a pass at the beginning of an episode, (B, H, A)."""
    count = len(result.hidden)
    state, noise = policy.initial_state(count), policy.noise([SEED] * count)
    return policy.decode(result, context, state, noise, bridge)[0]


def through_own_layers(policy: VlaPolicy, hidden: Tensor, context: Any) -> StackResult:
    for layer in policy.layers:
        hidden = layer(hidden, context)
    return full_result(hidden, len(policy.layers))


def test_every_registered_family_is_tested_here() -> None:
    assert FAMILIES.keys() <= FAMILIES_UNDER_TEST.keys()


@families
def test_a_family_is_a_policy(family: str) -> None:
    policy = policy_of(family)
    assert isinstance(policy, VlaPolicy)
    with torch.inference_mode():
        hidden, context = policy.prepare([policy.sample()])
        assert hidden.shape[0] == 1 and hidden.shape[2] == policy.streams[0].width
        result = through_own_layers(policy, hidden, context)
        one, two = (decoded(policy, result, context) for _ in range(2))
    assert one.shape == (1, policy.action.horizon, policy.action.dimensions)
    assert torch.equal(one, two), "decode is pure"
    actions = policy.actions(one, context)
    assert actions.shape == one.shape and actions.dtype.name == "float32"


@families
def test_a_family_tells_each_of_its_weights_to_one_part(family: str) -> None:
    parts = policy_of(family).parts()
    assert "stack" in parts and all(parts.values())
    places = [weight.data_ptr() for weights in parts.values() for weight in weights]
    assert len(places) == len(set(places)), "a weight is named twice"


@families
def test_the_same_seed_draws_the_same_noise_alone_and_in_a_batch(family: str) -> None:
    policy = policy_of(family)
    together, alone = policy.noise([3, 4]), [policy.noise([seed]) for seed in (3, 4)]
    if together is None:
        assert alone == [None, None]
        return
    assert torch.equal(together, torch.cat(alone)) and not torch.equal(*alone)


@families
@pytest.mark.parametrize("joined", ["prepared", "collated"])
def test_a_family_computes_in_a_batch_what_it_computes_alone_decode_included(family: str, joined: str) -> None:
    policy = policy_of(family)
    said = policy.sample().instruction
    seen = [replace(observation(policy, n), instruction=text) for n, text in enumerate([said, said.split()[0]])]
    modules = trained_like(PARTITION, policy.streams)
    rule = FixedPlan(PARTITION, modules, (2, 5))
    stack = SkippableStack(policy.layers)
    with torch.inference_mode():
        pairs = [policy.prepare([own]) for own in seen]
        if joined == "prepared":
            hidden, context = policy.prepare(seen)
        else:
            hidden = torch.cat([own for own, _ in pairs])
            context = policy.collate([own for _, own in pairs])
        result = stack.run(hidden, context, rule)
        actions = decoded(policy, result, context, modules.bridge)
        for row, (alone, own) in enumerate(pairs):
            single = stack.run(alone, own, rule)
            real = own.token_mask[0]
            torch.testing.assert_close(result.hidden[row, real], single.hidden[0, real], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(
                actions[row], decoded(policy, single, own, modules.bridge)[0], rtol=1e-4, atol=1e-4
            )


@families
@given(sequence=plans, resumed=st.booleans())
@GENTLE
def test_one_context_carries_any_passes_with_the_bits_of_fresh_ones(
    family: str, sequence: list[tuple[int, ...]], resumed: bool
) -> None:
    """Full, skipped and resumed passes in any order; hooks see what the plan says, those of followers too."""
    policy, modules = policy_of(family), trained_like(PARTITION, policy_of(family).streams)
    stack, seen = SkippableStack(policy.layers), observation(policy, 3)
    with torch.inference_mode():
        hidden, context = policy.prepare([seen])
        fresh, fresh_context = policy.prepare([seen])
        full = decoded(policy, stack.run(fresh, fresh_context, FullDepth()), fresh_context)
        for plan in sequence:
            with Recorded(family, policy) as calls:
                result = stack.run(hidden, context, FixedPlan(PARTITION, modules, plan))
                assert calls == [layer for layer, ran in enumerate(result.executed) if ran]
                calls.clear()
                actions = decoded(policy, result, context, modules.bridge)
            ran = [layer for layer, ran in enumerate(result.plan.executed) if ran]
            for stream in policy.streams[1:]:
                assert calls[stream.name] == ran * stream.passes
            other, other_context = policy.prepare([seen])
            again = stack.run(other, other_context, FixedPlan(PARTITION, modules, plan))
            assert torch.equal(actions, decoded(policy, again, other_context, modules.bridge))
            if resumed and result.resume_point:
                second = stack.resume(result.resume_point, context)
                assert torch.equal(decoded(policy, second, context, modules.bridge), full)
        last = stack.run(hidden, context, FullDepth())
        assert torch.equal(decoded(policy, last, context, modules.bridge), full)


@families
def test_a_context_survives_copying(family: str) -> None:
    policy = policy_of(family)
    with torch.no_grad():
        hidden, context = policy.prepare([observation(policy)])
        own = copy.deepcopy(context)
        one = decoded(policy, through_own_layers(policy, hidden, context), context)
        two = decoded(policy, through_own_layers(policy, hidden, own), own)
    assert torch.equal(one, two)
