"""Methods of equal depth come to it: probability, plans, the oracle's threshold, all from calibration runs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dysl_vla_ros.comparison.methods import fixed
from dysl_vla_ros.comparison.methods.fixed import best_plan, even_plan, nearest_layers, plans_of
from dysl_vla_ros.comparison.methods.oracle import oracle_threshold
from dysl_vla_ros.comparison.methods.random import skip_probability
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.skipping.depth_rules import FixedPlan, FullDepth, RandomSkipping, StaticOnly
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import SkippableStack
from dysl_vla_ros.skipping.streams import no_bridge
from runtime_families import PARTITION, observation, policy_of, runtime
from small_stacks import LAYERS, partitions

M = 2


@pytest.fixture(scope="module")
def tested():
    return runtime("reference")


@pytest.fixture(scope="module")
def runs(tested):
    """Three made-up runs at full depth."""
    found = []
    for number in range(3):
        seen = tuple(observation(tested.policy, 10 * number + own) for own in range(5))
        found.append(FullDepthRun(seen, np.stack([actions_of(tested, one, FullDepth()) for one in seen])))
    return found


def actions_of(tested, seen, rule):
    with torch.inference_mode():
        hidden, context = tested.policy.prepare([seen])
        result = SkippableStack(tested.policy.layers).run(hidden, context, rule)
        actions, _ = tested.policy.decode(result, context, None, None, no_bridge)
    return tested.policy.action.denormalise(actions[0].numpy())


def error(tested, runs, rule):
    """Return the mean L1 of the first M actions to full depth's, one observation at a time."""
    action = tested.policy.action
    apart = [
        np.abs(action.normalise(actions_of(tested, seen, rule)[:M]) - action.normalise(chunk[:M])).mean()
        for run in runs
        for seen, chunk in zip(run.observations, run.chunks, strict=True)
    ]
    return np.array(apart)


@settings(max_examples=20, deadline=None)
@given(partition=partitions(), share=st.floats(0.0, 1.0))
def test_random_skipping_comes_to_the_depth_on_average(partition, share):
    floor = len(partition.static)
    depth = floor + share * (LAYERS - floor)
    probability, generator = skip_probability(partition, depth), torch.Generator().manual_seed(0)

    def drawn():
        layer, run = 0, 0
        ends = {place: end for first, end in partition.blocks for place in range(first, end)}
        while layer < LAYERS:
            if layer in ends and torch.rand((), generator=generator).item() < probability:
                layer = ends[layer]
                continue
            run, layer = run + 1, layer + 1
        return run

    mean = np.mean([drawn() for _ in range(400)])
    assert mean == pytest.approx(depth, abs=0.45)


def test_the_rule_of_chance_is_what_the_probability_was_worked_out_for(tested):
    """The loop of the test before is :class:`RandomSkipping`."""
    rule = RandomSkipping(PARTITION, tested.dysl.modules, skip_probability(PARTITION, 5.0), np.random.default_rng(1))
    with torch.inference_mode():
        hidden, context = tested.policy.prepare([observation(tested.policy, 0)])
        stack = SkippableStack(tested.policy.layers)
        calls = [stack.run(hidden, context, rule).layer_calls for _ in range(150)]
    assert np.mean(calls) == pytest.approx(5.0, abs=0.4)


@given(partition=partitions(), data=st.data())
def test_plans_are_all_those_of_a_depth_each_once(partition, data):
    floor = len(partition.static)
    layers = data.draw(st.integers(floor, LAYERS))
    plans = plans_of(partition, layers)
    assert len(set(plans)) == len(plans) >= 1
    for plan in plans:
        kept = [at - first for at, (first, _) in zip(plan, partition.blocks, strict=True)]
        assert floor + sum(kept) == layers
        assert all(first <= at <= end for at, (first, end) in zip(plan, partition.blocks, strict=True))
    assert even_plan(partition, layers) in plans


def test_an_even_plan_gives_each_block_its_share():
    partition = LayerPartition(24, (0, 6, 12, 17, 23))  # blocks of 5, 5, 4 and 5 layers
    assert even_plan(partition, 5) == (1, 7, 13, 18)
    assert even_plan(partition, 9) == (2, 8, 14, 19)
    assert even_plan(partition, 24) == (6, 12, 17, 23)


def test_the_nearest_number_of_layers_stays_between_the_floor_and_all():
    assert [nearest_layers(PARTITION, depth) for depth in (0.0, 3.2, 4.5, 5.4, 12.0)] == [3, 3, 5, 5, 8]


@pytest.mark.parametrize("layers", [4, 5])
def test_the_best_plan_has_the_least_error_on_the_runs(tested, runs, layers):
    choice = best_plan(tested, runs, M, layers)
    errors = {
        plan: error(tested, runs, FixedPlan(PARTITION, tested.dysl.modules, plan)).mean()
        for plan in plans_of(PARTITION, layers)
    }
    assert choice.plan == min(errors, key=errors.__getitem__)
    assert "on 15 observations of 3 full-depth calibration runs" in choice.how


def test_where_there_are_too_many_plans_layers_are_added_where_each_helps_most(tested, runs, monkeypatch):
    monkeypatch.setattr(fixed, "MOST_PLANS", 1)
    choice = best_plan(tested, runs, M, 4)
    assert choice.how.endswith("layer by layer")
    assert choice.plan == best_plan_of_one_more(tested, runs)


def best_plan_of_one_more(tested, runs):
    plans = plans_of(PARTITION, 4)
    return min(plans, key=lambda plan: error(tested, runs, FixedPlan(PARTITION, tested.dysl.modules, plan)).mean())


def test_without_runs_blocks_are_filled_evenly_and_it_is_said(tested):
    assert best_plan(tested, [], M, 5) == (even_plan(PARTITION, 5), "blocks filled evenly")


def test_the_oracle_comes_to_the_depth_on_the_runs_it_was_set_on(tested, runs):
    apart = error(tested, runs, StaticOnly(PARTITION, tested.dysl.modules))
    for depth in (3.0, 5.0, 8.0):
        threshold = oracle_threshold(tested, runs, M, depth)
        reached = np.where(apart > threshold + 1e-6, 8, 3).mean()
        assert reached == pytest.approx(depth, abs=5 / len(apart) + 1e-9)


def test_a_policy_with_a_memory_has_no_plan_chosen_by_single_passes():
    stateful = runtime("stateful")
    run = FullDepthRun((observation(policy_of("stateful")),), np.zeros((1, 4, 4), np.float32))
    assert best_plan(stateful, [run], 1, 5).how == "blocks filled evenly"
