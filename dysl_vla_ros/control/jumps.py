"""Measured places that jump: refused, until the source is back or has stayed where it landed.

A *jump* is more than any arm moves between two messages (:mod:`~dysl_vla_ros.control.plausibility`). The message is
refused, and so is every one that goes on from there. One outlier is thereby left out. Where the new place lasts for
longer than an input may be silent, the arm has been standing still since, and the place is taken for true, as after
homing or a restart of the driver. After a new beginning (activation, a jump of the ROS clock) any place is the first.
"""

from dataclasses import dataclass

from dysl_vla_ros.control.plausibility import Judge, Values, check_pose, pose_jump
from dysl_vla_ros.errors import ObservationError
from dysl_vla_ros.settings import SafetySettings

SETTLING = 0.5  # s beyond the longest silence for which a new place must last: the arm stands still for so long
POSE = "ee_pose"


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
