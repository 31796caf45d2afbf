"""Every layer runs: the base model, bit for bit."""

from torch import Tensor

from dysl_vla_ros.skipping.stack import Skip, StackContext


class FullDepth:
    """Skips nothing."""

    def skip(self, layer: int, hidden: Tensor, context: StackContext) -> Skip | None:
        """Return None: run the layer."""
        return None
