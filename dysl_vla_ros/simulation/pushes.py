"""Pushes of the arm that come at random: in demonstrations, to show how to recover; in evaluation, to ask for it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating[Any]]


class Pushes:
    """At each control tick where none is under way a push begins by chance, and stays the same for its length."""

    def __init__(
        self, random: np.random.Generator, share: float, ticks: int, draw: Callable[[np.random.Generator], Vector]
    ) -> None:
        """Take what they are drawn from.

        Args:
            random: the only source of chance; what else is drawn from it between two ticks comes in between.
            share: probability (0 to 1) that one begins.
            ticks: control ticks that one lasts.
            draw: gives one push (3,), in any unit.
        """
        self._random, self._share, self._ticks, self._draw = random, share, ticks, draw
        self._push: Vector = np.zeros(3)
        self._left = 0

    def next(self) -> Vector:
        """Return what is added at this tick (3,), in the unit that is drawn in; zero between pushes."""
        if self._left == 0:
            if self._random.random() >= self._share:
                return np.zeros(3)
            self._push, self._left = self._draw(self._random), self._ticks
        self._left -= 1
        return self._push
