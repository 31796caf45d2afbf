"""``bag_recorder``: records what a robot sends and what the policy does into a bag, without a rosbag2 installation.

It hears each topic as its publishers offer it (pictures best effort in any case, so that a slow recorder never slows a
camera down), waits for topics that come later, and says on ``/diagnostics`` how it goes. A disk that is full or not
writable ends the recording with an ERROR; the node lives on and nothing else is disturbed.
"""

import collections
import importlib
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.validate_topic_name import validate_topic_name

from dysl_vla_ros.bags.metadata import NO_LIMIT, OfferedQos
from dysl_vla_ros.bags.recording import Recording, RecordingStatus
from dysl_vla_ros.errors import BagError, DyslVlaError, SettingError
from dysl_vla_ros.nodes.console import Console
from dysl_vla_ros.nodes.program import run_program
from dysl_vla_ros.nodes.stop_request import StopRequest

# What replay, calibration and distillation read, and what shows how the robot was driven.
DEFAULT_TOPICS = (
    *("image", "wrist_image", "joint_states", "ee_pose", "gripper_state", "instruction"),
    *("dysl_vla/action", "dysl_vla/action_chunk", "dysl_vla/skip_report", "dysl_vla/twist", "dysl_vla/gripper"),
    *("dysl_vla/joint_action", "dysl_vla/joint_action_chunk", "dysl_vla/joint_command"),
    *("dysl_vla/pose_action", "dysl_vla/pose_action_chunk", "dysl_vla/pose_command", "dysl_vla/instruction"),
    *("sim/state", "/diagnostics", "/clock"),
)
PICTURES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
PICTURE_DEPTH, DEPTH = 30, 200  # messages that may wait for this process
LOOK_PERIOD = 0.25  # s between two looks for new publishers
STATUS_PERIOD = 1.0  # s
SILENCE_WARNED = 5.0  # s without any message
REMEMBERED = 256  # messages of a topic that is heard in two ways: the second copy of each is left out


class BagRecorder(Node):
    """Subscribes, and hands what it hears to a :class:`Recording`."""

    def __init__(self) -> None:
        """Read the parameters, begin the recording, look for publishers from now on.

        Raises:
            SettingError: no folder is named, or a topic cannot be called so.
            ParameterException: a parameter of the wrong type.
        """
        super().__init__("bag_recorder")
        folder = self._parameter("folder", "", "folder of the bag; new or empty")
        topics = self._parameter("topics", list(DEFAULT_TOPICS), "topics to record; relative names take the namespace")
        if not folder:
            raise SettingError("no folder is named for the bag; give `--ros-args -p folder:=DIR`")
        self._folder = Path(folder).expanduser()
        self._topics = [self._resolved(name) for name in dict.fromkeys(topics) if name]
        self._recording: Recording | None = None
        self._fault = ""  # why it could not begin
        self._logged_fault = ""
        self._kinds: dict[str, str] = {}  # topic -> type, of those that are recorded
        self._heard: dict[str, set[tuple[bool, bool]]] = {}  # topic -> reliable and latched, of each subscription
        self._faults: dict[str, str] = {}  # topic -> why it is not recorded
        self._recent: dict[str, collections.deque[tuple[int, int]]] = {}
        self._dropped_before = 0
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        try:
            self._recording = Recording(self._folder, os.environ.get("ROS_DISTRO", ""))
            self.get_logger().info(f"recording {len(self._topics)} topics to {self._folder}")
        except BagError as error:
            self._fault = str(error)
        self._report()
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # /clock may stand still
        self.create_timer(LOOK_PERIOD, self._look, clock=steady)
        self.create_timer(STATUS_PERIOD, self._report, clock=steady)

    def _parameter(self, name: str, default: Any, meaning: str) -> Any:
        """Declare a parameter that is read once, and return its value."""
        return self.declare_parameter(name, default, ParameterDescriptor(description=meaning, read_only=True)).value

    def _resolved(self, topic: str) -> str:
        try:
            validate_topic_name(topic)  # resolving raises RCLError, with lines of its own on the console
            return str(self.resolve_topic_name(topic))
        except NameValidationException as error:
            what = " ".join(str(error).split())
            raise SettingError(
                f"topics: {topic!r} is no name of a topic ({what}); expected one as /camera/image_raw"
            ) from error

    # -- hearing -----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Subscribe to what has appeared, in the way in which it is offered."""
        if self._recording is None:
            return
        for topic in self._topics:
            publishers = self.get_publishers_info_by_topic(topic)
            if not publishers:
                continue
            kind = self._kinds.get(topic) or publishers[0].topic_type
            offers = [info.qos_profile for info in publishers if info.topic_type == kind]
            others = sorted({info.topic_type for info in publishers} - {kind})
            if others:
                self._refuse(topic, f"{topic} is recorded as {kind}; it is also published as {', '.join(others)}")
            message_type = self._message_type(topic, kind)
            if message_type is None or not offers:
                continue
            if topic not in self._kinds:
                self._kinds[topic] = kind
                self._recording.add_topic(topic, kind, [offered(profile) for profile in offers])
            for profile in offers:
                reliable = profile.reliability == ReliabilityPolicy.RELIABLE and kind not in PICTURES
                self._hear(topic, kind, message_type, reliable, profile.durability == DurabilityPolicy.TRANSIENT_LOCAL)

    def _hear(self, topic: str, kind: str, message_type: type, reliable: bool, latched: bool) -> None:
        """Subscribe, unless it is heard in this way already."""
        ways = self._heard.setdefault(topic, set())
        if (reliable, latched) in ways:
            return
        ways.add((reliable, latched))
        self._recent.setdefault(topic, collections.deque(maxlen=REMEMBERED))
        profile = QoSProfile(
            depth=PICTURE_DEPTH if kind in PICTURES else DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        # Of two subscriptions, one may find a publisher incompatible: the other one hears it.
        events = SubscriptionEventCallbacks(use_default_callbacks=False)
        self.create_subscription(message_type, topic, self._callback(topic), profile, raw=True, event_callbacks=events)
        self.get_logger().info(f"recording {topic} [{kind}]")

    def _callback(self, topic: str) -> Callable[[bytes, dict[str, Any]], None]:
        recording, recent, ways = self._recording, self._recent[topic], self._heard[topic]
        assert recording is not None

        def hear(raw: bytes, information: dict[str, Any]) -> None:
            sent = information["source_timestamp"]
            if len(ways) > 1 and sent:
                mark = (sent, hash(raw))
                if mark in recent:
                    return
                recent.append(mark)
            recording.put(topic, information["received_timestamp"] or time.time_ns(), raw, sent or None)

        return hear

    def _message_type(self, topic: str, kind: str) -> type | None:
        """Import the class of "package/msg/Name"; None, and a warning, where that package is not installed here."""
        package, _, name = kind.partition("/msg/")
        try:
            found: type = getattr(importlib.import_module(f"{package}.msg"), name)
        except (ImportError, AttributeError, ValueError):
            self._refuse(topic, f"{topic} is not recorded: its type {kind} is not installed here; source its workspace")
            return None
        return found

    def _refuse(self, topic: str, reason: str) -> None:
        if topic not in self._faults:
            self._faults[topic] = reason
            self.get_logger().warning(reason)

    # -- telling -----------------------------------------------------------------------------------------------------

    def _report(self) -> None:
        """Publish how it goes; log a fault once."""
        status = self._recording.status() if self._recording is not None else None
        fault = status.fault if status is not None else self._fault
        if fault and fault != self._logged_fault:
            self._logged_fault = fault
            self.get_logger().error(f"the recording has ended: {fault}")
        level, message = self._judged(status, fault)
        values: dict[str, object] = {"folder": self._folder, "topics recorded": " ".join(sorted(self._kinds))}
        values["topics not there"] = " ".join(topic for topic in self._topics if topic not in self._kinds)
        if status is not None:
            values |= {
                "messages": status.messages,
                "messages on disk": status.on_disk,
                "bytes on disk": status.bytes_on_disk,
                "messages dropped": status.dropped,
                "messages waiting for the disk": status.waiting,
                "seconds": f"{status.seconds:.1f}",
            }
        array = DiagnosticArray()
        array.header.stamp = self.get_clock().now().to_msg()
        pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        array.status = [
            DiagnosticStatus(
                name=f"{self.get_fully_qualified_name().lstrip('/')}: recording",
                level=level,
                message=message,
                hardware_id=socket.gethostname(),
                values=pairs,
            )
        ]
        self._diagnostics.publish(array)

    def _judged(self, status: RecordingStatus | None, fault: str) -> tuple[bytes, str]:
        if status is None or fault:
            return DiagnosticStatus.ERROR, fault
        dropped, self._dropped_before = status.dropped - self._dropped_before, status.dropped
        if dropped:
            return DiagnosticStatus.WARN, f"{dropped} messages were dropped: the disk is too slow"
        if self._faults:
            return DiagnosticStatus.WARN, "; ".join(self._faults.values())
        if not status.messages and status.seconds > SILENCE_WARNED:
            return DiagnosticStatus.WARN, f"nothing is published on {', '.join(self._topics)}"
        return DiagnosticStatus.OK, "recording"

    def finish(self) -> int:
        """Close the bag; log what it holds, and return the exit code: 0, or 1 where something is missing."""
        if self._recording is None:
            return 1
        status = self._recording.close()
        self._report()
        text = (
            f"{status.on_disk} messages, {status.bytes_on_disk / 1e6:.1f} MB, {status.seconds:.0f} s are in "
            f"{self._folder}; {status.dropped} were dropped"
        )
        (self.get_logger().error if status.fault else self.get_logger().info)(text)
        return 1 if status.fault else 0


def offered(profile: QoSProfile) -> OfferedQos:
    """Return what a publisher offers, in rosbag2's words."""

    def limit(duration: Any) -> int:
        return duration.nanoseconds if 0 < duration.nanoseconds < NO_LIMIT else NO_LIMIT

    return OfferedQos(
        reliability=profile.reliability.name.lower(),
        durability=profile.durability.name.lower(),
        history=profile.history.name.lower(),
        depth=profile.depth,
        deadline=limit(profile.deadline),
        lifespan=limit(profile.lifespan),
        liveliness=profile.liveliness.name.lower(),
        lease=limit(profile.liveliness_lease_duration),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Record until a stop signal; return the exit code."""
    return run_program("bag_recorder", argv, _run, (DyslVlaError, ParameterException))


def _run(stop: StopRequest, console: Console) -> int:
    node = BagRecorder()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stop.is_set():
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    code = node.finish()
    node.destroy_node()
    return code


if __name__ == "__main__":
    sys.exit(main())
