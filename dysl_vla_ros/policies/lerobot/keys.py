"""Keys and values that a leading layer leaves for the expert's layer of the same number, in a cache for each layer."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import DynamicCache


class _KeptError(Exception):
    """The keys and values are there; what the layer would compute from them is not wanted."""


class LayerKeys(DynamicCache):
    """The library's cache for one layer, whose place in it is 0."""

    stops = False

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **more: Any) -> Any:
        """Take keys and values as the library's does; of a layer that is run for them alone, that is all."""
        kept = super().update(key_states, value_states, layer_idx, *args, **more)
        if self.stops:
            raise _KeptError
        return kept

    def fill(self, run: Callable[[], Any]) -> None:
        """Run a layer up to where it leaves its keys and values here, and no further."""
        self.stops = True
        try:
            run()
        except _KeptError:
            pass
        finally:
            self.stops = False
