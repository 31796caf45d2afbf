"""Joins the ROS graph for some seconds and notes what is there. The only part of the doctor that imports rclpy."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dysl_vla_ros.control.publishers import watch_window
from dysl_vla_ros.doctor.graph import Camera, Joints, Mismatch, Reading, Snapshot, VlaNode
from dysl_vla_ros.doctor.senders import Senders
from dysl_vla_ros.doctor.start import WITHOUT_LOG_FILE
from dysl_vla_ros.monitor.kind import full_name, is_vla_node
from dysl_vla_ros.settings import SafetySettings

NAME = "dysl_vla_doctor"
DISCOVERY = (3.0, 8.0)  # s, at least and at most, in which the graph is found: until it has not changed for a while
SETTLED = 1.0  # s
UNKNOWN = "_NODE_NAME_UNKNOWN_"  # an endpoint whose node has not introduced itself yet
FIRST_IMAGE_LIMIT = 2.0  # s that a camera has for its first image, without --live
ANSWER_LIMIT = 2.0  # s for a node's parameters
ASK_AGAIN = 0.5  # s; a server drops an answer to a client that it has not discovered yet
STATE_TYPES = ("geometry_msgs/msg/PoseStamped", "std_msgs/msg/Float64", "sensor_msgs/msg/JointState")
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
ASKED = (
    "use_sim_time", "model.checkpoint", "model.adapters", "model.python", "model.threads",
    "safety.max_arrival_age", "safety.max_stamp_age", "safety.max_clock_skew",
    "robot.action.kind", "robot.action.names", "robot.action.gripper", "safety.joint.min_position",
    "safety.joint.max_position", "safety.joint.max_velocity", "safety.joint.max_acceleration",
)  # fmt: skip
JOINT_STATES, POSE = "sensor_msgs/msg/JointState", "geometry_msgs/msg/PoseStamped"
# type of a command -> type of the messages that say where what it moves is
COMMAND_TYPES = {
    "trajectory_msgs/msg/JointTrajectory": JOINT_STATES, "std_msgs/msg/Float64MultiArray": JOINT_STATES, POSE: POSE
}  # fmt: skip
MOST_CAMERAS = 6  # looked at where none was named


def look(images: Sequence[str], seconds: float, progress: Callable[[float], None] = lambda seconds: None) -> Snapshot:
    """Look at the graph and listen to cameras.

    Args:
        images: topics to listen to; none: those that a node of this package hears, else all there are.
        seconds: to measure; 0.0: until each camera gave one image, at most :data:`FIRST_IMAGE_LIMIT`.
        progress: told the seconds passed since its last call, while measuring.

    Raises:
        ImportError: rclpy or the messages are not installed here.
        RuntimeError: rclpy cannot start, for example because the RMW implementation is missing.
    """
    with _graph_node() as (node, spin):
        _discover(node, spin)
        return _Look(node, spin).snapshot(images, seconds, progress)


@contextlib.contextmanager
def _graph_node() -> Iterator[tuple[Any, Callable[[Callable[[], bool], float], None]]]:
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node
    from rclpy.signals import SignalHandlerOptions

    context = rclpy.Context()
    rclpy.init(args=list(WITHOUT_LOG_FILE), context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = Node(NAME, context=context, enable_rosout=False, start_parameter_services=False)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)

        def spin(condition: Callable[[], bool], limit: float) -> None:
            deadline = time.monotonic() + limit
            while not condition() and (left := deadline - time.monotonic()) > 0.0:
                executor.spin_once(timeout_sec=min(left, 0.1))

        yield node, spin
        executor.shutdown()
        node.destroy_node()
    finally:
        context.try_shutdown()


def _discover(node: Any, spin: Callable[[Callable[[], bool], float], None]) -> None:
    """Wait until the graph is known, as far as one can tell: nobody tells when it is whole."""
    started = changed = time.monotonic()
    before: Any = None
    while (now := time.monotonic()) - started < DISCOVERY[1]:
        topics = node.get_topic_names_and_types()
        services = node.get_service_names_and_types()
        endpoints = [
            (topic, info.endpoint_type, info.node_name)
            for topic, _ in topics
            for ends in (node.get_publishers_info_by_topic(topic), node.get_subscriptions_info_by_topic(topic))
            for info in ends
        ]
        seen = (sorted(node.get_node_names()), sorted(endpoints), len(topics), len(services))
        if seen != before or any(name == UNKNOWN for _, _, name in endpoints):
            before, changed = seen, now
        if now - started >= DISCOVERY[0] and now - changed >= SETTLED:
            return
        spin(lambda: False, 0.2)


class _Look:
    def __init__(self, node: Any, spin: Callable[[Callable[[], bool], float], None]) -> None:
        self._node, self._spin = node, spin
        self._topics: dict[str, list[str]] = dict(node.get_topic_names_and_types())
        self._readings: dict[str, list[Reading]] = {}
        self._clocks: list[tuple[float, float]] = []
        self._joint_names: dict[str, dict[str, None]] = {}  # topic -> names, in the order heard
        self._senders = Senders(watch_window(SafetySettings()))

    def snapshot(self, images: Sequence[str], seconds: float, progress: Callable[[float], None]) -> Snapshot:
        from rclpy.utilities import get_rmw_implementation_identifier

        names = [
            (full_name(*place), *place) for place in self._node.get_node_names_and_namespaces() if place[0] != NAME
        ]
        vla_nodes = [VlaNode(full, self._parameters(full)) for full, *place in names if self._is_vla_node(full, *place)]
        image_topics = [topic for topic, types in self._topics.items() if set(types) & set(IMAGE_TYPES)]
        ours = [node.name for node in vla_nodes]
        cameras = list(images) or self._heard_by(ours, image_topics) or self._given(image_topics)
        clock_publishers = self._publishers("/clock")
        if vla_nodes and (limit := vla_nodes[0].parameters.get("safety.max_arrival_age")):
            self._senders = Senders(watch_window(SafetySettings(max_arrival_age=float(limit))))
        self._listen(cameras, bool(clock_publishers))
        joints = self._joints(ours[:1], names)
        states = [topic for topic, types in self._topics.items() if set(types) & set(STATE_TYPES)]
        heard = self._heard_by(ours, states)
        self._listen_to_states(heard if seconds > 0.0 else [it for it in heard if joints and it == joints.states])
        listened = self._measure(cameras, seconds, progress, joints.states if joints else "")
        if joints:
            joints = dataclasses.replace(joints, measured=tuple(self._joint_names.get(joints.states, ())))
        mismatches, endpoints = self._mismatches()
        return Snapshot(
            rmw=get_rmw_implementation_identifier(),
            listened=listened,
            nodes=tuple(full for full, *_ in names),
            vla_nodes=tuple(vla_nodes),
            cameras=tuple(
                Camera(topic, self._publishers(topic), tuple(self._readings.get(topic, ()))) for topic in cameras
            ),
            image_topics=tuple(image_topics),
            mismatches=tuple(mismatches),
            types={topic: tuple(types) for topic, types in self._topics.items() if len(types) > 1},
            endpoints=endpoints,
            clock_publishers=clock_publishers,
            clocks=tuple(self._clocks),
            heard=tuple(self._senders.topics),
            joints=joints,
            doubled=self._senders.doubled(
                self._node.get_publishers_info_by_topic,
                lambda info: full_name(info.node_name, info.node_namespace),
            ),
        )

    # -- the graph ---------------------------------------------------------------------------------------------------

    def _is_vla_node(self, full: str, name: str, namespace: str) -> bool:
        from rclpy.node import NodeNameNonExistentError

        try:
            topics = self._node.get_publisher_names_and_types_by_node(name, namespace)
            services = dict(self._node.get_service_names_and_types_by_node(name, namespace))
        except NodeNameNonExistentError:  # it went while we looked
            return False
        return is_vla_node(full, topics, services)

    def _joints(self, nodes: Sequence[str], names: Sequence[Sequence[str]]) -> Joints | None:
        """Return what the first of our nodes commands joints or poses by; a recorder that listens is somebody."""
        from rclpy.node import NodeNameNonExistentError

        place = next((place for full, *place in names if full in nodes), None)
        if place is None:
            return None
        try:
            published = self._node.get_publisher_names_and_types_by_node(*place)
        except NodeNameNonExistentError:  # it went while we looked
            return None
        for topic, types in published:
            if kind := next((it for it in COMMAND_TYPES if it in types), ""):
                found = self._node.get_subscriptions_info_by_topic(topic)
                listeners = {full_name(info.node_name, info.node_namespace) for info in found}
                states = [name for name, own in self._topics.items() if COMMAND_TYPES[kind] in own]
                return Joints(topic, kind, tuple(sorted(listeners)), next(iter(self._heard_by(nodes, states)), ""))
        return None

    def _parameters(self, full: str) -> dict[str, Any]:
        from rcl_interfaces.srv import GetParameters
        from rclpy.parameter import parameter_value_to_python

        client = self._node.create_client(GetParameters, f"{full}/get_parameters")
        deadline = time.monotonic() + ANSWER_LIMIT
        while time.monotonic() < deadline:
            if client.service_is_ready():
                future = client.call_async(GetParameters.Request(names=list(ASKED)))
                self._spin(future.done, ASK_AGAIN)
                if future.done():
                    values = [parameter_value_to_python(value) for value in future.result().values]
                    return {name: v for name, v in zip(ASKED, values, strict=False) if v is not None}
                client.remove_pending_request(future)
            else:
                self._spin(client.service_is_ready, ASK_AGAIN)
        return {}

    def _publishers(self, topic: str) -> tuple[str, ...]:
        found = self._node.get_publishers_info_by_topic(topic)
        return tuple(sorted({full_name(info.node_name, info.node_namespace) for info in found}))

    def _heard_by(self, nodes: Sequence[str], topics: Sequence[str]) -> list[str]:
        """Return those topics that the nodes subscribe to."""
        heard = [
            topic
            for topic in topics
            for info in self._node.get_subscriptions_info_by_topic(topic)
            if full_name(info.node_name, info.node_namespace) in nodes
        ]
        return list(dict.fromkeys(heard))

    def _given(self, image_topics: Sequence[str]) -> list[str]:
        """Return the image topics that somebody publishes."""
        return [topic for topic in image_topics if self._publishers(topic)][:MOST_CAMERAS]

    def _mismatches(self) -> tuple[list[Mismatch], int]:
        """Compare every publisher with every subscription of its topic.

        A subscriber with a second subscription that does hear the publisher is none: the node hears instructions
        twice, as volatile and as transient local.
        """
        from rclpy.qos import QoSCompatibility, qos_check_compatible

        found, endpoints = [], 0
        for topic in self._topics:
            publishers = self._node.get_publishers_info_by_topic(topic)
            subscriptions = self._node.get_subscriptions_info_by_topic(topic)
            endpoints += len(publishers) + len(subscriptions)
            for publisher in publishers:
                hearing, deaf = set(), {}
                for subscription in subscriptions:
                    name = full_name(subscription.node_name, subscription.node_namespace)
                    verdict, reason = qos_check_compatible(publisher.qos_profile, subscription.qos_profile)
                    if verdict == QoSCompatibility.ERROR:
                        deaf[name] = reason.replace("ERROR: ", "").strip().rstrip(";")
                    else:
                        hearing.add(name)
                source = full_name(publisher.node_name, publisher.node_namespace)
                found += [
                    Mismatch(topic, source, name, reason)
                    for name, reason in deaf.items()
                    if name not in hearing and not {source, name} & {f"/{NAME}"}
                ]
        return list(dict.fromkeys(found)), endpoints

    # -- the cameras -------------------------------------------------------------------------------------------------

    def _listen(self, cameras: Sequence[str], clock: bool) -> None:
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import CompressedImage, Image

        best_effort = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        for topic in cameras:
            self._readings[topic] = []
            compressed = IMAGE_TYPES[1] in self._topics.get(topic, ())
            self._node.create_subscription(
                CompressedImage if compressed else Image, topic, self._hear_image(topic), best_effort
            )
        if clock:
            from rosgraph_msgs.msg import Clock

            self._node.create_subscription(Clock, "/clock", self._hear_clock, best_effort)

    def _hear_clock(self, message: Any, info: Any) -> None:
        now = time.monotonic()
        self._senders.heard("/clock", info, now)
        self._clocks.append((now, _seconds(message.clock)))

    def _listen_to_states(self, topics: Sequence[str]) -> None:
        """Hear what else a node of this package hears: who publishes it is all that is looked at."""
        from geometry_msgs.msg import PoseStamped
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import JointState
        from std_msgs.msg import Float64

        classes = dict(zip(STATE_TYPES, (PoseStamped, Float64, JointState), strict=True))
        best_effort = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        for topic in topics:
            kind = next(classes[name] for name in self._topics[topic] if name in classes)
            self._node.create_subscription(kind, topic, self._hear_state(topic), best_effort)

    def _hear_state(self, topic: str) -> Callable[[Any, Any], None]:
        def hear(message: Any, info: Any) -> None:
            self._senders.heard(topic, info, time.monotonic(), getattr(message, "name", ("",)))
            self._joint_names.setdefault(topic, {}).update(dict.fromkeys(getattr(message, "name", ("value",))))

        return hear

    def _hear_image(self, topic: str) -> Callable[[Any, Any], None]:
        def hear(message: Any, info: Any) -> None:
            self._senders.heard(topic, info, time.monotonic())
            sim = self._clocks[-1][1] if self._clocks else math.nan
            size = len(message.data)
            kind = (
                f"{message.width}x{message.height} {message.encoding}" if hasattr(message, "step") else message.format
            )
            self._readings[topic].append(
                Reading(_seconds(message.header.stamp), time.time(), sim, time.monotonic(), size, kind)
            )

        return hear

    def _measure(
        self, cameras: Sequence[str], seconds: float, progress: Callable[[float], None], states: str = ""
    ) -> float:
        started = last = time.monotonic()
        if seconds <= 0.0:
            self._spin(
                lambda: all(self._readings[it] for it in cameras) and (not states or states in self._joint_names),
                FIRST_IMAGE_LIMIT if cameras or states else 0.0,
            )
            return time.monotonic() - started
        while (left := started + seconds - last) > 0.0:
            self._spin(lambda: False, min(left, 0.2))
            now = time.monotonic()
            progress(now - last)
            last = now
        return last - started


def _seconds(stamp: Any) -> float:
    return float(stamp.sec) + stamp.nanosec * 1e-9
