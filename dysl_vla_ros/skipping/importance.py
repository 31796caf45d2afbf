"""Which layers are informative: cosine similarity between a layer's input and output, and the choice of static layers.

Taken over all tokens, not over the action queries alone: by queries the static layers crowd at the front, and
adapters, which mix tokens little, cannot make up for a stack that nowhere else mixes them.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dysl_vla_ros.errors import SettingError


class CosineSimilarity:
    """Mean cosine similarity between each layer's input and output over all real tokens seen."""

    def __init__(self, num_layers: int) -> None:
        """Start with nothing seen."""
        self._sums = np.zeros(num_layers)
        self._tokens = np.zeros(num_layers, dtype=np.int64)

    def update(self, layer: int, before: Tensor, after: Tensor, token_mask: Tensor | None) -> None:
        """Add one batch.

        Args:
            layer: index of the layer.
            before: (B, T, D) that entered it.
            after: (B, T, D) that left it.
            token_mask: (B, T) bool, True where a token is real; None: all are.
        """
        with torch.no_grad():
            similarity = torch.cosine_similarity(before.double(), after.double(), dim=-1)  # (B, T)
            if token_mask is not None:
                similarity = similarity[token_mask]
            self._sums[layer] += similarity.sum().item()
            self._tokens[layer] += similarity.numel()

    def mean(self) -> NDArray[np.float64]:
        """Return the mean of each layer (L,); NaN for a layer that was never seen."""
        with np.errstate(invalid="ignore"):
            return self._sums / self._tokens


def static_count(num_layers: int, ratio: float) -> int:
    """Return how many layers are static: ``ceil(ratio * L)``, but never fewer than the first and the last.

    Raises:
        SettingError: ``ratio`` is not above 0 and at most 1.
    """
    if not 0.0 < ratio <= 1.0:
        raise SettingError(f"the static ratio must be above 0 and at most 1, not {ratio}")
    # Rounded first, or 0.07 * 100 = 7.000000000000001 would give 8.
    return max(math.ceil(round(ratio * num_layers, 9)), min(num_layers, 2))


def check_count(num_layers: int, count: int) -> int:
    """Return a number of static layers that was asked for.

    Raises:
        SettingError: it leaves out the first or the last layer, or there are not that many.
    """
    least = min(num_layers, 2)
    if not least <= count <= num_layers:
        raise SettingError(
            f"static layers must be {least} to {num_layers} of {num_layers} (the first and the last are always among "
            f"them), not {count}"
        )
    return count


def informative_static(similarity: NDArray[np.float64], count: int) -> tuple[int, ...]:
    """Choose ``count`` layers: first, last, then those of lowest similarity (L,); equal ones by the lower index.

    Raises:
        SettingError: see :func:`check_count`.
    """
    assert np.isfinite(similarity).all(), "similarity of a layer that was never seen"
    num_layers = len(similarity)
    check_count(num_layers, count)
    ends = {0, num_layers - 1}
    between = sorted(set(range(num_layers)) - ends, key=lambda layer: (similarity[layer], layer))
    return tuple(sorted(ends | set(between[: count - len(ends)])))


def spread_static(num_layers: int, count: int) -> tuple[int, ...]:
    """Choose ``count`` layers evenly spaced from the first to the last, halves rounded up.

    Raises:
        SettingError: see :func:`check_count`.
    """
    if check_count(num_layers, count) == 1:
        return (0,)
    gaps = count - 1
    # floor(i * (L - 1) / gaps + 1/2) in integers, so that no machine rounds it differently.
    return tuple((2 * index * (num_layers - 1) + gaps) // (2 * gaps) for index in range(count))
