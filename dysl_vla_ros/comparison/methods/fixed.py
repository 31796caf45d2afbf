"""``fixed``: one plan in every inference, the one of least action error among those of the mean depth of ``dysl``.

Chosen on calibration scenes, without a look at the scenes of the table.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dysl_vla_ros.comparison.methods.action_errors import ActionErrors
from dysl_vla_ros.comparison.methods.method import CalibrationScenes, Method, MethodInputs, Prepared, trained, unguided
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.skipping.depth_rules import FixedPlan
from dysl_vla_ros.skipping.partition import LayerPartition

PLAN, CHOICE = "fixed_plan", "fixed_plan_choice"
MOST_PLANS = 200  # tried one by one; where there are more, layers are added where each helps most

Plan = tuple[int, ...]
"""A block: the layer from which the rest is skipped; the block's end: nothing is."""


class PlanChoice(NamedTuple):
    """The plan of a depth, and how it was chosen."""

    plan: Plan
    how: str


def nearest_layers(partition: LayerPartition, depth: float) -> int:
    """Return the number of layers of the constant plan nearest to ``depth``, halves rounded up."""
    possible = {len(partition.static)}
    for places, first in zip(partition.places, partition.floor, strict=True):
        possible = {layers + at - first for layers in possible for at in places}
    return min(possible, key=lambda layers: (abs(layers - depth), -layers))


def plans_of(partition: LayerPartition, layers: int) -> list[Plan]:
    """Return every plan that runs so many layers."""

    def from_block(block: int, left: int) -> list[Plan]:
        if block == len(partition.blocks):
            return [()] if left == 0 else []
        first = partition.floor[block]
        later = sum(end - first for first, end in partition.blocks[block + 1 :])
        kept = (at for at in partition.places[block] if left - later <= at - first <= left)
        return [(at, *rest) for at in kept for rest in from_block(block + 1, left - (at - first))]

    return from_block(0, layers - len(partition.static))


def even_plan(partition: LayerPartition, layers: int) -> Plan:
    """Return the plan that fills blocks evenly: each further layer goes to the block with the least share run.

    Where blocks can be left at their first layer alone, it is the first plan of so many layers.
    """
    if partition.per_block == "first":
        return plans_of(partition, layers)[0]
    plan = list(partition.floor)
    for _ in range(layers - len(partition.static)):
        shares = [(at - first) / (end - first) for at, (first, end) in zip(plan, partition.blocks, strict=True)]
        plan[shares.index(min(shares))] += 1
    return tuple(plan)


def best_plan(runtime: Runtime, runs: Sequence[FullDepthRun], m: int, layers: int) -> PlanChoice:
    """Return the plan of so many layers with the least action error on the runs.

    Without runs, and for a policy whose decoding has a memory, blocks are filled evenly.
    """
    assert runtime.dysl is not None
    partition, modules = runtime.dysl.partition, runtime.dysl.modules
    if not runs or runtime.policy.initial_state() is not None:
        return PlanChoice(even_plan(partition, layers), "blocks filled evenly")
    seen = ActionErrors(runtime.policy, runs, m, modules.bridge)

    def error(plan: Plan) -> float:
        return float(seen.errors(FixedPlan(partition, modules, plan)).mean())

    how = f"least action error on {seen.count} observations of {len(runs)} full-depth calibration runs"
    plans = _plans_or_none(partition, layers)
    if plans is not None:
        return PlanChoice(min(plans, key=error), f"{how}, of all {len(plans)} plans")
    plan: Plan = partition.floor
    for _ in range(layers - len(partition.static)):
        longer = [
            (*plan[:block], at + 1, *plan[block + 1 :])
            for block, (at, (_, end)) in enumerate(zip(plan, partition.blocks, strict=True))
            if at < end
        ]
        plan = min(longer, key=error)
    return PlanChoice(plan, f"{how}, layer by layer")


def _plans_or_none(partition: LayerPartition, layers: int) -> list[Plan] | None:
    """Return all plans, None where there are too many to try; found out without making them."""
    counts = np.ones(1, dtype=object)  # ways to keep 0, 1, ... layers
    if partition.per_block == "first":
        return plans_of(partition, layers)  # two places a block: never many
    for first, end in partition.blocks:
        counts = np.convolve(counts, np.ones(end - first + 1, dtype=object))
    return plans_of(partition, layers) if counts[layers - len(partition.static)] <= MOST_PLANS else None


def _set_up(scenes: CalibrationScenes) -> Mapping[str, Any]:
    runtime, dysl = scenes.loaded()
    assert scenes.depth is not None
    choice = best_plan(runtime, scenes.runs(), scenes.m, nearest_layers(dysl.partition, scenes.depth))
    return {PLAN: list(choice.plan), CHOICE: choice.how}


def _prepare(given: MethodInputs) -> Prepared:
    runtime, dysl = given.loaded()
    plan = tuple(given.values[PLAN])
    runtime.rule_override = lambda points: FixedPlan(dysl.partition, dysl.modules, plan)
    return Prepared(runtime, unguided(given.settings), trained(dysl, plan))


METHOD = Method(
    "one plan, always: the best of equal mean depth", _prepare, depth=True, set_up=_set_up, sets=(PLAN, CHOICE)
)
