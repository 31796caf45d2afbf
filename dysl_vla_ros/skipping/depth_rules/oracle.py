"""A bound, no method: runs both the floor and every layer, and keeps the floor where they come to the same action."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dysl_vla_ros.skipping.depth_rules.full import FullDepth
from dysl_vla_ros.skipping.depth_rules.static import StaticOnly
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import Layer, Skip, SkipModules, SkippableStack, StackContext, StackResult

if TYPE_CHECKING:
    from torch import Tensor

Apart = Callable[[StackResult, StackResult, StackContext], float]
"""How far the actions of two passes lie apart."""


class Oracle:
    """Full depth where the floor's action lies further than a threshold from full depth's, else the floor.

    One object for one inference. What the decision costs, one pass of each kind, is no part of the pass that is
    counted; so its layer calls are the floor's or all, and its milliseconds mean nothing.
    """

    def __init__(
        self,
        partition: LayerPartition,
        modules: SkipModules,
        layers: Sequence[Layer],
        apart: Apart,
        threshold: float,
        run_lengths: Sequence[int] | None = None,
    ) -> None:
        """Look through ``layers`` (the whole stack; ``run_lengths`` as of it), compare by ``apart``."""
        self._floor = StaticOnly(partition, modules)
        self._stack = SkippableStack(layers, run_lengths)
        self._apart = apart
        self._threshold = threshold
        self._full = True

    def skip(self, layer: int, hidden: "Tensor", context: StackContext) -> Skip | None:
        """Decide before the first layer, for the whole pass."""
        if layer == 0:
            floor = self._stack.run(hidden, context, self._floor)
            full = self._stack.run(hidden, context, FullDepth())
            self._full = self._apart(floor, full, context) > self._threshold
        return None if self._full else self._floor.skip(layer, hidden, context)
