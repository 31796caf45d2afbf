"""What the policy would have seen at a moment of a recording: heard by the node's own judge, on the bag's clock."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.control.clock_watch import ClockWatch
from dysl_vla_ros.control.input_judge import JOINTS, InputJudge
from dysl_vla_ros.control.pairing import Verdict
from dysl_vla_ros.errors import ObservationError
from dysl_vla_ros.interfaces import Observation, PolicyDescription
from dysl_vla_ros.readings import check, opening_value, picture, pose_values, seconds
from dysl_vla_ros.recordings.history import FrameKey
from dysl_vla_ros.recordings.topics import proprioception_roles
from dysl_vla_ros.settings import SafetySettings

OTHER_CLOCK = 60.0  # s between stamp and reception beyond which it is no delay and no bad synchronisation


class Frame(NamedTuple):
    """An image of the recording, as the judge's verdicts carry it."""

    message: Any
    number: int  # among the frames of the first camera; of another camera's image: meaningless
    time_ns: int  # of its reception
    elapsed_ns: int  # of that, since the bag's first message
    key: FrameKey  # under which the recorded run knew it


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
        self._judge = InputJudge.of(description, carried, carried.get(JOINTS, ()), topics)
        self._judge.start(began)
        self._watch = ClockWatch()
        self._newest_stamp = 0.0  # s, of any camera

    def now(self, time: float) -> float:
        """Return what the node's ROS clock would have shown at a time of the bag (both s)."""
        return self._newest_stamp if self.own_clock else time

    def stop_reason(self, time: float) -> str:
        """Return why the arm must not move at that time, or ""."""
        return self._judge.stop_reason(time, self.now(time), self._safety, self._watch.rate)

    def hear_values(self, role: str, time: float, message: Any) -> None:
        """Take proprioception."""
        if role == JOINTS:
            now = None if self.own_clock else time
            self._note(role, self._judge.hear_joints(message, time, now, self._safety))
            return
        try:
            values = pose_values(message, self._spec.frame) if role == "ee_pose" else opening_value(message)
        except ObservationError as error:
            self._count_refusal(role, time, str(error))
            return
        self._accept(role, time, seconds(message.header.stamp) if role == "ee_pose" else None, values)

    def follow_clock(self, time: float, message: Any) -> str:
        """Look at the stamp of an image of the first camera; return how the stamps' own clock has jumped, or ""."""
        stamp = seconds(message.header.stamp)
        if self.own_clock is None:
            self.own_clock = stamp > 0.0 and abs(time - stamp) > OTHER_CLOCK
        jump = self._watch.update(time, stamp) if self.own_clock else ""
        if jump:
            self._judge.clock_jumped()
            self._newest_stamp = stamp
        return jump

    def hear_image(self, camera: str, time: float, frame: Frame) -> None:
        """Take an image, its pixels untouched; :meth:`verdicts` gives what becomes of one of the first camera."""
        try:
            check(frame.message)
        except ObservationError as error:
            self._count_refusal(camera, time, str(error))
            return
        stamp = seconds(frame.message.header.stamp)
        if self._accept(camera, time, stamp, frame):
            self._newest_stamp = max(self._newest_stamp, stamp)

    def verdicts(self, time: float) -> list[Verdict]:
        """Return what became of frames of the first camera until then, in their order; the items are :class:`Frame`."""
        verdicts = self._judge.verdicts(time, self._safety)
        for verdict in verdicts:
            if self._judge.in_doubt(verdict):
                self._pictures(verdict)
        return verdicts

    def observe(self, verdict: Verdict, instruction: str) -> Observation | None:
        """Return what belongs together; None where a picture is damaged or a value absent, the reason counted."""
        images = self._pictures(verdict)
        known = self._judge.values(verdict)
        if absent := [name for name in self._spec.names if name not in known]:
            self._refuse(f"no value of {', '.join(absent)} was received")
            return None
        if len(images) < len(self._cameras):
            return None
        return Observation(images, np.array([known[name] for name in self._spec.names], np.float32), instruction)

    def _pictures(self, verdict: Verdict) -> dict[str, NDArray[np.uint8]]:
        """Convert the images of a verdict, and note which of them that was possible with."""
        images = {}
        for camera in self._cameras:
            arrival = verdict.parts[camera].arrival
            try:
                images[camera] = np.array(picture(verdict.parts[camera].item.message))
            except ObservationError as error:
                self._judge.freshness.unusable(camera, arrival, str(error))
                self._refuse(f"{self._topics[camera]}: {error}")
            else:
                self._judge.freshness.proved(camera, arrival)
        return images

    def _accept(self, role: str, time: float, stamp: float | None, item: Any) -> bool:
        now = None if self.own_clock else time
        return not self._note(role, self._judge.hear(role, item, time, stamp, now, self._safety))

    def _count_refusal(self, role: str, time: float, why: str) -> None:
        self._judge.refuse(role, time, why)
        self._note(role, why)

    def _note(self, role: str, why: str) -> str:
        if why:
            self._refuse(f"{self._topics[role]}: {why}")
        return why
