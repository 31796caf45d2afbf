"""A short bag of the simulated scene, and a player that publishes it with /clock, as ``ros2 bag play --clock`` does."""

import importlib
import threading
import time
from pathlib import Path
from typing import Any

from harness import RosPeer

START = 1_000_000_000  # s, ROS time at which the bag begins: long ago, so that a wall clock is told from it
CLOCK_RATE = 100.0  # Hz of /clock
INSTRUCTION = "push the puck"


def record_scene(folder: Path, seconds: float) -> Path:
    """Write a bag of the simulated arm, moving: both cameras, pose and opening at 20 Hz, one instruction."""
    import numpy as np
    from builtin_interfaces.msg import Time
    from geometry_msgs.msg import PoseStamped
    from rclpy.serialization import serialize_message
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore
    from sensor_msgs.msg import Image
    from std_msgs.msg import Float64, String

    from dysl_vla_ros.simulation.scene import CAMERAS, IMAGE_SIZE, Scene
    from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD

    scene = Scene("push")
    scene.reset(0)
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {camera: "sensor_msgs/msg/Image" for camera in CAMERAS}
    types |= {"ee_pose": "geometry_msgs/msg/PoseStamped", "gripper_state": "std_msgs/msg/Float64"}
    types |= {"instruction": "std_msgs/msg/String"}
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {name: writer.add_connection(f"/{name}", kind, typestore=store) for name, kind in types.items()}

        def write(name: str, now: float, message: Any) -> None:
            writer.write(connections[name], START * 10**9 + round(now * 1e9), serialize_message(message))

        write("instruction", 0.0, String(data=INSTRUCTION))
        for tick in range(round(seconds / CONTROL_PERIOD)):
            now = tick * CONTROL_PERIOD
            stamp = Time(sec=START + int(now), nanosec=round((now % 1.0) * 1e9))
            seen = scene.observe()
            pose = PoseStamped()
            pose.header.stamp, pose.header.frame_id = stamp, "base"
            pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = map(float, seen.ee_position)
            write("gripper_state", now, Float64(data=seen.gripper_opening))
            write("ee_pose", now, pose)
            for camera in reversed(CAMERAS):
                image = Image(height=IMAGE_SIZE, width=IMAGE_SIZE, encoding="rgb8", step=3 * IMAGE_SIZE)
                image.header.stamp = stamp
                image.data = seen.images[camera].tobytes()
                write(camera, now, image)
            scene.hold(np.array([0.05, 0.0, -0.05]), 1.0)
            scene.advance()
    scene.close()
    return folder


class BagPlayer:
    """Plays a bag in its own thread: in a loop, from a place to another, slowly."""

    def __init__(self, peer: RosPeer, folder: Path) -> None:
        from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
        from rosbags.rosbag2 import Reader
        from rosgraph_msgs.msg import Clock

        self._clock = peer.publisher("/clock", Clock, QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
        self._messages: list[tuple[float, Any, bytes]] = []
        with Reader(folder) as reader:
            for connection, time_ns, data in reader.messages():
                package, _, name = connection.msgtype.split("/")
                kind = getattr(importlib.import_module(f"{package}.msg"), name)
                qos = 10 if name == "String" else qos_profile_sensor_data
                publisher = peer.publisher(connection.topic.lstrip("/"), kind, qos)
                self._messages.append((time_ns / 1e9 - START, publisher, bytes(data)))
        self.duration = self._messages[-1][0]  # s
        self._changed = threading.Condition()
        self._begun = 0.0  # s, steady clock at which the present stretch began
        self._place = 0.0  # s into the bag at that moment
        self._rate = 0.0  # 0: paused
        self._loop = False
        self._next = 0  # message that comes next
        self.stopped_at = 0.0  # s, steady clock: when /clock was published last
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="bag-player", daemon=True)
        self._thread.start()

    def play(self, place: float = 0.0, rate: float = 1.0, loop: bool = False) -> None:
        """Go on from ``place`` (s into the bag)."""
        with self._changed:
            self._begun, self._place, self._rate, self._loop = time.monotonic(), place, rate, loop
            self._next = next(i for i, message in enumerate(self._messages) if message[0] >= place)
            self._changed.notify_all()

    @property
    def place(self) -> float:
        """Seconds into the bag."""
        with self._changed:
            return self._now()

    @property
    def paused(self) -> bool:
        """Whether the bag has come to its end, or has not begun."""
        return self._rate == 0.0

    def _now(self) -> float:
        return self._place + (time.monotonic() - self._begun) * self._rate

    def _run(self) -> None:
        from builtin_interfaces.msg import Time
        from rosgraph_msgs.msg import Clock

        with self._changed:
            while not self._ended:
                if self._rate == 0.0:
                    self._changed.wait()
                    continue
                now = self._now()
                self._clock.publish(Clock(clock=Time(sec=START + int(now), nanosec=int((now % 1.0) * 1e9))))
                self.stopped_at = time.monotonic()
                while self._next < len(self._messages) and self._messages[self._next][0] <= now:
                    _, publisher, data = self._messages[self._next]
                    publisher.publish(data)
                    self._next += 1
                if self._next == len(self._messages):
                    self._begun, self._place, self._next = time.monotonic(), 0.0, 0
                    self._rate = self._rate if self._loop else 0.0
                self._changed.wait(1.0 / CLOCK_RATE)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(10.0)
