"""Depth within a time budget: what does not fit is not begun, and whoever reads the report is told."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.runtime.budget import BRIDGE, HEAD, LATEST, PACE_OF, BudgetedRule, StepCosts, shortest_rest
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import SkippingSettings
from dysl_vla_ros.skipping.depth_rules import FullDepth, StaticOnly
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import SkippableStack, StackResult
from dysl_vla_ros.skipping.streams import Stream
from runtime_families import (
    PARTITION,
    UNGUIDED,
    VERIFYING,
    Recorded,
    families,
    nothing,
    observation,
    own_output,
    policy_of,
    runtime,
    still,
)
from small_stacks import trained_like

WIDTH, LAYERS = 8, PARTITION.num_layers
MODULES = trained_like(PARTITION, (Stream("stack", WIDTH),))
NO_TIME, ALL_TIME = 1e-6, 1e6  # ms


@dataclass
class Clock:
    """A time that layers alone let pass."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class NoMask:
    token_mask = None


def run(budget: float, layer: float, drift: float = 1.0, rule=None) -> tuple[StackResult, BudgetedRule, float]:
    """Run layers that cost ``layer`` x ``drift`` s each where ``layer`` was learned; return the time that passed."""
    clock, costs = Clock(), StepCosts()
    for number in range(LAYERS):
        costs.note(number, layer)
    costs.update()

    def costly(hidden: torch.Tensor, context: NoMask) -> torch.Tensor:
        clock.now += layer * drift
        return hidden

    budgeted = BudgetedRule(rule or FullDepth(), PARTITION, MODULES, costs, budget, clock)
    result = SkippableStack([costly] * LAYERS).run(torch.zeros(1, 3, WIDTH), NoMask(), budgeted)
    budgeted.ended()
    costs.update()
    assert costs.seconds(layer) >= min(1.0, drift) * layer * (1 - 1e-9), "what it measured is what passed"
    return result, budgeted, clock.now


seconds = st.floats(1e-4, 1.0)


@given(layer=seconds, share=st.floats(0.0, 1.5))
def test_nothing_is_begun_that_cannot_end_in_time(layer, share):
    budget = share * LAYERS * layer
    result, rule, took = run(budget, layer)
    shortest = shortest_rest(PARTITION, [layer] * LAYERS, 0.0)[0]
    assert took <= max(budget, shortest) * (1 + 1e-9)
    assert rule.cut == (result.layer_calls < LAYERS), "full depth was wanted"
    if budget < shortest:
        assert result.layer_calls == len(PARTITION.static)


@given(layer=seconds, one=st.floats(0.0, 1.5), other=st.floats(0.0, 1.5))
def test_more_time_is_never_fewer_layers_and_enough_time_cuts_none(layer, one, other):
    calls = [run(share * LAYERS * layer, layer)[0].layer_calls for share in sorted((one, other))]
    assert calls[0] <= calls[1]
    result, rule, _ = run(LAYERS * layer * (1 + 1e-6), layer)
    assert result.layer_calls == LAYERS and not rule.cut


def test_a_machine_that_grows_slower_is_overrun_by_one_layer_at_most():
    layer, drift, budget = 0.01, 3.0, 0.06
    _, rule, took = run(budget, layer, drift)
    static_after = 2  # layers behind the last block that run whatever they cost
    assert rule.cut and took <= budget + (1 + static_after) * layer * drift


def test_where_the_rule_skips_by_itself_the_budget_has_cut_nothing():
    result, rule, _ = run(0.0, 0.01, rule=StaticOnly(PARTITION, MODULES))
    assert result.layer_calls == len(PARTITION.static) and not rule.cut


def test_the_shortest_way_leaves_each_block_at_its_next_adapter():
    partition = LayerPartition(6, (0, 3, 5))
    assert shortest_rest(partition, [1.0] * 6, 0.25) == [3.5, 2.5, 2.5, 2.25, 1.25, 1.0, 0.0]


# --- over many inferences, on a machine of which the tests say how fast it is

SHIPPED = LayerPartition(24, (0, 23), "first")  # one decision: 22 layers, or none of them
SHIPPED_MODULES = trained_like(SHIPPED, (Stream("stack", WIDTH),))
MEAN = 1.1  # of a layer that lasts 1 s, and one time in ten 2 s


class Machine:
    """A stack whose layers last as long as it is told, by chance too; what inferences cost on it is learned."""

    def __init__(self, partition, modules, costs) -> None:
        self.partition, self.modules, self.costs = partition, modules, costs  # costs: (L,) s
        self.clock, self.learned, self.random = Clock(), StepCosts(), np.random.default_rng(0)
        self.pace, self.spikes = 1.0, 0.0  # spikes: how often a layer lasts twice as long

    def _layer(self, cost):
        def call(hidden, context):
            self.clock.now += cost * self.pace * (2.0 if self.random.random() < self.spikes else 1.0)
            return hidden

        return call

    def infer(self, budget):
        """Return how long an inference took, and whether the budget has cut it."""
        began = self.clock.now
        rule = BudgetedRule(FullDepth(), self.partition, self.modules, self.learned, began + budget, self.clock)
        stack = SkippableStack([self._layer(cost) for cost in self.costs])
        stack.run(torch.zeros(1, 1, WIDTH), NoMask(), rule)
        rule.ended()
        self.learned.update()
        return self.clock.now - began, rule.cut

    def infers(self, number, budget=math.inf):
        """Return times (n,) and cuts (n,) of so many inferences."""
        took, cut = zip(*(self.infer(budget) for _ in range(number)), strict=True)
        return np.array(took), np.array(cut)


MACHINES = {
    "one decision": lambda: Machine(SHIPPED, SHIPPED_MODULES, [1.0] * 24),
    "one a layer": lambda: Machine(PARTITION, MODULES, [1.0] * LAYERS),
}


@pytest.mark.parametrize("kind", MACHINES)
def test_layers_that_are_late_now_and_then_are_not_allowed_for_as_if_all_were_late_at_once(kind):
    machine = MACHINES[kind]()
    machine.spikes, layers = 0.1, len(machine.costs)
    budget = 1.5 * MEAN * layers
    assert 2.0 * layers > budget, "as long as 95% of the layers stay below, one by one, would not fit"
    machine.infers(LATEST)
    took, cut = machine.infers(400, budget)
    assert cut.mean() < 0.01 and (took > budget).mean() < 0.01


@pytest.mark.parametrize("room", [1.0, 1.05, 1.1, 1.2])
def test_what_is_begun_ends_in_time_but_for_one_in_a_hundred(room):
    machine = MACHINES["one decision"]()
    machine.spikes, budget = 0.1, room * MEAN * 24
    machine.infers(LATEST)
    took, _ = machine.infers(1000, budget)
    assert (took > budget).mean() < 0.02


def test_a_load_that_comes_is_cut_for_at_once_and_one_that_went_is_forgotten():
    """Though the block's layers cost less than the static ones, which alone are run and measured under load."""
    machine = Machine(SHIPPED, SHIPPED_MODULES, [2.0, *[1.0] * 22, 2.0])
    machine.infers(LATEST)
    budget = 1.25 * 26.0
    assert not machine.infers(20, budget)[1].any()
    machine.pace = 2.0
    took, cut = machine.infers(300, budget)
    assert cut[2:].all() and (took > budget).sum() <= 2
    machine.pace = 1.0
    assert not machine.infers(LATEST + 2 * PACE_OF, budget)[1][-PACE_OF:].any(), "a budget that fits again"


# --- in a step


@families
@pytest.mark.parametrize("wanted", ["full", "warm-up", "closed"])
def test_without_time_the_floor_runs_whatever_was_wanted_and_the_report_says_so(family, wanted):
    chosen = {
        "full": replace(UNGUIDED, skipping=SkippingSettings(rule="full")),
        "warm-up": replace(UNGUIDED, guidance=replace(UNGUIDED.guidance, warmup=1)),
        "closed": replace(UNGUIDED, skipping=SkippingSettings(threshold=1.0)),
    }[wanted]
    policy = policy_of(family)
    tested = runtime(family)
    with Recorded(family, policy) as calls:
        result = tested.step(observation(policy), nothing(policy), replace(chosen, budget_ms=NO_TIME))
    assert result.trace.budget_cut
    static = list(PARTITION.static)
    assert list(calls)[-len(static) :] == static, "one policy's own forward runs before, to see what layers are given"
    assert [layer for layer, ran in enumerate(result.trace.executed) if ran] == static
    assert result.trace.layer_calls == len(PARTITION.static)


@families
def test_with_all_the_time_nothing_changes(family):
    policy = policy_of(family)
    seen = observation(policy)
    full = replace(UNGUIDED, skipping=SkippingSettings(rule="full"), budget_ms=ALL_TIME)
    result = runtime(family).step(seen, nothing(policy), full)
    assert np.array_equal(result.chunk.actions, own_output(policy, seen))
    assert not result.trace.budget_cut
    without, within = (
        runtime(family, 0.0).step(seen, nothing(policy), replace(UNGUIDED, budget_ms=budget))
        for budget in (0.0, ALL_TIME)
    )
    assert np.array_equal(without.chunk.actions, within.chunk.actions)
    assert without.trace.executed == within.trace.executed


@families
def test_a_verification_that_does_not_fit_is_not_run_and_nothing_is_called_verified(family):
    policy = policy_of(family)
    seen = observation(policy)
    verified = runtime(family).step(seen, still(policy), VERIFYING)
    assert verified.trace.verified
    hurried = runtime(family).step(seen, still(policy), replace(VERIFYING, budget_ms=NO_TIME))
    assert hurried.trace.budget_cut
    assert not hurried.trace.verified and not hurried.chunk.verified and hurried.trace.verify_reason == ""
    assert hurried.trace.layer_calls == len(PARTITION.static)


@families
def test_warming_up_measures_the_shortest_inference_and_costs_of_its_parts(family):
    tested = runtime(family)
    assert tested.description.floor_ms == 0.0
    tested.warm_up()
    assert 0.0 < tested.description.floor_ms < 60_000.0
    assert all(tested._costs.weight(part) > 0.0 for part in (*range(LAYERS), BRIDGE, HEAD))


def test_where_nothing_can_be_skipped_no_layer_is_cut():
    policy = policy_of("reference")
    seen = observation(policy)
    result = Runtime(policy, None).step(seen, nothing(policy), replace(UNGUIDED, budget_ms=NO_TIME))
    assert result.trace.layer_calls == LAYERS and not result.trace.budget_cut
