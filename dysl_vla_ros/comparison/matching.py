"""Sets the methods of equal depth, without a look at the scenes of the table.

The depth to come to is the mean of ``dysl``'s layer calls (or a given one); everything else comes from full-depth runs
on calibration scenes: which constant plan of that depth has the least action error, and from which difference between
the floor's and the full action on the oracle takes full depth.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dysl_vla_ros.interfaces import FloatArray
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.skipping.depth_rules import FixedPlan, StaticOnly
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import DepthRule, SkippableStack, StackContext
from dysl_vla_ros.skipping.streams import Bridge

OBSERVATIONS = 256  # that plans are compared on, spread evenly over the runs
BATCH = 64
MOST_PLANS = 200  # tried one by one; where there are more, layers are added where each helps most

Plan = tuple[int, ...]
"""A block: the layer from which the rest is skipped; the block's end: nothing is."""


class PlanChoice(NamedTuple):
    """The plan of a depth, and how it was chosen."""

    plan: Plan
    how: str


def skip_probability(partition: LayerPartition, depth: float) -> float:
    """Return the probability with which :class:`RandomSkipping` runs ``depth`` layers on average."""

    def layers(probability: float) -> float:
        run = 1.0 - probability
        asked = (
            sum(point <= layer for point in points)  # skip points that let this layer run
            for points, (first, end) in zip(partition.points, partition.blocks, strict=True)
            for layer in range(first, end)
        )
        return len(partition.static) + sum(run**count for count in asked)

    low, high = 0.0, 1.0  # layers fall as the probability grows
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if layers(middle) > depth else (low, middle)
    return (low + high) / 2


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
    seen = _Seen(runtime.policy, runs, m, modules.bridge)

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


def oracle_threshold(runtime: Runtime, runs: Sequence[FullDepthRun], m: int, depth: float) -> float:
    """Return the difference of floor and full action (L1, normalised) above which so few run full depth on the runs
    that ``depth`` layers are run on average.
    """
    assert runtime.dysl is not None and runs
    partition: LayerPartition = runtime.dysl.partition
    modules: DyslModules = runtime.dysl.modules
    errors = _Seen(runtime.policy, runs, m, modules.bridge).errors(StaticOnly(partition, modules))
    floor, full = len(partition.static), partition.num_layers
    share = min(1.0, max(0.0, (depth - floor) / max(1, full - floor)))
    return float(np.quantile(errors, 1.0 - share))


def _plans_or_none(partition: LayerPartition, layers: int) -> list[Plan] | None:
    """Return all plans, None where there are too many to try; found out without making them."""
    counts = np.ones(1, dtype=object)  # ways to keep 0, 1, ... layers
    if partition.per_block == "first":
        return plans_of(partition, layers)  # two places a block: never many
    for first, end in partition.blocks:
        counts = np.convolve(counts, np.ones(end - first + 1, dtype=object))
    return plans_of(partition, layers) if counts[layers - len(partition.static)] <= MOST_PLANS else None


class _Seen:
    """Observations of the runs as they enter the stack, in batches, and the actions of full depth."""

    def __init__(self, policy: VlaPolicy, runs: Sequence[FullDepthRun], m: int, bridge: Bridge) -> None:
        self._bridge = bridge
        self._policy, self._m, self._stack = policy, m, SkippableStack(policy.layers)
        moments = [(o, chunk) for run in runs for o, chunk in zip(run.observations, run.chunks, strict=True)]
        places = np.linspace(0, len(moments) - 1, min(OBSERVATIONS, len(moments))).round().astype(int)
        chosen = [moments[place] for place in places]
        self.count = len(chosen)
        self._batches: list[tuple[Tensor, StackContext, FloatArray]] = []
        with torch.inference_mode():
            for start in range(0, len(chosen), BATCH):
                part = chosen[start : start + BATCH]
                hidden, contexts = zip(*(policy.prepare([observation]) for observation, _ in part), strict=True)
                wanted = np.stack([policy.action.normalise(chunk[:m]) for _, chunk in part])
                self._batches.append((torch.cat(hidden), policy.collate(contexts), wanted))

    def errors(self, rule: DepthRule) -> FloatArray:
        """Return the mean absolute difference of the played actions to full depth's (n,), normalised."""
        found = []
        with torch.inference_mode():
            for hidden, context, wanted in self._batches:
                result = self._stack.run(hidden, context, rule)
                count = len(hidden)
                state, noise = self._policy.initial_state(count), self._policy.noise([0] * count)
                actions, _ = self._policy.decode(result, context, state, noise, self._bridge)
                given = actions[:, : self._m].float().cpu().numpy()
                found.append(np.abs(given - wanted).mean(axis=(1, 2)))
        return np.concatenate(found)
