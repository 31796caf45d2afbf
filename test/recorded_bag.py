"""Bags of the simulator for tests: what a robot would have recorded, written with rosbags' own writer, at full speed.

The arm is driven by a real policy through the real runtime, as the node drives it with one inference a control tick.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from dysl_vla_ros.interfaces import JOINT_POSITION, ActionSpec, Observation, StepResult
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import RuntimeSettings
from dysl_vla_ros.simulation.scene import Scene

PERIOD = 50_000_000  # ns between two control ticks
BEGIN = 1_700_000_000_000_000_000  # ns
MESSAGES = Path(__file__).parents[1] / "msg"


@dataclass
class Recorded:
    """What went into a bag, for comparison."""

    path: Path
    observations: list[Observation] = field(default_factory=list)
    results: list[StepResult] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)  # ns


def typestore() -> Any:
    """Return ROS's types with this package's own."""
    store = get_typestore(Stores.ROS2_KILTED)
    for path in sorted(MESSAGES.glob("*.msg")):
        store.register(get_types_from_msg(path.read_text(), f"dysl_vla_ros/msg/{path.stem}"))
    return store


class BagWriter:
    """Writes messages by topic; connections are made as topics come."""

    def __init__(self, path: Path, plugin: StoragePlugin = StoragePlugin.SQLITE3) -> None:
        self._writer = Writer(path, version=9, storage_plugin=plugin)
        self.store = typestore()
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> "BagWriter":
        self._writer.open()
        return self

    def __exit__(self, *_: Any) -> None:
        self._writer.close()

    def make(self, kind: str, /, **values: Any) -> Any:
        """Make a message of a type."""
        return self.store.types[kind](**values)

    def stamp(self, time: int) -> Any:
        return self.make("builtin_interfaces/msg/Time", sec=time // 10**9, nanosec=time % 10**9)

    def header(self, time: int, frame: str = "") -> Any:
        return self.make("std_msgs/msg/Header", stamp=self.stamp(time), frame_id=frame)

    def write(self, topic: str, time: int, message: Any) -> None:
        """Write one message as received at ``time`` (ns)."""
        name = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, name, typestore=self.store)
        self._writer.write(self._connections[topic], time, bytes(self.store.serialize_cdr(message, name)))

    def image(self, time: int, picture: np.ndarray, encoding: str = "rgb8") -> Any:
        height, width, channels = picture.shape
        return self.make(
            "sensor_msgs/msg/Image",
            header=self.header(time, "camera"),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=width * channels,
            data=np.ascontiguousarray(picture).reshape(-1),
        )

    def png(self, time: int, seed: int, damaged: bool = False) -> Any:
        """Make a CompressedImage of noise; a damaged one shows it only to whoever decodes it."""
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
        target = io.BytesIO()
        Image.fromarray(pixels).save(target, "PNG")
        content = target.getvalue()
        if damaged:
            content = content[:41] + bytes(len(content) - 61) + content[-20:]
        return self.make(
            "sensor_msgs/msg/CompressedImage",
            header=self.header(time, "camera"),
            format="rgb8; png compressed bgr8",
            data=np.frombuffer(content, np.uint8),
        )

    def joints(self, time: int, positions: dict[str, float]) -> Any:
        empty = np.zeros(0)
        return self.make(
            "sensor_msgs/msg/JointState",
            header=self.header(time),
            name=list(positions),
            position=np.array(list(positions.values())),
            velocity=empty,
            effort=empty,
        )

    def text(self, text: str) -> Any:
        return self.make("std_msgs/msg/String", data=text)

    def pose(self, time: int, position: np.ndarray, frame: str = "base") -> Any:
        x, y, z = map(float, position)
        point = self.make("geometry_msgs/msg/Point", x=x, y=y, z=z)
        quaternion = self.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
        pose = self.make("geometry_msgs/msg/Pose", position=point, orientation=quaternion)
        return self.make("geometry_msgs/msg/PoseStamped", header=self.header(time, frame), pose=pose)

    def number(self, value: float) -> Any:
        return self.make("std_msgs/msg/Float64", data=float(value))

    def twist(self, time: int, linear: np.ndarray, frame: str = "base") -> Any:
        x, y, z = map(float, linear)
        vector = self.store.types["geometry_msgs/msg/Vector3"]
        twist = self.make("geometry_msgs/msg/Twist", linear=vector(x=x, y=y, z=z), angular=vector(x=0.0, y=0.0, z=0.0))
        return self.make("geometry_msgs/msg/TwistStamped", header=self.header(time, frame), twist=twist)

    def joint_chunk(self, stamp: int, spec: ActionSpec, chunk: np.ndarray, **changes: Any) -> Any:
        """Make what answers the frame of a stamp: (H, A) as the policy gave it."""
        values = {
            "version": 1, "header": self.header(stamp), "image_stamp": self.stamp(stamp), "episode": 1, "inference": 1,
            "time_step": spec.time_step, "horizon": len(chunk), "kind": spec.kind, "names": list(spec.names),
            "units": list(spec.units), "actions": chunk.astype(np.float32).ravel(), "first_index": 0,
            "verified": False,
        }  # fmt: skip
        return self.make("dysl_vla_ros/msg/JointActionChunk", **values | changes)

    def joint_action(self, stamp: int, spec: ActionSpec, told: np.ndarray, gripper: float, **changes: Any) -> Any:
        """Make what answers the frame of a stamp: a command, in rad and m (velocities: each a second)."""
        targets = spec.kind == JOINT_POSITION
        values = {
            "version": 1, "header": self.header(stamp), "image_stamp": self.stamp(stamp), "episode": 1, "inference": 1,
            "kind": spec.kind, "names": list(spec.joints), "positions": told if targets else np.zeros(0),
            "velocities": np.zeros(len(told)) if targets else told, "gripper": gripper, "time_step": spec.time_step,
            "chunk_index": 0, "chunk_length": spec.horizon, "first_tick": True, "verified": False, "limits": [],
            "stop_reason": "",
        }  # fmt: skip
        return self.make("dysl_vla_ros/msg/JointAction", **values | changes)

    def pose_chunk(self, stamp: int, spec: ActionSpec, chunk: np.ndarray, **changes: Any) -> Any:
        """Make what answers the frame of a stamp: absolute poses (H, A) as the policy gave them."""
        values = {
            "version": 1, "header": self.header(stamp, spec.frame), "image_stamp": self.stamp(stamp), "episode": 1,
            "inference": 1, "time_step": spec.time_step, "horizon": len(chunk), "names": list(spec.names),
            "units": list(spec.units), "actions": chunk.astype(np.float32).ravel(), "first_index": 0,
            "verified": False,
        }  # fmt: skip
        return self.make("dysl_vla_ros/msg/PoseActionChunk", **values | changes)

    def pose_action(
        self, stamp: int, spec: ActionSpec, position: np.ndarray, orientation: np.ndarray, gripper: float
    ) -> Any:
        """Make what answers the frame of a stamp: a pose that was commanded."""
        vector = self.store.types["geometry_msgs/msg/Vector3"]
        point, quaternion = (
            self.make(f"geometry_msgs/msg/{kind}", **dict(zip("xyzw", map(float, own), strict=False)))
            for kind, own in (("Point", position), ("Quaternion", orientation))
        )
        values = {
            "version": 1, "header": self.header(stamp, spec.frame), "image_stamp": self.stamp(stamp), "episode": 1,
            "inference": 1, "pose": self.make("geometry_msgs/msg/Pose", position=point, orientation=quaternion),
            "linear": vector(x=0.0, y=0.0, z=0.0), "angular": vector(x=0.0, y=0.0, z=0.0), "gripper": gripper,
            "time_step": spec.time_step, "chunk_index": 0, "chunk_length": spec.horizon, "first_tick": True,
            "verified": False, "limits": [], "stop_reason": "",
        }  # fmt: skip
        return self.make("dysl_vla_ros/msg/PoseAction", **values)

    def chunk(self, time: int, stamp: int, episode: int, inference: int, actions: np.ndarray) -> Any:
        return self.make(
            "dysl_vla_ros/msg/ActionChunk",
            version=1,
            header=self.header(time, "base"),
            image_stamp=self.stamp(stamp),
            episode=episode,
            inference=inference,
            time_step=0.05,
            horizon=len(actions),
            translation=actions[:, :3].astype(np.float32).ravel(),
            rotation=np.zeros(0, np.float32),
            gripper=actions[:, -1].astype(np.float32),
            first_index=0,
            verified=False,
        )


def record(
    path: Path,
    runtime: Runtime,
    scene: Scene,
    ticks: int = 30,
    *,
    seeds: Sequence[int] = (0,),
    instruction: str = "",
    settings: RuntimeSettings | None = None,
    prefix: str = "/",
    camera: str = "image",
    actions: str = "chunk",
    encoding: str = "rgb8",
    plugin: StoragePlugin = StoragePlugin.SQLITE3,
) -> Recorded:
    """Drive the arm for ``ticks`` a seed and write what a robot would have recorded.

    Args:
        prefix: of every topic.
        camera: name of the first camera's topic.
        actions: ``chunk``: ~/action_chunk; ``twist``: twist and gripper; ``none``.
        encoding: of the pictures, ``rgb8`` or ``bgr8``.
    """
    settings = settings or RuntimeSettings()
    recorded = Recorded(path)
    instruction = instruction or scene.task.instruction
    with BagWriter(path, plugin) as writer:
        now = BEGIN
        for episode, seed in enumerate(seeds):
            scene.reset(seed)
            runtime.reset()
            now += 10**9  # the scene is laid out anew: a pause, as on a robot
            writer.write(f"{prefix}instruction", now - PERIOD, writer.text(instruction))
            played = np.zeros((0, runtime.policy.action.dimensions), np.float32)
            for tick in range(ticks):
                seen = scene.observe()
                writer.write(f"{prefix}ee_pose", now, writer.pose(now, seen.ee_position))
                writer.write(f"{prefix}gripper_state", now, writer.number(seen.gripper_opening))
                for name in ("wrist_image", "image"):
                    picture = seen.images[name][:, :, ::-1] if encoding == "bgr8" else seen.images[name]
                    topic = f"{prefix}{camera if name == 'image' else name}"
                    writer.write(topic, now + 1000, writer.image(now, picture, encoding))
                observation = replace(seen.with_instruction(instruction))
                result = runtime.step(observation, played, settings)
                played = result.chunk.actions[:1]
                recorded.observations.append(observation)
                recorded.results.append(result)
                recorded.stamps.append(now)
                velocity, opening = played[0, :3] / 0.05, float(played[0, -1])
                answered = now + 20_000_000
                if actions == "chunk":
                    message = writer.chunk(answered, now, episode + 1, tick + 1, result.chunk.actions)
                    writer.write(f"{prefix}dysl_vla/action_chunk", answered, message)
                elif actions == "twist":
                    writer.write(f"{prefix}dysl_vla/twist", answered, writer.twist(answered, velocity))
                    writer.write(f"{prefix}dysl_vla/gripper", answered, writer.number(opening))
                scene.hold(velocity, opening)
                scene.advance()
                now += PERIOD
    return recorded
