"""Whether the inputs allow motion, and what an observation is made of: one judge for the node and for recordings.

Puts together what is known of each source by itself (:mod:`~dysl_vla_ros.control.freshness`,
:mod:`~dysl_vla_ros.control.joints`), of what may be believed (:mod:`~dysl_vla_ros.control.plausibility`) and of what
belongs together (:mod:`~dysl_vla_ros.control.pairing`). Whoever hears messages tells it of each: the node with its
clocks, a recording with the times in it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from dysl_vla_ros.control.freshness import Freshness, arrival_limit
from dysl_vla_ros.control.joints import Joints
from dysl_vla_ros.control.pairing import Heard, Pairing, Verdict, within
from dysl_vla_ros.control.plausibility import POSE, PlausibleValues
from dysl_vla_ros.interfaces import GRIPPER_OPENING, PolicyDescription, ProprioceptionSpec
from dysl_vla_ros.joint_units import METRES, RADIANS, UnitScale
from dysl_vla_ros.poses import COLUMNS, STATE_TURN, is_unused, orientation_of, state_values
from dysl_vla_ros.readings import seconds
from dysl_vla_ros.settings import SafetySettings

OPENING, JOINTS = "gripper_state", "joint_states"
OTHER_TURNS = frozenset((*COLUMNS, *STATE_TURN))  # made of the quaternion that messages carry


class InputJudge:
    """Not thread-safe: its owner calls every method under one lock.

    Args:
        cameras: the policy's, the first one paces.
        stamped: other sources whose messages bear stamps, but :data:`JOINTS`.
        unstamped: sources that are taken by arrival alone.
        joints: the joints that the policy declares or commands, each with its unit (``m``: it slides).
        topics: what a source is called in texts.
        spec: the units that the policy declares; None: those that messages carry.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        stamped: Sequence[str],
        unstamped: Sequence[str],
        joints: Mapping[str, str],
        topics: Mapping[str, str],
        spec: ProprioceptionSpec | None = None,
    ) -> None:
        """Begin with nothing heard."""
        self._cameras = tuple(cameras)
        streams = (JOINTS,) if joints else ()
        self.freshness = Freshness(cameras, (*stamped, *unstamped, *streams), topics)
        self._declared = spec or ProprioceptionSpec((), ())
        self._scale = _scale_of(self._declared)
        self._turned = not OTHER_TURNS.isdisjoint(self._declared.names)
        self._unused = tuple(filter(is_unused, self._declared.names))
        measured_in = {name: METRES if unit == METRES else RADIANS for name, unit in joints.items()}
        self._joints = Joints(tuple(joints), topics.get(JOINTS, ""), measured_in)
        self._plausible = PlausibleValues()
        self._has_joints = bool(joints)
        self._pairing = Pairing(cameras, (*stamped, *map(_joint, joints)), topics)
        self._values: dict[str, dict[str, float]] = {}

    @classmethod
    def of(
        cls, description: PolicyDescription, sources: Collection[str], joints: Sequence[str], topics: Mapping[str, str]
    ) -> "InputJudge":
        """Make the judge of a policy's inputs.

        Args:
            description: the policy's cameras, and the units of its proprioception.
            sources: what proprioception comes by: ``ee_pose``, ``gripper_state``, :data:`JOINTS`.
            joints: names of the joints that the policy declares or commands.
            topics: what a source is called in texts.
        """
        spec, action = description.proprioception, description.action
        units = dict(zip(action.names, action.units, strict=True)) | dict(zip(spec.names, spec.units, strict=True))
        stamped, unstamped = ([source] if source in sources else [] for source in (POSE, OPENING))
        return cls(description.cameras, stamped, unstamped, {name: units[name] for name in joints}, topics, spec)

    def start(self, steady_now: float) -> None:
        """Forget what was heard (``steady_now`` in s); the counts go on."""
        self.freshness.start(steady_now)
        self._joints.start(steady_now)
        self._pairing.start()
        self._plausible.forget()
        self._values.clear()

    def clock_jumped(self) -> None:
        """Forget what was heard before a jump of the ROS clock."""
        self.freshness.clock_jumped()
        self._joints.clock_jumped()
        self._pairing.forget("it is from before the clock jumped")
        self._plausible.forget()
        self._values.clear()

    # -- hearing -----------------------------------------------------------------------------------------------------

    def hear(
        self,
        source: str,
        item: Any,
        arrival: float,
        stamp: float | None,
        ros_now: float | None,
        safety: SafetySettings,
    ) -> str:
        """Take a message; return why it is refused, or "".

        Args:
            source: any but :data:`JOINTS`.
            item: what it says: the values by their names, or whatever stands for an image.
            arrival: s, steady clock.
            stamp: s, ROS clock; None: the message has none.
            ros_now: s, ROS clock; None: the stamp is not compared with it.
            safety: the limits.
        """
        if source not in self._cameras and (why := self._plausible.fault(source, item, stamp, arrival, safety)):
            self.refuse(source, arrival, why)
            return why
        why = self.freshness.received(source, arrival, stamp, ros_now, safety.max_clock_skew)
        if why:
            return why
        if source not in self._cameras:
            self._plausible.take(source, item, stamp, arrival)
            self._values[source] = item
        if stamp is not None:
            self._pairing.hear(source, Heard(stamp, arrival, item), safety)
        return ""

    def hear_joints(self, message: Any, arrival: float, ros_now: float | None, safety: SafetySettings) -> str:
        """Take a sensor_msgs/JointState, each joint's stamp judged by itself; return what is refused of it, or ""."""
        why = self._joints.hear(message, arrival, ros_now, safety)
        stamp = seconds(message.header.stamp)
        for name, value in self._joints.taken.items():
            self._pairing.hear(_joint(name), Heard(stamp, arrival, {name: value}), safety)
        if why:
            self.refuse(JOINTS, arrival, why)
            return why
        return self.freshness.received(JOINTS, arrival)

    def refuse(self, source: str, arrival: float, why: str) -> None:
        """Count a message that cannot be used."""
        self.freshness.refused(source, arrival, why)

    # -- judging -----------------------------------------------------------------------------------------------------

    def verdicts(self, steady_now: float, safety: SafetySettings) -> list[Verdict]:
        """Return what became of images of the first camera since the last call; those refused are counted."""
        verdicts = self._pairing.verdicts(steady_now, safety)
        for verdict in verdicts:
            if verdict.refusal:
                self.freshness.unpaired(self._cameras[0], verdict.refusal)
        return verdicts

    def may_serve(self, verdict: Verdict, safety: SafetySettings) -> bool:
        """Whether what was put together earlier keeps the limits of now."""
        return not verdict.refusal and within(safety, verdict.skew)

    def in_doubt(self, verdict: Verdict) -> bool:
        """Whether its pictures must be looked into before their cameras count as heard."""
        return not verdict.refusal and any(map(self.freshness.in_doubt, self._cameras))

    def stop_reason(self, steady_now: float, ros_now: float, safety: SafetySettings, clock_rate: float = 1.0) -> str:
        """Return why the arm must not move now, or ""; see :meth:`Freshness.stop_reason`."""
        limit = arrival_limit(safety, clock_rate)
        reason = self.freshness.stop_reason(steady_now, ros_now, safety, clock_rate)
        if not reason and self._has_joints:
            reason = self._joints.stop_reason(steady_now, limit)
        return reason or self._pairing.stop_reason(steady_now, ros_now, limit, safety)

    # -- giving ------------------------------------------------------------------------------------------------------

    def newest(self, source: str) -> Mapping[str, float]:
        """Return the newest values of a source other than cameras and joints; {} before its first message."""
        return self._values.get(source, {})

    def measured(self, joints: Sequence[str], steady_now: float) -> tuple[list[float], float] | None:
        """Return positions (rad, m) in the order of ``joints`` and the age (s) of the oldest; None: one is unknown."""
        return self._joints.measured(joints, steady_now)

    def values(self, verdict: Verdict) -> dict[str, float]:
        """Return proprioception by name: of the image's own stamp where there is one, else the newest.

        In the units that the policy declares; others in those of their messages.
        """
        known = {name: value for values in self._values.values() for name, value in values.items()}
        known |= self._joints.values
        for source, part in verdict.parts.items():
            if source not in self._cameras:
                known |= part.item
        if self._turned and "ee.qw" in known:
            known |= state_values(orientation_of(known))
        known |= dict.fromkeys(self._unused, 0.0)
        names = self._declared.names
        here = self._scale.from_si(np.array([known.get(name, np.nan) for name in names]))
        return known | {name: float(value) for name, value in zip(names, here, strict=True) if name in known}


def _scale_of(spec: ProprioceptionSpec) -> UnitScale:
    """Return what maps the units of messages to those of a policy."""
    gripper = spec.names.index(GRIPPER_OPENING) if GRIPPER_OPENING in spec.names else None
    return UnitScale(spec.units, spec.low, spec.high, gripper)


def _joint(name: str) -> str:
    """Return what a joint is called among the sources: no source of another kind has its name."""
    return f"{JOINTS}/{name}"
