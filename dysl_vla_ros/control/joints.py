"""Joint positions by name, put together from messages of one topic that may each carry a part of them.

Some drivers publish arm and gripper as separate messages on ``joint_states``: each joint has its own age, and its own
stamp that must advance.
"""

from collections.abc import Sequence
from typing import Any

from dysl_vla_ros.control.freshness import Freshness
from dysl_vla_ros.errors import ObservationError
from dysl_vla_ros.readings import joint_values, seconds

NAMES_KEPT = 100  # names of other joints that are kept, for messages to the user


class Joints:
    """The newest position of each joint that the policy declares. Not thread-safe: one lock around every call.

    Args:
        names: the policy's joints; order does not matter.
        topic: what the topic is called in texts.

    Attributes:
        values: the newest position of each joint that was heard, by name.
        taken: what the last message gave of it.
    """

    def __init__(self, names: Sequence[str], topic: str) -> None:
        """Begin with nothing heard."""
        self._names, self._topic = tuple(names), topic
        self._freshness = Freshness((), self._names)
        self._there: dict[str, None] = {}  # every name that was heard, in that order
        self._refusal = ""
        self.values: dict[str, float] = {}
        self.taken: dict[str, float] = {}

    def start(self, steady_now: float) -> None:
        """Forget what was heard."""
        self._freshness.start(steady_now)
        self._refusal = ""
        self._there.clear()
        self.values.clear()

    def clock_jumped(self) -> None:
        """Forget every position from before a jump of the ROS clock: each joint must be heard anew."""
        self._freshness.clock_jumped()
        self._refusal = "its newest message is from before the clock jumped" if self.values else self._refusal
        self.values.clear()

    def hear(self, message: Any, arrival: float, ros_now: float | None, max_clock_skew: float) -> str:
        """Take what a message says of the policy's joints; return why it is refused, or "".

        Args:
            message: a sensor_msgs/JointState.
            arrival: s, steady clock.
            ros_now: s, ROS clock; None: the stamp is not compared with it.
            max_clock_skew: s that its stamp may lie ahead.
        """
        self.taken = {}
        try:
            values = joint_values(message, self._names)
        except ObservationError as error:
            self._refusal = str(error)
            return self._refusal
        for name in message.name[:NAMES_KEPT]:
            if len(self._there) < NAMES_KEPT:
                self._there[name] = None
        stamp = seconds(message.header.stamp)
        faults = {name: self._freshness.received(name, arrival, stamp, ros_now, max_clock_skew) for name in values}
        self.taken = {name: value for name, value in values.items() if not faults[name]}
        self.values |= self.taken
        self._refusal = next((f"joint {name}: {why}" for name, why in faults.items() if why), "")
        return self._refusal

    def stop_reason(self, steady_now: float, limit: float) -> str:
        """Return which joints were never heard, or not within ``limit`` seconds; "" where all are fresh."""
        absent = [name for name in self._names if name not in self.values]
        if absent:
            return f"{self._topic}: no joint {', '.join(absent)}; {self._whats_there()}" + self._told()
        ages = {name: self._freshness.statistics(name, steady_now).age for name in self._names}
        old = [f"{name} {age:.2f} s" for name, age in ages.items() if age > limit]
        if not old:
            return ""
        return (
            f"{self._topic}: positions have stopped: {', '.join(old)} ago, limit {limit:g} s (safety.max_arrival_age); "
            "look after the driver of these joints" + self._told()
        )

    def _whats_there(self) -> str:
        there = ", ".join(self._there)
        return f"there are: {there}; have the driver use the policy's names" if there else "none was heard yet"

    def _told(self) -> str:
        return f"; last refusal: {self._refusal}" if self._refusal else ""
