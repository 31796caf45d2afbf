"""Joint positions by name, put together from messages of one topic that may each carry a part of them.

Some drivers publish arm and gripper as separate messages on ``joint_states``: each joint has its own age, and its own
stamp that must advance.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dysl_vla_ros.control.freshness import Freshness
from dysl_vla_ros.control.plausibility import Jumps, check_joints, joint_jump
from dysl_vla_ros.errors import ObservationError
from dysl_vla_ros.readings import joint_values, seconds
from dysl_vla_ros.settings import SafetySettings

NAMES_KEPT = 100  # names of other joints that are kept, for messages to the user


class Joints:
    """The newest position of each joint that the policy declares. Not thread-safe: one lock around every call.

    Args:
        names: the policy's joints; order does not matter.
        topic: what the topic is called in texts.
        units: joint -> ``m`` for sliding ones; the others turn.

    Attributes:
        values: the newest position of each joint that was heard, by name.
        taken: what the last message gave of it.
    """

    def __init__(self, names: Sequence[str], topic: str, units: Mapping[str, str]) -> None:
        """Begin with nothing heard."""
        self._names, self._topic, self._units = tuple(names), topic, units
        self._jumps = {name: Jumps(joint_jump(name, units.get(name, "rad"))) for name in names}
        self._freshness = Freshness((), self._names)
        self._there: dict[str, None] = {}  # every name that was heard, in that order
        self._refusals: dict[str, str] = {}  # joint -> why its newest position was not taken
        self.values: dict[str, float] = {}
        self.taken: dict[str, float] = {}

    def start(self, steady_now: float) -> None:
        """Forget what was heard."""
        self._freshness.start(steady_now)
        self._refusals.clear()
        self._there.clear()
        self._forget_positions()

    def clock_jumped(self) -> None:
        """Forget every position from before a jump of the ROS clock: each joint must be heard anew."""
        self._freshness.clock_jumped()
        self._refusals |= dict.fromkeys(self.values, "its newest message is from before the clock jumped")
        self._forget_positions()

    def _forget_positions(self) -> None:
        self.values.clear()
        for jumps in self._jumps.values():
            jumps.forget()

    def hear(self, message: Any, arrival: float, ros_now: float | None, safety: SafetySettings) -> str:
        """Take what a message says of the policy's joints; return why it is refused, or "".

        Args:
            message: a sensor_msgs/JointState.
            arrival: s, steady clock.
            ros_now: s, ROS clock; None: the stamp is not compared with it.
            safety: how far its stamp may lie ahead, and how long the joints may be silent.
        """
        self.taken = {}
        try:
            values = joint_values(message, self._names)
            check_joints(values, self._units)
        except ObservationError as error:
            self._refusals |= {name: str(error) for name in self._names if name in message.name}
            return str(error)
        for name in message.name[:NAMES_KEPT]:
            if len(self._there) < NAMES_KEPT:
                self._there[name] = None
        stamp = seconds(message.header.stamp)
        faults = {name: self._take(name, value, stamp, arrival, ros_now, safety) for name, value in values.items()}
        self.taken = {name: value for name, value in values.items() if not faults[name]}
        self._refusals |= faults
        return next((f"joint {name}: {why}" for name, why in faults.items() if why), "")

    def _take(
        self, name: str, value: float, stamp: float, arrival: float, ros_now: float | None, safety: SafetySettings
    ) -> str:
        """Take one joint's position; return why it is refused, or ""."""
        if why := self._jumps[name].fault({name: value}, stamp, arrival, safety.max_arrival_age):
            self._freshness.refused(name, arrival, why)
            return why
        if why := self._freshness.received(name, arrival, stamp, ros_now, safety.max_clock_skew):
            return why
        self._jumps[name].take({name: value}, stamp, arrival)
        self.values[name] = value
        return ""

    def measured(self, names: Sequence[str], steady_now: float) -> tuple[list[float], float] | None:
        """Return the positions (rad, m) of joints in the order of ``names`` and the age (s) of the oldest.

        None: one of them was not heard.
        """
        if any(name not in self.values for name in names):
            return None
        ages = [self._freshness.statistics(name, steady_now).age for name in names]
        return [self.values[name] for name in names], max(ages, default=0.0)

    def stop_reason(self, steady_now: float, limit: float) -> str:
        """Return which joints were never heard, or not within ``limit`` seconds; "" where all are fresh."""
        absent = [name for name in self._names if name not in self.values]
        if absent:
            return f"{self._topic}: no joint {', '.join(absent)}; {self._whats_there()}" + self._told(absent)
        ages = {name: self._freshness.statistics(name, steady_now).age for name in self._names}
        old = [name for name in self._names if ages[name] > limit]
        if not old:
            return ""
        aged = ", ".join(f"{name} {ages[name]:.2f} s" for name in old)
        return (
            f"{self._topic}: positions have stopped: {aged} ago, limit {limit:g} s (safety.max_arrival_age); "
            "look after the driver of these joints" + self._told(old)
        )

    def _whats_there(self) -> str:
        there = ", ".join(self._there)
        return f"there are: {there}; have the driver use the policy's names" if there else "none was heard yet"

    def _told(self, names: Sequence[str]) -> str:
        """Say why the newest position of one of these was not taken, where that is why it is missing."""
        refusals = [self._refusals[name] for name in names if self._refusals.get(name)]
        return f"; last refusal: {refusals[0]}" if refusals else ""
