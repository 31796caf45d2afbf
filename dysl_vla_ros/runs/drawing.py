"""Which frames are learned from, where there are more than are wanted."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def draw_evenly(kinds: NDArray[Any], count: int, seed: int = 0) -> NDArray[np.int64]:
    """Draw up to ``count`` places in ``kinds`` (N,), as many of each kind as of any other while it lasts.

    Kinds are numbers or texts. Drawn over all frames alike, a task that is done soon would hardly be learned from.
    """
    drawn = np.random.default_rng(seed).permutation(len(kinds))
    own_kinds = kinds[drawn]
    turns = np.empty(len(drawn), dtype=np.int64)
    for kind in np.unique(own_kinds):
        own = own_kinds == kind
        turns[own] = np.arange(own.sum())
    return drawn[np.argsort(turns, kind="stable")][:count]
