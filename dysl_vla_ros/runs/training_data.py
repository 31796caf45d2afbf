"""What adapters learn from, wherever it comes from: observations to learn from, and others that are held out."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.interfaces import Observation

HELD_OUT_SHARE = 0.2  # of the episodes of each instruction


@runtime_checkable
class TrainingData(Protocol):
    """Observations of a policy, split by episodes. The policy itself says what is to be done in each: no labels."""

    def learned_count(self, count: int) -> int:
        """Return how many observations :meth:`observations` yields of ``count``."""
        ...

    def observations(self, count: int) -> Iterator[Observation]:
        """Yield ``count`` observations to learn from, all if there are fewer."""
        ...

    def held_out_observations(self, count: int) -> Iterator[Observation]:
        """Yield up to ``count`` observations of episodes that nothing is learned from."""
        ...

    def in_order(self, count: int, *, held_out: bool = False) -> tuple[Iterator[Observation], tuple[bool, ...]]:
        """Return about ``count`` observations of whole episodes, and whether each is the first of its episode."""
        ...

    def told(self) -> dict[str, Any]:
        """Return where it comes from and what the user said of it, as plain values for result files; {}: nothing."""
        ...


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
