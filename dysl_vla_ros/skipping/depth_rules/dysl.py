"""The paper's rule: a controller in front of each dynamic layer, heard from the block's allow point on."""

import math
from typing import TYPE_CHECKING

from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import Skip, SkipModules, StackContext

if TYPE_CHECKING:
    from torch import Tensor


class DyslRule:
    """Skips the rest of a block at the first layer whose controller exceeds the threshold.

    One object for one inference of batch 1. After the run ``controller_outputs`` holds for each block the highest
    skip probability that was evaluated (NaN where none was), ``skip_points`` the layer skipped at (-1 where none).
    """

    def __init__(
        self, partition: LayerPartition, modules: SkipModules, threshold: float, allow_points: tuple[int, ...]
    ) -> None:
        """Controllers before their block's allow point (an absolute layer) are not even evaluated."""
        assert len(allow_points) == len(partition.blocks), f"{allow_points} for blocks {partition.blocks}"
        self._partition = partition
        self._modules = modules
        self._threshold = threshold
        self._allow_points = allow_points
        self.controller_outputs = [math.nan] * len(partition.blocks)
        self.skip_points = [-1] * len(partition.blocks)

    def skip(self, layer: int, hidden: "Tensor", context: StackContext) -> Skip | None:
        """Ask the layer's controller, if its block allows it."""
        block = self._partition.block_at(layer)
        if block is None or layer < self._allow_points[block]:
            return None
        summary = self._modules.summary(layer, hidden, context.token_mask)
        probability = self._modules.controller(layer).probability(summary)
        # In this order: max keeps its first value where the second one is NaN.
        self.controller_outputs[block] = max(probability, self.controller_outputs[block])
        if not probability > self._threshold:
            return None
        self.skip_points[block] = layer
        return Skip(self._partition.blocks[block][1], self._modules.adapter(layer)(hidden, summary))
