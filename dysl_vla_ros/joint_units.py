"""Units in which checkpoints speak of joints, and the radians and metres of ROS. numpy only.

``percent`` goes from 0 to 100 and ``range_100`` from -100 to 100 over a joint's range as it was calibrated: what their
ends are in radians or metres stands in no checkpoint and is said beside the unit (``low``, ``high``). A gripper's value
is no joint's: its opening goes from 0 (closed) to 1 (open); in ``closing`` from 0 (open) to 1 (closed).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RADIANS, METRES, DEGREES, PERCENT, RANGE_100 = "rad", "m", "deg", "percent", "range_100"
OPENING, CLOSEDNESS = "1", "closing"
JOINT_UNITS = (RADIANS, METRES, DEGREES, PERCENT, RANGE_100)
SPEED_UNITS = (RADIANS, METRES, DEGREES)  # of a velocity, each a second: a share of a range is no speed
GRIPPER_UNITS = (OPENING, PERCENT, CLOSEDNESS)
# opening = factor * value + offset
GRIPPER_SCALES = {OPENING: (1.0, 0.0), PERCENT: (0.01, 0.0), CLOSEDNESS: (-1.0, 1.0)}
ENDS = {PERCENT: (0.0, 100.0), RANGE_100: (-100.0, 100.0)}  # unit -> its values at both ends of the range

Vector = NDArray[np.float64]


class UnitScale:
    """Maps values of the checkpoint's units to radians and metres, and back: ``si = factor * value + offset``.

    Args:
        units: one a value, each of :data:`JOINT_UNITS` or :data:`GRIPPER_UNITS`.
        low: rad or m at the lower end of each joint's range; () where no unit needs it.
        high: the same at the upper end.
        gripper: place of the gripper's value, which becomes an opening from 0 to 1; None: there is none.
    """

    def __init__(
        self, units: Sequence[str], low: Sequence[float], high: Sequence[float], gripper: int | None = None
    ) -> None:
        """Compute factors and offsets once."""
        self.factor = np.ones(len(units))
        self.offset = np.zeros(len(units))
        for index, unit in enumerate(units):
            if index == gripper:
                self.factor[index], self.offset[index] = GRIPPER_SCALES.get(unit, (1.0, 0.0))
            elif unit == DEGREES:
                self.factor[index] = math.pi / 180.0
            elif unit in ENDS:
                first, last = ENDS[unit]
                self.factor[index] = (high[index] - low[index]) / (last - first)
                self.offset[index] = low[index] - first * self.factor[index]

    def to_si(self, values: NDArray[Any]) -> Vector:
        """Return values (..., n) in rad and m, the gripper's as an opening."""
        return np.asarray(values, np.float64) * self.factor + self.offset

    def from_si(self, values: NDArray[Any]) -> Vector:
        """Return values (..., n) of :meth:`to_si` in the checkpoint's units."""
        return np.asarray((np.asarray(values, np.float64) - self.offset) / self.factor)


def range_faults(
    names: Sequence[str],
    units: Sequence[str],
    low: Sequence[float],
    high: Sequence[float],
    where: str,
    gripper: int | None = None,
) -> list[str]:
    """Return what is wrong with the ranges that ``percent`` and ``range_100`` are shares of, each with its key.

    Args:
        names: of the values.
        units: one a name.
        low: see :class:`UnitScale`.
        high: see :class:`UnitScale`.
        where: what the keys ``low`` and ``high`` stand under.
        gripper: place of the gripper's value, which needs none.
    """
    shared = [index for index, unit in enumerate(units) if unit in ENDS and index != gripper]
    if not shared and not low and not high:
        return []
    faults = [
        f"{where}.{key} has {len(values)} values, expected {len(names)}, in rad or m: what both ends of "
        f"{', '.join(names[index] for index in shared) or 'each joint'} are there"
        for key, values in (("low", low), ("high", high))
        if len(values) != len(names)
    ]
    if faults:
        return faults
    for key, values in (("low", low), ("high", high)):
        faults += [
            f"{where}.{key}[{i}] is {value}, not finite" for i, value in enumerate(values) if not math.isfinite(value)
        ]
    return faults or [
        f"{where}.low[{index}] and {where}.high[{index}] are both {low[index]:g}: {names[index]} has no range"
        for index in shared
        if low[index] == high[index]
    ]
