"""Bounds the gripper's opening: from 0 to 1, no faster than ``safety.max_gripper_speed``. numpy only.

It is not blended at a seam: its action is a position to go to, mostly open or closed, and a half-way one would be a
loosened grasp that no chunk asked for.
"""

import numpy as np


class GripperLimiter:
    """Remembers the opening that was commanded last; unknown at first, and the first command is not rate-limited."""

    def __init__(self) -> None:
        """Begin without a known opening."""
        self._opening: float | None = None

    def set(self, opening: float | None) -> None:
        """Say where the gripper is; None or not finite: unknown, the next command is not rate-limited."""
        self._opening = float(np.clip(opening, 0.0, 1.0)) if opening is not None and np.isfinite(opening) else None

    def limit(self, wanted: float, step: float, acted: list[str]) -> float:
        """Return the opening to command for one tick, and remember it.

        Args:
            wanted: by the action, finite.
            step: largest change of a tick.
            acted: gets the name of the limit where it changed the opening.
        """
        opening = float(np.clip(wanted, 0.0, 1.0))
        if self._opening is not None:
            reachable = float(np.clip(opening, self._opening - step, self._opening + step))
            if reachable != opening:
                acted.append("safety.max_gripper_speed")
            opening = reachable
        self._opening = opening
        return opening
