"""What the policy sees: subscriptions, the judge that hears their messages, and the observation that it puts together.

Cameras and proprioception are heard best effort with a queue of one (a reliable subscription would hear nothing of a
best-effort camera, and a deadline that the camera does not offer would silence it). The instruction is heard twice, as
volatile and as transient local: ``ros2 topic pub`` is volatile, and one that published before us must be heard too.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64, String

from dysl_vla_ros.control.input_judge import JOINTS, OPENING, InputJudge
from dysl_vla_ros.control.joint_limits import Measured
from dysl_vla_ros.control.limits import POSITION, Place
from dysl_vla_ros.control.plausibility import POSE
from dysl_vla_ros.control.pose_limits import Pose
from dysl_vla_ros.errors import ObservationError, SettingError
from dysl_vla_ros.interfaces import (
    END_EFFECTOR_POSE,
    GRIPPER_OPENING,
    ActionSpec,
    Observation,
    PolicyDescription,
    ProprioceptionSpec,
)
from dysl_vla_ros.joint_units import JOINT_UNITS
from dysl_vla_ros.nodes.lifecycle_guard import GuardedLifecycleNode
from dysl_vla_ros.nodes.outputs import LATCHED
from dysl_vla_ros.nodes.pictures import Pictures
from dysl_vla_ros.nodes.source_watch import SourceWatch
from dysl_vla_ros.poses import is_unused, orientation_of
from dysl_vla_ros.readings import check, opening_value, pose_values, require_opencv, seconds
from dysl_vla_ros.settings import SafetySettings

SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
# several drivers may share the topic: with a queue of one, the last of them would be heard alone
JOINT_STREAM = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
SPOKEN = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)


@dataclass(frozen=True)
class Moment:
    """An observation with where it came from."""

    observation: Observation
    image_stamp: Any  # builtin_interfaces/Time of the first camera
    convert_ms: float
    begun: Any = None  # what :meth:`Inputs.prepare` was given when its pictures were chosen; None: just now


def image_topic(node: GuardedLifecycleNode, camera: str, transport: str) -> str:
    """Return a topic of images after remapping; ``/compressed`` is put behind it, as image_transport does."""
    topic: str = node.resolve_topic_name(camera)
    return f"{topic}/compressed" if transport == "compressed" else topic


def image_type(transport: str) -> type:
    """Return the message type of the cameras' topics."""
    return CompressedImage if transport == "compressed" else Image


def joint_names(spec: ProprioceptionSpec, action: ActionSpec) -> tuple[str, ...]:
    """Return the joints that a policy declares, and those that it commands: these must be measured.

    Raises:
        SettingError: in a unit that positions of joint_states are not converted to.
    """
    names = [
        name for name in spec.names if not name.startswith("ee.") and name != GRIPPER_OPENING and not is_unused(name)
    ]
    units = dict(zip(spec.names, spec.units, strict=True))
    if odd := [f"{name} in {units[name]!r}" for name in names if units[name] not in JOINT_UNITS]:
        raise SettingError(
            f"the policy wants {', '.join(odd)}; {JOINTS} is converted to {', '.join(JOINT_UNITS)}: declare one of "
            "these in the checkpoint's config.json or robot.state.units, with statistics in that unit"
        )
    return tuple(dict.fromkeys([*names, *action.joints]))


def proprioception_topics(spec: ProprioceptionSpec, action: ActionSpec) -> tuple[str, ...]:
    """Return the topics that carry what a policy declares, and the joints or the pose that it commands.

    Raises:
        SettingError: see :func:`joint_names`.
    """
    commanded = action.kind == END_EFFECTOR_POSE
    pose = (POSE,) if commanded or any(name.startswith("ee.") for name in spec.names) else ()
    opening = (OPENING,) if GRIPPER_OPENING in spec.names else ()
    return pose + opening + ((JOINTS,) if joint_names(spec, action) else ())


class Inputs:
    """Subscriptions from configure to cleanup. Everything but the callbacks is called under the loop's lock.

    Args:
        node: creates the subscriptions.
        description: the policy's cameras and proprioception.
        lock: the control loop's.
        safety: gives the settings in force.
        transport: ``raw`` or ``compressed``: what the cameras' topics carry.
        on_image: called when an image of the first camera and what belongs to it are there, or pictures were converted.
        on_instruction: called with each text that is heard.
        camera_topics: camera -> topic (``robot.cameras``); its own name where it is not there.
    """

    def __init__(
        self,
        node: GuardedLifecycleNode,
        description: PolicyDescription,
        lock: Any,
        safety: Callable[[], SafetySettings],
        transport: str,
        on_image: Callable[[], None],
        on_instruction: Callable[[str], None],
        camera_topics: Mapping[str, str] | None = None,
    ) -> None:
        """Subscribe to everything that the policy declares.

        Raises:
            SettingError: proprioception in a unit that no topic carries.
            ObservationError: compressed images are wanted, and OpenCV is not installed.
        """
        self._node = node
        self._lock = lock
        self._safety = safety
        self._on_image = on_image
        self.cameras = description.cameras
        self._spec = description.proprioception
        self._action = description.action
        others = proprioception_topics(self._spec, self._action)
        self.sources = self.cameras + others
        if transport == "compressed":
            require_opencv()
        self._topics = {source: node.resolve_topic_name(source) for source in others}
        self._topics |= {
            camera: image_topic(node, (camera_topics or {}).get(camera, camera), transport) for camera in self.cameras
        }
        self.instruction_topic = node.resolve_topic_name("instruction")
        joints = joint_names(self._spec, self._action)
        self._judge = InputJudge.of(description, others, joints, self._topics)
        self.freshness = self._judge.freshness
        self._pictures = Pictures(self.cameras, lock, self.freshness, node.guarded("pictures")(on_image), self._log)
        self.publishers = SourceWatch(node, safety)
        self.subscriptions: list[Any] = []

        try:
            self._subscribe(image_type(transport), others, joints, on_instruction)
        except BaseException:
            self.destroy()
            raise

    def _subscribe(
        self, image: type, others: tuple[str, ...], joints: tuple[str, ...], on_instruction: Callable[[str], None]
    ) -> None:
        def subscribe(kind: type, topic: str, qos: QoSProfile, callback: Callable[[Any], None], group: Any) -> None:
            # of the instruction's two subscriptions one always finds its publisher incompatible: no warning for that
            events = SubscriptionEventCallbacks(use_default_callbacks=qos is not LATCHED)
            if kind is String:
                judged = self.publishers.watch_speakers(topic, callback, latched=qos is LATCHED)
            else:
                judged = self.publishers.watch(topic, callback, joints if kind is JointState else ())
            hear = self._node.guarded(topic)(judged)
            self.subscriptions.append(
                self._node.create_subscription(kind, topic, hear, qos, callback_group=group, event_callbacks=events)
            )

        # One group, the first camera last: messages that were there before its image are taken before it, so that it
        # waits for none of them.
        sensors = MutuallyExclusiveCallbackGroup()
        if POSE in others:
            subscribe(PoseStamped, POSE, SENSOR, self._hear_pose, sensors)
        if OPENING in others:
            subscribe(Float64, OPENING, SENSOR, self._hear_opening, sensors)
        if JOINTS in others:
            subscribe(JointState, JOINTS, JOINT_STREAM, self._hear_joints, sensors)
        for camera in reversed(self.cameras):
            subscribe(image, self._topics[camera], SENSOR, self._image_callback(camera), sensors)
        spoken = MutuallyExclusiveCallbackGroup()
        for qos in (SPOKEN, LATCHED):
            subscribe(String, "instruction", qos, lambda message: on_instruction(message.data), spoken)

    def destroy(self) -> None:
        """End every subscription; each of them, even where another one fails, which a second call tries."""
        with contextlib.ExitStack() as parts:
            parts.callback(self._pictures.close)
            parts.callback(self.publishers.destroy)
            for subscription in self.subscriptions:
                parts.callback(self._end, subscription)

    def _end(self, subscription: Any) -> None:
        self._node.destroy_subscription(subscription)
        self.subscriptions.remove(subscription)

    # -- hearing -----------------------------------------------------------------------------------------------------

    def _image_callback(self, camera: str) -> Callable[[Any], None]:
        def hear(message: Any) -> None:
            try:
                check(message)
            except ObservationError as error:
                self._refuse(camera, str(error))
                return
            self._accept(camera, message.header.stamp, message)

        return hear

    def _hear_pose(self, message: PoseStamped) -> None:
        # of absolute poses both frames are one (control/contract.py)
        frame = self._action.frame if self._action.kind == END_EFFECTOR_POSE else self._spec.frame
        self._hear_values(POSE, message.header.stamp, lambda: pose_values(message, frame))

    def _hear_opening(self, message: Float64) -> None:
        self._hear_values(OPENING, None, lambda: opening_value(message))

    def _hear_joints(self, message: JointState) -> None:
        """Each joint's stamp is judged by itself: several drivers may take turns on this topic."""
        self._take(JOINTS, lambda arrival, ros_now, safety: self._judge.hear_joints(message, arrival, ros_now, safety))

    def _hear_values(self, source: str, stamp: Any, read: Callable[[], dict[str, float]]) -> None:
        try:
            values = read()
        except ObservationError as error:
            self._refuse(source, str(error))
            return
        self._accept(source, stamp, values)

    def _accept(self, source: str, stamp: Any, item: Any) -> None:
        """Take what can be read: an image, or values by their names."""
        own = None if stamp is None else seconds(stamp)

        def hear(arrival: float, ros_now: float, safety: SafetySettings) -> str:
            why = self._judge.hear(source, item, arrival, own, ros_now, safety)
            if not why and source in self.cameras:
                self._pictures.hear(source, item)
            return why

        self._take(source, hear)

    def _take(self, source: str, hear: Callable[[float, float, SafetySettings], str]) -> None:
        """Let the judge hear a message (arrival, ROS time, settings), and say so when an observation can be made."""
        ros_now = self._node.get_clock().now().nanoseconds * 1e-9
        with self._lock:
            arrival = time.monotonic()
            why = hear(arrival, ros_now, self._safety())
            complete = self._follow_judge(arrival)
        if why:
            self._log(source, why)
        if complete:
            self._on_image()

    def _follow_judge(self, steady_now: float) -> bool:
        """Take over what the judge has put together since; whether there is anything new."""
        safety = self._safety()
        served = None
        for verdict in self._judge.verdicts(steady_now, safety):
            if verdict.refusal:
                self._log(self.cameras[0], verdict.refusal)
            else:
                served = verdict
        if served is not None:
            self._pictures.offer(served, self._judge.in_doubt(served))
        return served is not None

    def _refuse(self, source: str, why: str) -> None:
        with self._lock:
            self._judge.refuse(source, time.monotonic(), why)
        self._log(source, why)

    def _log(self, source: str, why: str) -> None:
        self._node.log_throttled(source, f"{self._topics[source]}: {why}")

    # -- giving ------------------------------------------------------------------------------------------------------

    def start(self, steady_now: float) -> None:
        """Forget what was heard before activation."""
        self._judge.start(steady_now)
        self._pictures.start()

    def clock_jumped(self) -> None:
        """Forget what was heard before a jump of the ROS clock."""
        self._judge.clock_jumped()
        self._pictures.start()

    def stop_reason(self, ros_now: float, safety: SafetySettings, clock_rate: float = 1.0) -> str:
        """Return why the arm must not move now, or "" when every input is fresh."""
        now = time.monotonic()
        self._follow_judge(now)
        reason = self._judge.stop_reason(now, ros_now, safety, clock_rate)
        return "; ".join(filter(None, (self.publishers.stop_reason(), reason)))

    def warnings(self) -> list[str]:
        """Return what is odd about the inputs, but no reason to stop."""
        counts = [(self.freshness.statistics(camera, 0.0).identical, self._topics[camera]) for camera in self.cameras]
        frozen = [
            f"frozen picture? {topic}: {count} identical images under new stamps" for count, topic in counts if count
        ]
        return frozen + self._pictures.warnings()

    @property
    def topics(self) -> list[str]:
        """The topics that an observation is made of, after remapping."""
        return list(self._topics.values())

    @property
    def place(self) -> Place | None:
        """The end effector's newest position, where the policy declares it."""
        values = self._judge.newest(POSE)
        if not values:
            return None
        return Place(np.array([values[name] for name in POSITION]), self.freshness.age(POSE, time.monotonic()))

    @property
    def measured(self) -> Measured | None:
        """Where the joints that the policy commands are; None: one of them was not heard."""
        found = self._judge.measured(self._action.joints, time.monotonic())
        return None if found is None else Measured(np.array(found[0]), found[1])

    @property
    def measured_pose(self) -> Pose | None:
        """The end effector's newest pose; None: it was not heard."""
        values = self._judge.newest(POSE)
        return Pose(np.array([values[name] for name in POSITION]), orientation_of(values)) if values else None

    @property
    def gripper_opening(self) -> float | None:
        """The newest measured opening, where the policy declares it."""
        return self._judge.newest(OPENING).get(GRIPPER_OPENING)

    def newest_stamp(self) -> Any:
        """Return the stamp of the first camera's image that an observation would be of, None where there is none."""
        self._follow_judge(time.monotonic())
        coming = self._pictures.coming()
        if coming is None or not self._judge.may_serve(coming, self._safety()):
            return None
        return coming.image.item.header.stamp

    def prepare(self, begun: Any) -> bool:
        """Whether an observation can be made now; if not, its pictures are being converted, and ``on_image`` comes."""
        return self._pictures.prepare(begun)

    def picture_change(self) -> str:
        """Say once that a camera's size or encoding is another one now, else ""."""
        return self._pictures.change()

    def observe(self, instruction: str) -> Moment:
        """Make one observation of what belongs together; :meth:`prepare` comes first.

        Raises:
            ObservationError: images or a value are not there; names the topic.
        """
        absent = [topic for topic in (POSE, OPENING) if topic in self.sources and not self._judge.newest(topic)]
        coming = self._pictures.coming()
        if coming is None or absent:
            topics = ", ".join(self._topics[source] for source in absent or self.cameras)
            raise ObservationError(f"nothing received on {topics}; publish there or remap")
        known = self._judge.values(coming)
        if missing := [name for name in self._spec.names if name not in known]:
            raise ObservationError(f"no value of {', '.join(missing)} was received; publish it, or remap its topic")
        proprioception = np.array([known[name] for name in self._spec.names], dtype=np.float32)
        taken = self._pictures.take()
        images = {camera: taken.pictures[camera] for camera in self.cameras}
        stamp = taken.verdict.image.item.header.stamp
        return Moment(Observation(images, proprioception, instruction), stamp, taken.convert_ms, taken.begun)
