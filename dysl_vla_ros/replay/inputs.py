"""What the policy would have seen at a moment of a recording: the newest of each input, judged as the node does."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.control.clock_watch import ClockWatch
from dysl_vla_ros.control.freshness import Freshness, arrival_limit
from dysl_vla_ros.control.joints import Joints
from dysl_vla_ros.control.jumps import PlausibleValues
from dysl_vla_ros.errors import ObservationError
from dysl_vla_ros.interfaces import Observation, PolicyDescription
from dysl_vla_ros.readings import check, opening_value, picture, pose_values
from dysl_vla_ros.replay.history import nanoseconds
from dysl_vla_ros.replay.topics import proprioception_roles
from dysl_vla_ros.settings import SafetySettings

OTHER_CLOCK = 60.0  # s between stamp and reception beyond which it is no delay and no bad synchronisation


class RecordedInputs:
    """The node's inputs, on the bag's clock.

    Attributes:
        own_clock: whether the cameras are stamped by another clock than the bag's, as in simulation. Their stamps then
            stand for the node's ROS clock.
    """

    def __init__(
        self,
        description: PolicyDescription,
        topics: Mapping[str, str],
        safety: SafetySettings,
        began: float,
        refuse: Callable[[str], None],
    ) -> None:
        """Begin with nothing heard.

        Args:
            description: the policy's.
            topics: input -> topic, for texts.
            safety: the ages after which the node stops.
            began: s, when the recording begins.
            refuse: told why a message or picture cannot be used.
        """
        self.own_clock: bool | None = None
        self._cameras, self._spec, self._safety = description.cameras, description.proprioception, safety
        self._topics, self._refuse = topics, refuse
        carried = proprioception_roles(self._spec.names)
        self._freshness = Freshness(self._cameras, tuple(carried), topics)
        units = dict(zip(self._spec.names, self._spec.units, strict=True))
        self._joints = Joints(carried.get("joint_states", ()), topics.get("joint_states", ""), units)
        self._plausible = PlausibleValues()
        self._freshness.start(began)
        self._joints.start(began)
        self._watch = ClockWatch()
        self._newest: dict[str, tuple[float, Any]] = {}  # camera -> (s of its reception, message)
        self._newest_stamp = 0.0  # s, of any camera
        self._values: dict[str, float] = {}

    def now(self, time: float) -> float:
        """Return what the node's ROS clock would have shown at a time of the bag (both s)."""
        return self._newest_stamp if self.own_clock else time

    def stop_reason(self, time: float) -> str:
        """Return why the arm must not move at that time, or ""."""
        reason = self._freshness.stop_reason(time, self.now(time), self._safety, self._watch.rate)
        return reason or self._joints.stop_reason(time, arrival_limit(self._safety, self._watch.rate))

    def hear_values(self, role: str, time: float, message: Any) -> None:
        """Take proprioception."""
        if role == "joint_states":
            now = None if self.own_clock else time
            why = self._joints.hear(message, time, now, self._safety)
            self._count_refusal(role, time, why) if why else self._accept(role, time, None)
            return
        try:
            values = pose_values(message, self._spec.frame) if role == "ee_pose" else opening_value(message)
            header_stamp = message.header.stamp if role == "ee_pose" else None
            self._plausible.check(role, values, header_stamp, time, self._safety)
        except ObservationError as error:
            self._count_refusal(role, time, str(error))
            return
        stamp = nanoseconds(message.header.stamp) * 1e-9 if role == "ee_pose" else None
        if self._accept(role, time, stamp):
            self._plausible.take(role, values, header_stamp, time)
            self._values |= values

    def follow_clock(self, time: float, message: Any) -> str:
        """Look at the stamp of an image of the first camera; return how the stamps' own clock has jumped, or ""."""
        stamp = nanoseconds(message.header.stamp) * 1e-9
        if self.own_clock is None:
            self.own_clock = stamp > 0.0 and abs(time - stamp) > OTHER_CLOCK
        jump = self._watch.update(time, stamp) if self.own_clock else ""
        if jump:
            self._freshness.clock_jumped()
            self._joints.clock_jumped()
            self._plausible.forget()
            self._newest_stamp = stamp
        return jump

    def hear_image(self, camera: str, time: float, message: Any) -> bool:
        """Take an image, its pixels untouched; return whether it may be used."""
        stamp = nanoseconds(message.header.stamp) * 1e-9
        try:
            check(message)
        except ObservationError as error:
            self._count_refusal(camera, time, str(error))
            return False
        if not self._accept(camera, time, stamp):
            return False
        self._newest_stamp = max(self._newest_stamp, stamp)
        self._newest[camera] = (time, message)
        if self._freshness.in_doubt(camera):
            self._picture(camera)
        return True

    def observe(self, instruction: str) -> Observation | None:
        """Return the newest of everything; None where a picture is damaged or a value absent, the reason counted."""
        pictures = {camera: self._picture(camera) for camera in self._cameras}
        known = self._values | self._joints.values
        if absent := [name for name in self._spec.names if name not in known]:
            self._refuse(f"no value of {', '.join(absent)} was received")
            return None
        images = {camera: image for camera, image in pictures.items() if image is not None}
        if len(images) < len(pictures):
            return None
        return Observation(images, np.array([known[name] for name in self._spec.names], np.float32), instruction)

    def _picture(self, camera: str) -> NDArray[np.uint8] | None:
        """Convert a camera's newest message, and note whether that was possible."""
        arrival, message = self._newest[camera]
        try:
            image = np.array(picture(message))
        except ObservationError as error:
            self._freshness.unusable(camera, arrival, str(error))
            self._refuse(f"{self._topics[camera]}: {error}")
            return None
        self._freshness.proved(camera, arrival)
        return image

    def _accept(self, role: str, time: float, stamp: float | None) -> bool:
        now = None if self.own_clock else time
        why = self._freshness.received(role, time, stamp, now, self._safety.max_clock_skew)
        if why:
            self._refuse(f"{self._topics[role]}: {why}")
        return not why

    def _count_refusal(self, role: str, time: float, why: str) -> None:
        self._freshness.refused(role, time, why)
        self._refuse(f"{self._topics[role]}: {why}")
