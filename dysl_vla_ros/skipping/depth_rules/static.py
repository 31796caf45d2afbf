"""The floor: static layers alone, the first adapter of each block in between."""

from typing import TYPE_CHECKING

from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import Skip, SkipModules, StackContext

if TYPE_CHECKING:
    from torch import Tensor


class StaticOnly:
    """Skips every block from its first layer on, whatever the observation."""

    def __init__(self, partition: LayerPartition, modules: SkipModules) -> None:
        """Use the first adapter of each of the partition's blocks."""
        self._modules = modules
        self._ends = dict(partition.blocks)  # first dynamic layer -> layer to go on at

    def skip(self, layer: int, hidden: "Tensor", context: StackContext) -> Skip | None:
        """Skip at the first layer of a block."""
        if layer not in self._ends:
            return None
        return Skip(self._ends[layer], self._modules.adapted(layer, hidden, context.token_mask))
