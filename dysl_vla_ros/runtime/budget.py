"""Depth within a time budget: what does not fit any more is not begun.

What parts of a step cost is learned while warming up and followed as it drifts: another process that takes a core makes
layers dearer, and fewer of them are begun. Guidance and controllers decide as ever; the budget overrules them only
where the rest of the step, by its shortest way, would not end in time.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import DepthRule, Skip, SkipModules, StackContext

if TYPE_CHECKING:
    from torch import Tensor

LATEST = 200  # measurements of each part that its cost is taken from
QUANTILE = 0.95  # of them: what nearly always suffices
PARTS = ("layer", "bridge", "head")


class StepCosts:
    """What a layer, a bridge over skipped ones and the head cost on this machine, seconds."""

    def __init__(self) -> None:
        self._seen = {part: deque[float](maxlen=LATEST) for part in PARTS}
        self._cost = dict.fromkeys(PARTS, 0.0)

    def note(self, part: str, seconds: float) -> None:
        """Take a measurement of one of :data:`PARTS`."""
        self._seen[part].append(seconds)

    def update(self) -> None:
        """Learn from what was measured since the last call: between steps, so that no step pays for it twice."""
        for part, seen in self._seen.items():
            if seen:
                self._cost[part] = float(np.quantile(seen, QUANTILE))

    def __getitem__(self, part: str) -> float:
        """Return what a part nearly always suffices with; 0.0 where it was never measured."""
        return self._cost[part]


class BudgetedRule:
    """A depth rule within a time: where running the next layer would leave too little for the rest, its block is left.

    One object for one inference. Layers before a static one, or without an adapter, run whatever they cost.

    Attributes:
        cut: whether the budget has overruled the rule.
    """

    def __init__(
        self,
        rule: DepthRule,
        partition: LayerPartition,
        modules: SkipModules,
        costs: StepCosts,
        deadline: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Keep to ``deadline``, by ``clock`` (s), decoding included."""
        self._rule, self._partition, self._modules = rule, partition, modules
        self._costs, self._deadline, self._clock = costs, deadline, clock
        self._rest = shortest_rest(partition, costs["layer"], costs["bridge"])
        self._begun: tuple[int, float] | None = None  # the layer that a call began with, and when
        self.cut = False

    def skip(self, layer: int, hidden: "Tensor", context: StackContext) -> Skip | None:
        """Ask the rule, and overrule it where the layer does not fit."""
        now = self.ended(layer)
        skip = self._rule.skip(layer, hidden, context)
        block = self._partition.block_at(layer)
        if skip is None and block is not None and self._too_late(now, layer):
            self.cut = True
            end = self._partition.blocks[block][1]
            skip = Skip(end, self._modules.adapted(layer, hidden, context.token_mask))
        if skip is None:
            self._begun = (layer, self._clock())
        else:
            self._costs.note("bridge", self._clock() - now)
        return skip

    def ended(self, layer: int) -> float:
        """Note what each layer since the last question took, if any ran, up to ``layer``; return the time."""
        now = self._clock()
        if self._begun is not None:
            first, since = self._begun
            self._costs.note("layer", (now - since) / (layer - first))
            self._begun = None
        return now

    def _too_late(self, now: float, layer: int) -> bool:
        after = now + self._costs["layer"] + self._rest[layer + 1] + self._costs["head"]
        return after > self._deadline


def shortest_rest(partition: LayerPartition, layer: float, bridge: float) -> list[float]:
    """Return what it takes at least from before each layer to the end of the stack: (L + 1,), the last one 0.0."""
    rest = [0.0] * (partition.num_layers + 1)
    for index in reversed(range(partition.num_layers)):
        rest[index] = layer + rest[index + 1]
        if (block := partition.block_at(index)) is not None:
            rest[index] = min(rest[index], bridge + rest[partition.blocks[block][1]])
    return rest
