"""What adapters learn from, wherever it comes from: observations to learn from, and others that are held out."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from dysl_vla_ros.interfaces import Observation


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
