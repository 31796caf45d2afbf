"""Depth within a time budget: what does not fit any more is not begun.

What parts of a step cost is learned while warming up and followed as it drifts: another process that takes a core makes
layers dearer, and fewer of them are begun. Guidance and controllers decide as ever; the budget overrules them only
where the rest of the step, by its shortest way, would not end in time.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import DepthRule, Skip, SkipModules, StackContext

if TYPE_CHECKING:
    from torch import Tensor

LATEST = 100  # inferences whose deviations from what was expected are kept
PACE_OF = 8  # of them, the latest, say how fast the machine is now
QUANTILE = 0.99  # of the deviations: of a hundred inferences one may take longer than was allowed for
STEADY = 0.02  # share of a new measurement in what a part weighs, once it was measured so often (1 / STEADY)
BRIDGE, HEAD = "bridge", "head"
Part = int | str  # the layer that a call begins with, BRIDGE or HEAD


class StepCosts:
    """What layers, a bridge over skipped ones and the head cost on this machine.

    In two factors. Each part *weighs* what it took beside the others: that hangs on the policy, and stays known of a
    part that was not run for long. The *pace* is what an inference took over what its parts weigh: that hangs on the
    machine's load. Parts late and early cancel in a sum, so that the allowance for chance grows with the root of what a
    sum weighs: adding one for each part would allow for all of them being late at once.
    """

    def __init__(self) -> None:
        self._weights: dict[Part, float] = {}  # s at pace 1
        self._times: dict[Part, int] = {}  # measured
        self._noted: list[tuple[Part, float]] = []  # of the inference at hand
        self._paces = deque[float](maxlen=PACE_OF)
        self._deviations = deque[float](maxlen=LATEST)  # of paces from what was expected, by the root of the weight
        self._pace, self._allowance = 1.0, 0.0

    def begin(self) -> None:
        """Begin an inference: what one that failed has noted is forgotten."""
        self._noted.clear()

    def note(self, part: Part, seconds: float) -> None:
        """Take a measurement of a part of the inference at hand; parts follow on each other without a gap."""
        self._noted.append((part, seconds))

    def update(self) -> None:
        """Learn from the inference whose parts were noted: between steps, so that no step pays for it twice."""
        noted, self._noted = self._noted, []
        known = [(part, seconds) for part, seconds in noted if self._weights.get(part, 0.0) > 0.0]
        weight, took = sum(self._weights[part] for part, _ in known), sum(seconds for _, seconds in known)
        pace = took / weight if took > 0.0 else self._pace
        for part, seconds in noted:
            times = self._times[part] = self._times.get(part, 0) + 1
            before = self._weights.get(part, 0.0)
            self._weights[part] = before + max(STEADY, 1.0 / times) * (seconds / pace - before)
        if not took:
            return  # the first inference: there was nothing to expect
        self._deviations.append((pace / self._pace - 1.0) * math.sqrt(weight))
        self._paces.append(pace)
        self._pace = float(np.mean(self._paces))
        self._allowance = max(0.0, float(np.quantile(self._deviations, QUANTILE)))

    def weight(self, part: Part) -> float:
        """Return what a part weighs; 0.0 where it was never measured, or is computed in another one's call."""
        return self._weights.get(part, 0.0)

    def weights(self, layers: int) -> list[float]:
        """Return what each layer weighs (L,)."""
        return [self.weight(layer) for layer in range(layers)]

    def seconds(self, weight: float) -> float:
        """Return the time that parts of so much weight together nearly never exceed."""
        return self._pace * (weight + self._allowance * math.sqrt(weight))


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
        self._weights = costs.weights(partition.num_layers)
        self._rest = shortest_rest(partition, self._weights, costs.weight(BRIDGE))
        self._begun: tuple[int, float] | None = None  # the layer that a call began with, and when
        costs.begin()
        self.cut = False

    def skip(self, layer: int, hidden: "Tensor", context: StackContext) -> Skip | None:
        """Ask the rule, and overrule it where the layer does not fit."""
        now = self.ended()
        skip = self._rule.skip(layer, hidden, context)
        block = self._partition.block_at(layer)
        if skip is None and block is not None and self._too_late(layer):
            self.cut = True
            end = self._partition.blocks[block][1]
            skip = Skip(end, self._modules.adapted(layer, hidden, context.token_mask))
        if skip is None:
            self._begun = (layer, now)
        else:
            self._costs.note(BRIDGE, self._clock() - now)
        return skip

    def ended(self) -> float:
        """Note what the call since the last question took, the question included, if one ran; return the time."""
        now = self._clock()
        if self._begun is not None:
            first, since = self._begun
            self._costs.note(first, now - since)
            self._begun = None
        return now

    def _too_late(self, layer: int) -> bool:
        weight = self._weights[layer] + self._rest[layer + 1] + self._costs.weight(HEAD)
        return self._clock() + self._costs.seconds(weight) > self._deadline


def shortest_rest(partition: LayerPartition, layers: Sequence[float], bridge: float) -> list[float]:
    """Return what it takes at least from before each layer to the end of the stack: (L + 1,), the last one 0.0.

    Args:
        partition: where blocks can be left.
        layers: what each layer takes (L,).
        bridge: what an adapter takes.
    """
    rest = [0.0] * (partition.num_layers + 1)
    for index in reversed(range(partition.num_layers)):
        rest[index] = layers[index] + rest[index + 1]
        if (block := partition.block_at(index)) is not None:
            rest[index] = min(rest[index], bridge + rest[partition.blocks[block][1]])
    return rest
