"""Measured values that are finite and cannot be true: refused by name, with the limit. numpy only.

A driver in millimetres, a message that nobody filled in, the frame of another robot, a glitch on the bus: the policy
would act on any of them. The limits are fixed and wide: what no arm can do, not what this one should
(``safety.workspace_*``).

How far they may move between two messages is here too; what becomes of a jump is :mod:`~dysl_vla_ros.control.jumps`'.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from dysl_vla_ros.errors import ObservationError

MAX_DISTANCE = 10.0  # m from the origin on each axis, or along a sliding joint: as far as the workspace box can reach
MAX_TURN = 10.0 * math.pi  # rad of a joint from its zero: five turns, more than cables allow
NORM_TOLERANCE = 0.1  # by which a quaternion's norm may differ from 1: rounding is far below, an empty one far above
MAX_SPEED = 20.0  # m/s of an end effector or sliding joint; safety.max_linear_speed goes to 5, delta robots reach 10
MAX_TURNING = 30.0  # rad/s of a hand or turning joint; safety.max_angular_speed goes to 20, wrists reach 15
JITTER = 0.1  # m or rad that may lie between two messages at any rate: stamps are never exact
LONGEST_GAP = 0.1  # s between two messages that count as motion: with more, no jump within an arm's reach would be one

TRANSLATION = ("ee.x", "ee.y", "ee.z")
ROTATION = ("ee.qx", "ee.qy", "ee.qz", "ee.qw")
MILLIMETRES = "is the driver in millimetres, or in another frame?"

Values = Mapping[str, float]
Judge = Callable[[Values, Values, float], str]


def check_pose(values: Values) -> None:
    """Refuse a pose that no end effector has.

    Args:
        values: ``ee.x`` .. ``ee.z`` (m), ``ee.qx`` .. ``ee.qw``, all finite.

    Raises:
        ObservationError: names field, value and limit.
    """
    for name in TRANSLATION:
        _check_range(name, values[name], "m", MAX_DISTANCE, MILLIMETRES)
    norm = math.hypot(*(values[name] for name in ROTATION))
    if abs(norm - 1.0) > NORM_TOLERANCE:
        found = ", ".join(f"{values[name]:.4g}" for name in ROTATION)
        raise ObservationError(
            f"the orientation ({found}) has norm {norm:.4g}; a rotation has 1, within {NORM_TOLERANCE:g}: have the "
            "driver fill in the quaternion (w is 1 where nothing is turned)"
        )


def check_joints(values: Values, units: Mapping[str, str]) -> None:
    """Refuse joint positions that no joint has.

    Args:
        values: joint -> rad or m, all finite.
        units: joint -> ``m`` for sliding ones; the others turn.

    Raises:
        ObservationError: names joint, value and limit.
    """
    for name, value in values.items():
        if units.get(name) == "m":
            _check_range(f"position of joint {name}", value, "m", MAX_DISTANCE, "is the driver in millimetres?")
        else:
            _check_range(f"position of joint {name}", value, "rad", MAX_TURN, "is the driver in degrees?")


def _check_range(name: str, value: float, unit: str, limit: float, mend: str) -> None:
    if abs(value) > limit:
        raise ObservationError(f"{name} is {value:.6g} {unit}; at most {limit:.4g} {unit} either way is taken: {mend}")


def pose_jump(before: Values, after: Values, seconds: float) -> str:
    """Return how a pose has moved faster than any arm, "" where an arm may have moved it.

    Args:
        before: as in :func:`check_pose`.
        after: later by ``seconds``.
        seconds: s, above 0.
    """
    way = math.dist([before[name] for name in TRANSLATION], [after[name] for name in TRANSLATION])
    if told := _jump("the position (ee.x, ee.y, ee.z)", way, seconds, "m"):
        return told
    one, other = (np.array([values[name] for name in ROTATION]) for values in (before, after))
    cosine = abs(float(one @ other)) / float(np.linalg.norm(one) * np.linalg.norm(other))
    angle = 2.0 * math.acos(min(cosine, 1.0))
    return _jump("the orientation (ee.qx, ee.qy, ee.qz, ee.qw)", angle, seconds, "rad")


def joint_jump(name: str, unit: str) -> Judge:
    """Make the judge of one joint, ``m`` or ``rad``; a turning one may jump by whole turns, as drivers wrap."""

    def judge(before: Values, after: Values, seconds: float) -> str:
        way = after[name] - before[name]
        return _jump("its position", abs(way if unit == "m" else math.remainder(way, math.tau)), seconds, unit)

    return judge


def _jump(what: str, way: float, seconds: float, unit: str) -> str:
    allowed = JITTER + (MAX_SPEED if unit == "m" else MAX_TURNING) * min(seconds, LONGEST_GAP)
    if way <= allowed:
        return ""
    return (
        f"{what} has jumped by {way:.3g} {unit} in {seconds:.3g} s, at most {allowed:.3g} {unit} is taken for motion: "
        "look after driver and frame"
    )
