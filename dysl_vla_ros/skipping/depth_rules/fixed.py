"""The same way through the layers in every inference: what any rule that varies must beat at equal depth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import Skip, SkipModules, StackContext

if TYPE_CHECKING:
    from torch import Tensor


class FixedPlan:
    """Skips each block from a given layer on, whatever the observation."""

    def __init__(self, partition: LayerPartition, modules: SkipModules, positions: Sequence[int]) -> None:
        """Skip from ``positions`` on, one absolute layer a block; a block's end: nothing of it is skipped."""
        assert len(positions) == len(partition.blocks), f"{positions} for blocks {partition.blocks}"
        for position, (first, end) in zip(positions, partition.blocks, strict=True):
            assert first <= position <= end, f"{position} is no place in the block from {first} to {end}"
        self._modules = modules
        ends = (end for _, end in partition.blocks)
        self._ends = {at: end for at, end in zip(positions, ends, strict=True) if at < end}

    def skip(self, layer: int, hidden: "Tensor", context: StackContext) -> Skip | None:
        """Skip at the block's position."""
        if layer not in self._ends:
            return None
        return Skip(self._ends[layer], self._modules.adapted(layer, hidden, context.token_mask))
