"""A VLA node with the tiny policy, and a robot that it sees and moves: what the tests of the node share."""

import atexit
import functools
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness import NodeProcess, RosPeer, wait_until
from warm_worker import WarmWorkers

NODE = "dysl_vla"
PERIOD = 0.05  # s between two messages of every source
SIZE = 48  # pixels a side; the policy resizes
IMPORTS = 120.0  # s for torch and transformers to be imported, once
LIMIT = 30.0  # s for anything that must happen; a busy machine with two cores
CHANGE_LIMIT = 75.0  # s for a transition: model.load_timeout and some
TWIST, GRIPPER, ACTION = f"/{NODE}/twist", f"/{NODE}/gripper", f"/{NODE}/action"
CHUNK, REPORT, DIAGNOSTICS = f"/{NODE}/action_chunk", f"/{NODE}/skip_report", "/diagnostics"
COMMAND_TOPICS = (TWIST, GRIPPER, ACTION)


@functools.cache
def warm_python() -> str:
    """Return what goes where ``model.python`` goes and starts workers in a moment, until these tests end."""
    folder = tempfile.TemporaryDirectory(prefix="warm")
    workers = WarmWorkers(Path(folder.name))
    atexit.register(folder.cleanup)
    atexit.register(workers.close)
    wait_until(lambda: workers.ready, IMPORTS, "torch and transformers to be imported")
    return workers.python


@dataclass
class BadLink:
    """Loses, doubles and delays messages by chance, as a radio link does; what is delayed comes behind later ones."""

    lost: float
    doubled: float = 0.0
    delayed: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self._held: list[tuple[str, Any]] = []

    def pass_on(self, topic: str, message: Any) -> list[tuple[str, Any]]:
        """Return what arrives when this is sent."""
        before = [held for held in self._held if held[0] == topic]
        self._held = [held for held in self._held if held[0] != topic]
        lost, doubled, delayed = self._random.random(3) < (self.lost, self.doubled, self.delayed)
        if lost:
            return before
        if delayed:
            self._held.append((topic, message))
            return before
        return [(topic, message)] * (2 if doubled else 1) + before


class Robot:
    """Publishes cameras and proprioception in its own thread; each source can be silenced or stamped wrongly.

    One instant is sent in ``order``, the messages of a source in ``behind`` so many seconds after the one before.
    One robot speaks at a time, the newest: two on the same topics are doubled inputs, and every node would stop.
    """

    living: "list[Robot]" = []

    def __init__(self, peer: RosPeer) -> None:
        from geometry_msgs.msg import PoseStamped
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import CompressedImage, Image, JointState
        from std_msgs.msg import Float64

        self._peer = peer
        self.silent: set[str] = set()
        self.shift: dict[str, float] = {}  # s added to the stamps of a source
        self.spoil: dict[str, Any] = {}  # fields of the first camera's images
        self.picture: np.ndarray | None = None  # (height, width, 3) rgb of both cameras; None: noise, always another
        self.place = (0.0, 0.6, 0.2)  # m, of ee_pose
        self.rotation = (0.0, 0.0, 0.0, 1.0)  # x, y, z, w of ee_pose
        self.opening = 0.5
        self.codec = ""  # "jpeg", "png": compressed images only
        self.damage: Callable[[bytes], bytes] = bytes  # done to the first camera's compressed data
        self.joints: list[dict[str, float]] = []  # one joint_states message each
        self.period = PERIOD
        self.order: tuple[str, ...] = ("joint_states", "gripper_state", "ee_pose", "wrist_image", "image")
        self.behind: dict[str, float] = {}  # s
        self.drift = 0.0  # m, rad that hand and joints move from one instant to the next
        self.link: BadLink | None = None
        self.one_stamp = False  # all messages of an instant bear the same one; else each its own
        self.sent: list[tuple[str, Any]] | None = None  # (topic, message), while a list is there
        kinds = {
            "image": Image,
            "wrist_image": Image,
            "image/compressed": CompressedImage,
            "wrist_image/compressed": CompressedImage,
            "ee_pose": PoseStamped,
            "gripper_state": Float64,
            "joint_states": JointState,
        }
        self._publishers = {
            topic: peer.publisher(topic, kind, qos_profile_sensor_data) for topic, kind in kinds.items()
        }
        self._random = np.random.default_rng(0)
        self._instant = 0
        self._now = peer.node.get_clock().now()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="robot", daemon=True)
        Robot.living.append(self)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self.period):
            if Robot.living[-1] is not self:
                continue
            self._instant += 1
            now = self._peer.node.get_clock().now()
            for source in self.order:
                if self._ended.wait(self.behind.get(source, 0.0)):
                    return
                if source in self.silent:
                    continue
                self._now = now if self.one_stamp else self._peer.node.get_clock().now()
                for topic, message in self._messages(source):
                    for arriving, what in self.link.pass_on(topic, message) if self.link else [(topic, message)]:
                        self._publishers[arriving].publish(what)
                        if self.sent is not None:
                            self.sent.append((arriving, what))

    def _messages(self, source: str) -> list[tuple[str, Any]]:
        if source == "joint_states":
            return [(source, self._joint_states(names)) for names in list(self.joints)]
        coded = self.codec and source.endswith("image")
        return [(f"{source}/compressed" if coded else source, self._message(source))]

    def _joint_states(self, positions: dict[str, float]) -> Any:
        from sensor_msgs.msg import JointState

        moved = [position + self.drift * self._instant for position in positions.values()]
        message = JointState(name=list(positions), position=moved)
        message.header.stamp = self._stamp("joint_states")
        return message

    def _stamp(self, source: str) -> Any:
        from rclpy.duration import Duration

        return (self._now + Duration(seconds=self.shift.get(source, 0.0))).to_msg()

    def _message(self, source: str) -> Any:
        from geometry_msgs.msg import PoseStamped
        from std_msgs.msg import Float64

        if source == "gripper_state":
            return Float64(data=self.opening)
        stamp = self._stamp(source)
        if source == "ee_pose":
            pose = PoseStamped()
            pose.header.stamp, pose.header.frame_id = stamp, "base"
            x, y, z = self.place
            pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = x + self.drift * self._instant, y, z
            turned = pose.pose.orientation
            turned.x, turned.y, turned.z, turned.w = self.rotation
            return pose
        pixels = self.picture
        if pixels is None:
            pixels = self._random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        image = self._compressed(source, pixels) if self.codec else self._raw(source, pixels)
        image.header.stamp = stamp
        return image

    def _raw(self, source: str, pixels: np.ndarray) -> Any:
        from sensor_msgs.msg import Image

        height, width = pixels.shape[:2]
        image = Image(height=height, width=width, encoding="rgb8", step=3 * width, data=pixels.tobytes())
        for field, value in self.spoil.items() if source == "image" else ():
            setattr(image, field, value)
        return image

    def _compressed(self, source: str, pixels: np.ndarray) -> Any:
        """Compress as image_transport does."""
        import cv2
        from sensor_msgs.msg import CompressedImage

        coded, data = cv2.imencode({"jpeg": ".jpg", "png": ".png"}[self.codec], pixels[:, :, ::-1])
        assert coded
        data = data.tobytes() if source == "wrist_image" else self.damage(data.tobytes())
        return CompressedImage(format=f"rgb8; {self.codec} compressed bgr8", data=data)

    def close(self) -> None:
        self._ended.set()
        self._thread.join(LIMIT)
        if self in Robot.living:  # a second close is none
            Robot.living.remove(self)


class Rig:
    """A running ``vla_node``, its robot, and a peer that hears everything the node says."""

    def __init__(self, node: NodeProcess, peer: RosPeer) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from geometry_msgs.msg import TwistStamped
        from std_msgs.msg import Float64

        from dysl_vla_ros.msg import ActionChunk, EndEffectorAction, SkipReport

        self.node, self.peer = node, peer
        for topic, kind in (
            (TWIST, TwistStamped),
            (GRIPPER, Float64),
            (ACTION, EndEffectorAction),
            (CHUNK, ActionChunk),
            (REPORT, SkipReport),
            (DIAGNOSTICS, DiagnosticArray),
        ):
            peer.listen(topic, kind)
        self.robot = Robot(peer)

    def change(self, transition: str) -> bool:
        return self.peer.change_state(NODE, transition, CHANGE_LIMIT)

    def state(self) -> str:
        return self.peer.state(NODE, LIMIT)

    def bring_to(self, state: str) -> None:
        """Go to a primary state by the ordinary transitions."""
        path = ["unconfigured", "inactive", "active"]
        up, down = (
            {"unconfigured": "configure", "inactive": "activate"},
            {"active": "deactivate", "inactive": "cleanup"},
        )
        while (now := self.state()) != state:
            transition = up[now] if path.index(now) < path.index(state) else down[now]
            assert self.change(transition), f"{transition} failed: {self.node.output[-2000:]}"

    def set(self, atomically: bool = True, **values: Any) -> tuple[bool, str]:
        """Set parameters, ``group__name=value``."""
        named = {name.replace("__", "."): value for name, value in values.items()}
        return self.peer.set_parameters(NODE, named, LIMIT, atomically)

    def instruct(self, text: str = "push the puck") -> None:
        from std_msgs.msg import String

        self.peer.publisher("instruction", String)
        self.peer.wait_for_subscriber("instruction", LIMIT, count=1)
        self.peer.publish("instruction", String(data=text))

    def move(self) -> None:
        """Be active and moving."""
        self.bring_to("active")
        self.instruct()
        self.wait_for_motion()

    def heard(self, topic: str) -> int:
        return len(self.peer.received(topic))

    def wait_for_motion(self) -> Any:
        """Wait for the next action that is not a stop."""
        return self.peer.wait_for(
            ACTION, lambda action: not action.stop_reason, LIMIT, "an action that moves", self.heard(ACTION)
        )

    def wait_for_stop(self, reason: str, after: int | None = None) -> Any:
        """Wait for an action whose reason of a stop contains a text, from now or from message ``after`` on."""
        after = self.heard(ACTION) if after is None else after
        return self.peer.wait_for(
            ACTION, lambda action: reason in action.stop_reason, LIMIT, f"a stop with {reason!r}", after
        )

    def wait_for_status(self, part: str, fits: Callable[[Any], bool], what: str, after: int | None = None) -> Any:
        """Wait for a status of /diagnostics published from now on."""
        after = self.heard(DIAGNOSTICS) if after is None else after
        name = f"{NODE}: {part}"
        array = self.peer.wait_for(
            DIAGNOSTICS,
            lambda message: any(status.name == name and fits(status) for status in message.status),
            LIMIT,
            f"{what} in the status {name}",
            after,
        )
        return next(status for status in array.status if status.name == name)

    def wait_for_error(self, part: str, text: str, after: int | None = None) -> Any:
        from diagnostic_msgs.msg import DiagnosticStatus

        return self.wait_for_status(
            part,
            lambda status: status.level == DiagnosticStatus.ERROR and text in status.message,
            f"ERROR {text!r}",
            after,
        )


def is_zero(twist: Any) -> bool:
    return not any(
        getattr(part, axis) for part in (twist.twist.linear, twist.twist.angular) for axis in ("x", "y", "z")
    )


@contextmanager
def running_rig(
    parameters: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    end: bool = True,
    program: str = "vla_node",
    warm: bool = True,
    warm_node: bool = True,
    **process: Any,
) -> Iterator[Rig]:
    """Start a node; ``end``: at the end it must obey SIGINT with exit code 0 and leave no process.

    ``warm``: neither the node nor its workers need their imports (:mod:`warm_program`, :mod:`warm_worker`); false where
    a test is about these processes, ``warm_node`` where it is about the node's alone.
    ``process``: further arguments of :class:`~processes.NodeProcess`.
    """
    quick = {"diagnostics.period": 0.1, "model.threads": 1, "model.step_timeout": 10.0}
    if warm and "model.python" not in parameters:
        quick["model.python"] = warm_python()
    started = NodeProcess(program, {**quick, **parameters}, environment=environment, warm=warm and warm_node, **process)
    with started as node, RosPeer() as peer:
        rig = Rig(node, peer)
        try:
            # A service answers only whom it has discovered, and drops the answer otherwise: once the node's own
            # messages arrive it knows this peer.
            peer.wait_for(DIAGNOSTICS, None, LIMIT, "the node's first message")
            yield rig
            if end:
                code = node.stop(signal.SIGINT, LIMIT)
                assert code == 0, f"exit code {code}:\n{node.output}"
        finally:
            rig.robot.close()


def gentle(checkpoint: Path) -> dict[str, Any]:
    """Parameters that a busy machine cannot trip over where a test is about something else."""
    return {
        "model.checkpoint": str(checkpoint),
        "safety.max_arrival_age": 1.0,
        "safety.max_stamp_age": 2.0,
        "safety.max_camera_skew": 1.0,
    }


def wait_steadily(seconds: float) -> float:
    """Let time pass in which something must not happen; returns when it began (time.monotonic())."""
    began = time.monotonic()
    threading.Event().wait(seconds)
    return began
