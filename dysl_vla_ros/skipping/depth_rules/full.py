"""Every layer runs: the base model, bit for bit."""

from typing import TYPE_CHECKING

from dysl_vla_ros.skipping.stack import Skip, StackContext

if TYPE_CHECKING:
    from torch import Tensor


class FullDepth:
    """Skips nothing."""

    def skip(self, layer: int, hidden: "Tensor", context: StackContext) -> Skip | None:
        """Return None: run the layer."""
        return None
