"""What the policy sees: subscriptions, the newest message of each, and the observation made of them.

Cameras and proprioception are heard best effort with a queue of one (a reliable subscription would hear nothing of a
best-effort camera, and a deadline that the camera does not offer would silence it). The instruction is heard twice, as
volatile and as transient local: ``ros2 topic pub`` is volatile, and one that published before us must be heard too.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Float64, String

from dysl_vla_ros.control.freshness import Freshness
from dysl_vla_ros.errors import ObservationError, SettingError
from dysl_vla_ros.interfaces import Observation, PolicyDescription, ProprioceptionSpec
from dysl_vla_ros.nodes.lifecycle_guard import GuardedLifecycleNode
from dysl_vla_ros.readings import opening_value, picture, pose_values, seconds
from dysl_vla_ros.settings import SafetySettings

SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
SPOKEN = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)

POSE, OPENING = "ee_pose", "gripper_state"


@dataclass(frozen=True)
class Moment:
    """An observation with where it came from."""

    observation: Observation
    image_stamp: Any  # builtin_interfaces/Time of the first camera
    convert_ms: float


def proprioception_topics(spec: ProprioceptionSpec) -> tuple[str, ...]:
    """Return the topics that carry what a policy declares.

    Raises:
        SettingError: it wants joints, which this version does not read.
    """
    joints = [name for name in spec.names if not name.startswith("ee.") and name != "gripper.opening"]
    if joints:
        raise SettingError(
            f"the policy wants {', '.join(joints)} from joint_states, which this version does not read; "
            f"use a policy whose proprioception is ee.* ({POSE}) and gripper.opening ({OPENING})"
        )
    pose = (POSE,) if any(name.startswith("ee.") for name in spec.names) else ()
    return pose + ((OPENING,) if "gripper.opening" in spec.names else ())


class Inputs:
    """Subscriptions from configure to cleanup. Everything but the callbacks is called under the loop's lock.

    Args:
        node: creates the subscriptions.
        description: the policy's cameras and proprioception.
        lock: the control loop's.
        safety: gives the settings in force.
        on_image: called, without the lock, after an image of the first camera was accepted.
        on_instruction: called with each text that is heard.
    """

    def __init__(
        self,
        node: GuardedLifecycleNode,
        description: PolicyDescription,
        lock: Any,
        safety: Callable[[], SafetySettings],
        on_image: Callable[[], None],
        on_instruction: Callable[[str], None],
    ) -> None:
        """Subscribe to everything that the policy declares."""
        self._node = node
        self._lock = lock
        self._safety = safety
        self._on_first_image = on_image
        self.cameras = description.cameras
        self._spec = description.proprioception
        others = proprioception_topics(self._spec)
        self.sources = self.cameras + others
        topics = {source: node.resolve_topic_name(source) for source in self.sources}
        self.instruction_topic = node.resolve_topic_name("instruction")
        self.freshness = Freshness(self.cameras, others, topics)
        self._newest: dict[str, Image] = {}
        self._unused: set[str] = set()
        self._last_used: dict[str, Any] = {}
        self._values: dict[str, dict[str, float]] = {}
        self._subscriptions: list[Any] = []

        def subscribe(kind: type, topic: str, qos: QoSProfile, callback: Callable[..., None], group: Any) -> None:
            # of the instruction's two subscriptions one always finds its publisher incompatible: no warning for that
            events = SubscriptionEventCallbacks(use_default_callbacks=qos is not LATCHED)
            heard = node.guarded(topic)(callback)
            self._subscriptions.append(
                node.create_subscription(kind, topic, heard, qos, callback_group=group, event_callbacks=events)
            )

        # One group, the first camera last: messages that were there before its image are taken before it, so that the
        # inference it starts sees them.
        sensors = MutuallyExclusiveCallbackGroup()
        if POSE in others:
            subscribe(PoseStamped, POSE, SENSOR, self._hear_pose, sensors)
        if OPENING in others:
            subscribe(Float64, OPENING, SENSOR, self._hear_opening, sensors)
        for camera in reversed(self.cameras):
            subscribe(Image, camera, SENSOR, self._image_callback(camera), sensors)
        spoken = MutuallyExclusiveCallbackGroup()
        for qos in (SPOKEN, LATCHED):
            subscribe(String, "instruction", qos, lambda message: on_instruction(message.data), spoken)

    def destroy(self) -> None:
        """End every subscription."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    # -- hearing -----------------------------------------------------------------------------------------------------

    def _image_callback(self, camera: str) -> Callable[[Image], None]:
        def hear(message: Image) -> None:
            try:
                picture(message)  # a view: checks the fields, touches no pixel
            except ObservationError as error:
                self._refuse(camera, str(error))
                return
            if self._accept(camera, message.header.stamp):
                with self._lock:
                    if camera in self._unused:
                        self.freshness.dropped(camera)
                    self._unused.add(camera)
                    self._newest[camera] = message
                if camera == self.cameras[0]:
                    self._on_first_image()

        return hear

    def _hear_pose(self, message: PoseStamped) -> None:
        self._hear_values(POSE, message.header.stamp, lambda: pose_values(message, self._spec.frame))

    def _hear_opening(self, message: Float64) -> None:
        self._hear_values(OPENING, None, lambda: opening_value(message))

    def _hear_values(self, source: str, stamp: Any, read: Callable[[], dict[str, float]]) -> None:
        try:
            values = read()
        except ObservationError as error:
            self._refuse(source, str(error))
            return
        if self._accept(source, stamp):
            with self._lock:
                self._values[source] = values

    def _accept(self, source: str, stamp: Any) -> bool:
        ros_now = self._node.get_clock().now().nanoseconds * 1e-9
        with self._lock:
            why = self.freshness.received(
                source,
                time.monotonic(),
                None if stamp is None else seconds(stamp),
                ros_now,
                self._safety().max_clock_skew,
            )
        if why:
            self._node.log_throttled(source, f"{self._node.resolve_topic_name(source)}: {why}")
        return not why

    def _refuse(self, source: str, why: str) -> None:
        with self._lock:
            self.freshness.refused(source, time.monotonic(), why)
        self._node.log_throttled(source, f"{self._node.resolve_topic_name(source)}: {why}")

    # -- giving ------------------------------------------------------------------------------------------------------

    def start(self, steady_now: float) -> None:
        """Forget what was heard before activation."""
        self.freshness.start(steady_now)
        self._newest.clear()
        self._unused.clear()
        self._values.clear()
        self._last_used.clear()

    def stop_reason(self, ros_now: float, safety: SafetySettings) -> str:
        """Return why the arm must not move now, or "" when every input is fresh."""
        return self.freshness.stop_reason(time.monotonic(), ros_now, safety)

    @property
    def gripper_opening(self) -> float | None:
        """The newest measured opening, where the policy declares it."""
        return self._values.get(OPENING, {}).get("gripper.opening")

    def newest_stamp(self) -> Any:
        """Return the stamp of the first camera's newest image, None before the first."""
        message = self._newest.get(self.cameras[0])
        return None if message is None else message.header.stamp

    def observe(self, instruction: str) -> Moment:
        """Make one observation of the newest messages.

        Raises:
            ObservationError: a camera or a value is not there; names the topic.
        """
        started = time.perf_counter()
        absent = [source for source in self.cameras if source not in self._newest]
        absent += [source for source in self.sources[len(self.cameras) :] if source not in self._values]
        if absent:
            topics = ", ".join(self._node.resolve_topic_name(source) for source in absent)
            raise ObservationError(f"nothing received on {topics}; publish there or remap")
        known = {name: value for values in self._values.values() for name, value in values.items()}
        images = {camera: picture(self._newest[camera]) for camera in self.cameras}
        proprioception = np.array([known[name] for name in self._spec.names], dtype=np.float32)
        convert_ms = (time.perf_counter() - started) * 1e3
        self._note_used()
        return Moment(Observation(images, proprioception, instruction), self.newest_stamp(), convert_ms)

    def _note_used(self) -> None:
        for camera in self.cameras:
            data = self._newest[camera].data
            if camera in self._unused and (before := self._last_used.get(camera)) is not None:
                self.freshness.note_identical(camera, _same_bytes(before, data))
            self._last_used[camera] = data
        self._unused.clear()


def _same_bytes(one: Any, other: Any) -> bool:
    return bool(np.array_equal(np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8)))
