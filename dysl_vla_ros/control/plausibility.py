"""Measured values that are finite and cannot be true: refused by name, with the limit. numpy only.

A driver in millimetres, a message that nobody filled in, the frame of another robot, a glitch on the bus: the policy
would act on any of them. The limits are fixed and wide: what no arm can do, not what this one should
(``safety.workspace_*``).

A *jump* is more than any arm moves between two messages. The message is refused, and so is every one that goes on from
there. One outlier is thereby left out. Where the new place lasts for longer than an input may be silent, the arm has
been standing still since, and the place is taken for true, as after homing or a restart of the driver. After a new
beginning (activation, a jump of the ROS clock) any place is the first.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from dysl_vla_ros.errors import ObservationError
from dysl_vla_ros.settings import SafetySettings

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
SETTLING = 0.5  # s beyond the longest silence for which a new place must last: the arm stands still for so long
POSE = "ee_pose"


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


@dataclass(frozen=True)
class _Heard:
    values: Values
    stamp: float  # s, ROS clock
    arrival: float  # s, steady clock


class Jumps:
    """Tells jumps from motion, for one thing whose place is measured. Not thread-safe: one lock around every call.

    Args:
        judge: says how something moved too fast between two values, or "": :func:`pose_jump`, :func:`joint_jump`.
    """

    def __init__(self, judge: Judge) -> None:
        """Begin with nothing heard: any first place is taken."""
        self._judge = judge
        self.forget()

    def forget(self) -> None:
        """Compare with nothing from before."""
        self._taken: _Heard | None = None
        self._landed: _Heard | None = None  # where the first message after a jump was
        self._newest: _Heard | None = None  # of those that were refused since
        self._why = ""

    def fault(self, values: Values, stamp: float, arrival: float, silence: float) -> str:
        """Return why a message is refused for a jump, "" where it may be taken; :meth:`take` it then.

        Args:
            values: what it says.
            stamp: s, ROS clock; one that is not later than what was taken is not judged here.
            arrival: s, steady clock.
            silence: s that the source may be silent before the arm stops (``safety.max_arrival_age``).
        """
        taken, landed, newest = self._taken, self._landed, self._newest
        if taken is None or stamp <= taken.stamp:
            return ""
        if newest and stamp <= newest.stamp:  # a jump that is sent twice is none the truer
            return self._why
        heard = _Heard(values, stamp, arrival)
        if landed and newest and not self._judge(newest.values, values, stamp - newest.stamp):
            lasted = min(stamp - landed.stamp, arrival - landed.arrival)
            self._newest = heard
            return "" if lasted >= silence + SETTLING else self._why
        if why := self._judge(taken.values, values, stamp - taken.stamp):
            self._landed = self._newest = heard
            self._why = f"{why}; the new place is taken when it has lasted for {silence + SETTLING:g} s"
            return self._why
        return ""

    def take(self, values: Values, stamp: float, arrival: float) -> None:
        """Note that a message was accepted: what comes next is compared with it."""
        self._taken = _Heard(values, stamp, arrival)
        self._landed = self._newest = None


class PlausibleValues:
    """What is checked of a source's values before they are accepted, and remembered when they were."""

    def __init__(self) -> None:
        """Begin with nothing heard."""
        self._pose = Jumps(pose_jump)

    def forget(self) -> None:
        """Compare with nothing from before."""
        self._pose.forget()

    def fault(self, source: str, values: Values, stamp: float | None, arrival: float, safety: SafetySettings) -> str:
        """Return why values cannot be true, naming field, value and limit; "" where they may be.

        The gripper's opening is judged where it is read.

        Args:
            source: ``ee_pose``, or another one that is not judged here.
            values: as read from the message.
            stamp: s, ROS clock; None: the message has none.
            arrival: s, steady clock.
            safety: how long the source may be silent.
        """
        if source != POSE or stamp is None:
            return ""
        try:
            check_pose(values)
        except ObservationError as error:
            return str(error)
        return self._pose.fault(values, stamp, arrival, safety.max_arrival_age)

    def take(self, source: str, values: Values, stamp: float | None, arrival: float) -> None:
        """Note that values were accepted."""
        if source == POSE and stamp is not None:
            self._pose.take(values, stamp, arrival)
