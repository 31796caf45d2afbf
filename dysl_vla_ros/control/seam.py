"""Joins the motion of one action chunk to that of the next without a jump. numpy only.

Two chunks answer two pictures: where the second takes over, its action may differ from what is being commanded. The
first command of a chunk therefore differs from the command before by no more than a bound; what is left of the
difference is an offset on the chunk's own commands, which shrinks by as much from tick to tick until it is gone. So the
arm follows the new chunk's shape at once and its values soon, and there is never a step above the bound that the policy
did not ask for within one chunk.
"""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
ROUNDING = 1e-12  # relative; a vector that was shortened to its limit is not reported as above it


class SeamBlend:
    """The offset of one part of the motion, translation or rotation."""

    def __init__(self) -> None:
        """Begin without an offset."""
        self._offset: Vector = np.zeros(3)

    def blend(self, wanted: Vector, before: Vector, bound: float, joint: bool) -> Vector:
        """Return what to command for one tick: ``wanted`` itself, the same object, where nothing is left to join.

        Args:
            wanted: (3,) velocity by the chunk.
            before: (3,) velocity commanded in the tick before; zero where the arm stood still.
            bound: longest change at a joint, and of the offset in a tick, in the unit of ``wanted``; 0: none.
            joint: this is the first tick of a chunk, or the first after standing still.
        """
        if bound == 0.0:
            self._offset = np.zeros(3)
            return wanted
        difference = wanted - before if joint else -self._offset
        allowed = shortened(difference, bound)
        if allowed is difference:
            self._offset = np.zeros(3)
            return wanted
        self._offset = allowed - difference
        return wanted + self._offset


def shortened(vector: Vector, longest: float) -> Vector:
    """Return ``vector`` itself, or one of its direction and the length ``longest`` where it is longer."""
    largest = float(np.max(np.abs(vector), initial=0.0))
    if largest == 0.0:
        return vector
    length = largest * float(np.linalg.norm(vector / largest))  # this way it overflows for no finite action
    return vector if length <= longest * (1.0 + ROUNDING) else (vector / largest) * (longest / (length / largest))
