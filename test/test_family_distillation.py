"""Distilling over every family: passes are those that are deployed, followers included, and all that learns moves."""

import copy
import math

import pytest
import torch

from dysl_vla_ros.distillation.activations import record_activations
from dysl_vla_ros.distillation.passes import decided_pass, hard_pass, inputs_of, start_layer
from dysl_vla_ros.distillation.stages import Distillation, DistillationSettings
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.skipping.depth_rules import FixedPlan
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.stack import SkippableStack
from runtime_families import FAMILIES_UNDER_TEST, PARTITION, families, observation, own_output, policy_of
from small_stacks import trained_like

COUNT = 12


def data_of(family: str):
    policy = policy_of(family)
    seen = (observation(policy, number) for number in range(COUNT))
    return record_activations(policy, seen, COUNT, inputs_of(policy, PARTITION), dtype=torch.float32)


def alone(policy, modules, seed: int, plan):
    """Return what is deployed for one observation, (H, A)."""
    with torch.no_grad():
        hidden, context = policy.prepare([observation(policy, seed)])
        result = SkippableStack(policy.layers).run(hidden, context, FixedPlan(PARTITION, modules, plan))
        state, noise = policy.initial_state(), policy.noise([0])
        return policy.decode(result, context, state, noise, modules.bridge)[0][0]


@families
@pytest.mark.parametrize(
    "plan", [(1, 5), pytest.param((2, 6), marks=pytest.mark.slow), pytest.param((4, 5), marks=pytest.mark.slow), (4, 7)]
)
def test_a_training_pass_over_a_batch_is_the_deployed_pass_of_each(family: str, plan) -> None:
    policy, data, modules = policy_of(family), data_of(family), trained_like(PARTITION, policy_of(family).streams)
    batch = data.batch(torch.tensor([3, 1, 4]))
    hidden = batch.hidden(start_layer(PARTITION, policy))
    with torch.no_grad():
        actions, _ = hard_pass(policy, PARTITION, modules, hidden, batch.context, plan)
    assert len(actions) == 3
    for row, seed in enumerate((3, 1, 4)):
        torch.testing.assert_close(actions[row], alone(policy, modules, seed, plan), atol=0.05, rtol=0.05)


@families
def test_where_controllers_decide_each_sample_goes_its_own_way(family: str) -> None:
    policy, data, modules = policy_of(family), data_of(family), trained_like(PARTITION, policy_of(family).streams)
    batch = data.batch(torch.arange(COUNT))
    hidden = batch.hidden(start_layer(PARTITION, policy))
    with torch.no_grad():
        says = modules.controller(1)(modules.summary(1, batch.hidden(1), batch.context.token_mask))
        logit = float(says.median())
        decided = decided_pass(policy, PARTITION, modules, hidden, batch.context, logit, batch.some)
        skipped = decided.skipped.tolist()
    assert len(set(skipped)) > 1, "all went the same way: nothing is tested"
    for row in range(COUNT):
        ways = [
            (first, second) for first in range(1, 5) for second in range(5, 8) if 4 - first + 7 - second == skipped[row]
        ]
        errors = [(decided.actions[row] - alone(policy, modules, row, way)).abs().max().item() for way in ways]
        assert min(errors) < 0.1 * max(1.0, float(decided.actions[row].abs().max())), "no way of that many layers fits"


@families
def test_a_few_steps_move_everything_that_learns_and_leave_the_policy_alone(family: str) -> None:
    policy, data = policy_of(family), data_of(family)
    before = {name: [weight.clone() for weight in weights] for name, weights in policy.parts().items()}
    torch.manual_seed(0)
    modules = DyslModules(PARTITION, policy.streams, bottleneck=8, rank=4)
    untrained = copy.deepcopy(modules.state_dict())
    settings = DistillationSettings(hidden_steps=3, action_steps=6, joint_steps=24, batch_size=6, floor_share=0.0)
    job = Distillation(PARTITION, modules, data, settings)
    losses = (job.train_hidden(), job.train_actions(), job.train_joint())
    assert all(map(math.isfinite, losses)) and math.isfinite(job.judge.floor_error())
    same = [name for name, value in modules.state_dict().items() if torch.equal(value, untrained[name])]
    assert [name for name in same if not name.endswith("offset")] == []
    for name, weights in policy.parts().items():
        assert all(map(torch.equal, weights, before[name])), f"training changed {name}"


def test_the_mixture_is_refused_where_a_stream_follows() -> None:
    data, modules = data_of("flow"), DyslModules(PARTITION, policy_of("flow").streams)
    with pytest.raises(DataError, match="expert follows a plan"):
        Distillation(PARTITION, modules, data, DistillationSettings(controllers="mixture"))


@families
def test_a_teacher_in_bfloat16_is_distilled_and_its_hidden_states_are_kept_whole(family: str) -> None:
    policy = FAMILIES_UNDER_TEST[family].make(torch.bfloat16)
    seen = (observation(policy, number) for number in range(COUNT))
    data = record_activations(policy, seen, COUNT, inputs_of(policy, PARTITION))
    assert {hidden.dtype for hidden in data.hidden.values()} == {torch.bfloat16}
    modules = DyslModules(PARTITION, policy.streams, bottleneck=8)
    job = Distillation(PARTITION, modules, data, DistillationSettings(hidden_steps=2, action_steps=2, batch_size=4))
    assert all(map(math.isfinite, (job.train_hidden(), job.train_actions(), job.judge.floor_error())))


def test_hidden_states_too_large_for_float16_are_kept_in_another_kind_of_numbers() -> None:
    policy = FAMILIES_UNDER_TEST["reference"].make()
    with torch.no_grad():
        policy.network.layers[1].mlp.down_proj.weight.mul_(1e8)
    data = record_activations(policy, (observation(policy, number) for number in range(4)), 4, (2,))
    assert data.hidden[2].abs().max() > 1e5 and torch.isfinite(data.hidden[2]).all()


def test_a_decoding_memory_is_carried_through_an_episode_and_no_further() -> None:
    policy, begins = policy_of("stateful"), [True, False, False, True, False, True]
    seen = [observation(policy, number) for number in range(len(begins))]
    data = record_activations(policy, iter(seen), len(seen), inputs_of(policy, PARTITION), begins=begins)
    for first, end in ((0, 3), (3, 5), (5, 6)):
        for frame in range(first, end):
            expected = policy.action.normalise(own_output(policy, *seen[first : frame + 1]))
            torch.testing.assert_close(data.actions[frame], torch.from_numpy(expected), atol=1e-4, rtol=1e-4)
    assert torch.equal(data.batch(torch.tensor([1, 3])).state[1], policy.initial_state()[0])
    modules = DyslModules(PARTITION, policy.streams, bottleneck=8)  # untrained, and told to skip nothing
    batch = data.batch(torch.arange(6))
    with torch.no_grad():
        ends = [end for _, end in PARTITION.blocks]
        arguments = (policy, PARTITION, modules, batch.hidden(1), batch.context, ends)
        actions, _ = hard_pass(*arguments, batch.state)
        forgetful, _ = hard_pass(*arguments)
    torch.testing.assert_close(actions, batch.actions, atol=0.05, rtol=0.05)
    assert (forgetful - batch.actions).abs().max() > 0.1
