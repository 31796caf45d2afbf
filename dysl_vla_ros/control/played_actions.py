"""What was played and guidance has not seen yet: each action once, and where the arm stood still between them."""

import numpy as np

from dysl_vla_ros.interfaces import FloatArray


class PlayedActions:
    """Collects actions until they are taken.

    Attributes:
        count: actions since ``clear``, those taken included.
    """

    def __init__(self, dimensions: int) -> None:
        """Collect actions of ``dimensions`` values."""
        self._dimensions = dimensions
        self.clear()

    def clear(self) -> None:
        """Forget everything: a new episode."""
        self._actions: list[FloatArray] = []
        self._gaps: list[int] = []
        self._gap_before_next = False
        self.count = 0

    def add(self, action: FloatArray) -> None:
        """Note that ``action`` (A,) is played, as the policy gave it."""
        if self._gap_before_next:
            self._gaps.append(len(self._actions))
        self._gap_before_next = False
        self._actions.append(action.copy())
        self.count += 1

    def interrupt(self) -> None:
        """Note that the arm stood still, by an underrun or a stop; before the first action of all it is no gap."""
        self._gap_before_next = self.count > 0

    def take(self) -> tuple[FloatArray, tuple[int, ...]]:
        """Hand over, once, the actions since the last call.

        Returns:
            Actions (n, A), n may be 0, and the places i, ascending in 0 .. n - 1, of those before which the arm stood
            still: no difference is to be taken across them.
        """
        actions, gaps = self._actions, tuple(self._gaps)
        self._actions, self._gaps = [], []
        if not actions:
            return np.zeros((0, self._dimensions), np.float32), ()
        return np.stack(actions), gaps
