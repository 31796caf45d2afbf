"""Chance decides: what any signal must beat at equal depth."""

from typing import TYPE_CHECKING

import numpy as np

from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import Skip, SkipModules, StackContext

if TYPE_CHECKING:
    from torch import Tensor


class RandomSkipping:
    """At each skip point that is reached, skips the rest of its block with a fixed probability."""

    def __init__(
        self, partition: LayerPartition, modules: SkipModules, probability: float, generator: np.random.Generator
    ) -> None:
        """Draw from ``generator``, so that a seed repeats a run."""
        self._partition = partition
        self._modules = modules
        self._probability = probability
        self._generator = generator

    def skip(self, layer: int, hidden: "Tensor", context: StackContext) -> Skip | None:
        """Skip by chance at a skip point."""
        block = self._partition.block_at(layer)
        if block is None or self._generator.random() >= self._probability:
            return None
        return Skip(self._partition.blocks[block][1], self._modules.adapted(layer, hidden, context.token_mask))
