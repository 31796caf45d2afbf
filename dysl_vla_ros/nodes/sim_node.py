"""``sim_node``: Meta-World as a ROS 2 robot that lives in real time, so that a late action is a late action.

Physics advances in steps of 12.5 ms on a steady clock, whatever the policy does. Each fourth step begins a control tick
(20 Hz): the robot's state and both cameras are read, stamped with the time before rendering, and published; the first
camera goes last, so that whoever waits for it has the rest of the same moment already.

One thread does everything: a renderer belongs to the thread that made it, and a callback takes far less than a step.
Commands: ``twist`` (TwistStamped, frame ``base``) and ``gripper`` (opening, 0 closed to 1 open). Without a fresh twist
for ``command_timeout`` the arm stands still and the gripper holds.
"""

import array
import math
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped, TwistStamped
from numpy.typing import NDArray
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, Header

from dysl_vla_ros.errors import DataError, DyslVlaError
from dysl_vla_ros.msg import SceneState
from dysl_vla_ros.nodes.console import Console
from dysl_vla_ros.nodes.program import run_program
from dysl_vla_ros.nodes.real_time import Pacer
from dysl_vla_ros.nodes.stop_request import StopRequest
from dysl_vla_ros.srv import ResetScene

if TYPE_CHECKING:
    from dysl_vla_ros.simulation.scene import Scene

FRAME = "base"
MAX_LAG = 0.025  # s caught up by steps in a row: rendering takes longer than a step; more is given up
REPORT_PERIOD = 10.0  # s between two warnings of a machine that is too slow
LOST_SHARE_WARNED = 0.01  # of real time
LOST_SHARE_CHANGED = 0.25  # that is worth another warning
CALLBACKS_WHEN_LATE = 4
LATEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


class SimNode(Node):
    """The simulated robot. :meth:`step` advances it by 12.5 ms; :func:`run` calls that in real time."""

    def __init__(self) -> None:
        """Declare parameters, build the first scene (about a second), open topics and the service.

        Raises:
            DataError: unknown task, or no way to render on this machine.
            ParameterException: a parameter of the wrong type or out of range.
        """
        super().__init__("sim")
        task = self._parameter("task", "reach", "task that the scene begins with")
        seed = self._parameter("seed", 0, "layout of the objects that the scene begins with", 0, 2**31 - 1)
        self._command_timeout = self._parameter(
            "command_timeout", 0.15, "the arm stops when the newest command is older [s]", 0.02, 5.0
        )
        picture_rate = self._parameter("scene.rate", 0.0, "pictures a second on ~/scene_image; 0: none [Hz]", 0.0, 20.0)
        self._picture_size = (
            self._parameter("scene.width", 320, "width of ~/scene_image [px]", 16, 1920),
            self._parameter("scene.height", 240, "height of ~/scene_image [px]", 16, 1080),
        )
        self._load_simulator()
        self._ticks_per_picture = round(1.0 / (picture_rate * self._control_period)) if picture_rate > 0.0 else 0

        self._episode = 0
        self._command: TwistStamped | None = None
        self._command_arrival = -math.inf  # s, steady clock
        self._gripper = 0.5
        self._reset_at = 0  # ns, ROS clock: commands sent earlier were meant for the scene before
        self._last_warning: dict[str, float] = {}
        self.restarted = False  # a reset took its time; whoever paces the steps begins anew
        self._scene: Scene = self._new_scene(str(task))
        self._start(int(seed))

        self._images = {name: self.create_publisher(Image, name, LATEST) for name in ("image", "wrist_image")}
        self._joint_states = self.create_publisher(JointState, "joint_states", LATEST)
        self._ee_pose = self.create_publisher(PoseStamped, "ee_pose", LATEST)
        self._gripper_state = self.create_publisher(Float64, "gripper_state", LATEST)
        self._state = self.create_publisher(SceneState, "~/state", QoSProfile(depth=10))
        self._picture = self.create_publisher(Image, "~/scene_image", LATEST) if self._ticks_per_picture else None
        self.create_subscription(TwistStamped, "twist", self._on_twist, RELIABLE)
        self.create_subscription(Float64, "gripper", self._on_gripper, RELIABLE)
        self.create_service(ResetScene, "~/reset", self._on_reset)
        self.get_logger().info(f"ready: task {self._scene.task.name}, '{self._scene.task.instruction}'")

    # -- time --------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Advance by one step of 12.5 ms; publish what is due at its beginning."""
        phase = self._steps % self._steps_per_tick
        if phase == 0:
            self._publish_tick()
        elif phase == self._steps_per_tick // 2 and self._picture is not None:
            tick = self._steps // self._steps_per_tick
            if tick % self._ticks_per_picture == 0:  # in the middle of a tick, away from the cameras' rendering
                stamp = self._now()
                self._picture.publish(self._image(stamp, "scene", self._scene.render("image", *self._picture_size)))
        self._scene.hold(self._velocity(), self._gripper)
        self._scene.advance(1)
        self._steps += 1

    @property
    def _commanded(self) -> bool:
        """Whether a command is in force."""
        return self._command is not None and time.monotonic() - self._command_arrival <= self._command_timeout

    def _velocity(self) -> NDArray[np.float64]:
        """Return the commanded velocity (3,), m/s; zero without a fresh command."""
        if self._command is None or not self._commanded:
            return np.zeros(3)
        linear = self._command.twist.linear
        return np.array([linear.x, linear.y, linear.z])

    def _publish_tick(self) -> None:
        """Read sensors and cameras and publish them under one stamp, the first camera last."""
        stamp = self._now()
        observed = self._scene.observe()
        header = Header(stamp=stamp, frame_id=FRAME)
        self._joint_states.publish(
            JointState(header=header, name=self._scene.joint_names, position=observed.joint_positions.tolist())
        )
        pose = PoseStamped(header=header)
        pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = map(float, observed.ee_position)
        pose.pose.orientation.w = 1.0
        self._ee_pose.publish(pose)
        self._gripper_state.publish(Float64(data=observed.gripper_opening))
        for name in ("wrist_image", "image"):
            self._images[name].publish(self._image(stamp, name, observed.images[name]))
        self._state.publish(
            SceneState(
                version=SceneState.VERSION,
                header=header,
                task=self._scene.task.name,
                instruction=self._scene.task.instruction,
                seed=self._seed,
                episode=self._episode,
                ticks=self._steps // self._steps_per_tick,
                success=self._scene.success,
                object_moved=self._scene.object_moved,
                commanded=self._commanded,
            )
        )

    def _image(self, stamp: Time, camera: str, pixels: NDArray[np.uint8]) -> Image:
        """Make an image message of (height, width, 3) rgb pixels."""
        height, width, channels = pixels.shape
        return Image(
            header=Header(stamp=stamp, frame_id=camera),
            height=height,
            width=width,
            encoding="rgb8",
            step=width * channels,
            data=array.array("B", pixels.tobytes()),  # the one type that the setter takes without looking at each byte
        )

    # -- commands ----------------------------------------------------------------------------------------------------

    def _on_twist(self, message: TwistStamped, information: dict[str, Any]) -> None:
        """Take a velocity, unless it is not finite, in another frame, late, or meant for the scene before."""
        linear, angular = message.twist.linear, message.twist.angular
        values = (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)
        if self._before_reset(information):
            return
        if not all(map(math.isfinite, values)):
            self._warn("finite", f"twist refused: it is not finite: {values}")
        elif message.header.frame_id not in ("", FRAME):
            self._warn("frame", f"twist refused: its frame is '{message.header.frame_id}'; this robot takes '{FRAME}'")
        elif (age := self._age(message.header.stamp)) > self._command_timeout:
            limit = self._command_timeout
            self._warn("age", f"twist refused: its stamp is {age:.3f} s old, command_timeout is {limit} s")
        else:
            if any(values[3:]):
                self._warn("angular", "the angular part of twist has no effect: this hand cannot turn")
            self._command, self._command_arrival = message, time.monotonic()

    def _on_gripper(self, message: Float64, information: dict[str, Any]) -> None:
        """Take an opening; it stays in force until the next one."""
        if self._before_reset(information):
            return
        if math.isfinite(message.data):
            self._gripper = min(max(message.data, 0.0), 1.0)
        else:
            self._warn("gripper", f"gripper refused: the opening is {message.data}")

    def _on_reset(self, request: ResetScene.Request, response: ResetScene.Response) -> ResetScene.Response:
        """Lay the scene out anew; an unknown task or a wrong seed changes nothing."""
        response.success = True
        try:
            if not 0 <= request.seed < 2**31:
                raise DataError(f"seed must be from 0 to {2**31 - 1}, not {request.seed}")
            if request.task not in ("", self._scene.task.name):
                old, self._scene = self._scene, self._new_scene(request.task)
                old.close()
            self._start(request.seed)
        except DyslVlaError as error:
            response.success, response.message = False, str(error)
            self.get_logger().warning(f"reset refused: {error}")
        response.instruction = self._scene.task.instruction
        response.episode = self._episode
        return response

    def _start(self, seed: int) -> None:
        """Begin an episode: the arm holds until a command comes."""
        self._scene.reset(seed)
        self._scene.observe()  # a scene's first pictures take half a second: not in the episode's time
        if self._ticks_per_picture:
            self._scene.render("image", *self._picture_size)
        self._seed = seed
        self._episode += 1
        self._steps = 0
        self._command, self._gripper = None, 0.5
        self._reset_at = time.time_ns()
        self.restarted = True

    def _before_reset(self, information: dict[str, Any]) -> bool:
        """Whether a message was sent before the present episode began; 0: its sender does not say when."""
        return 0 < information["source_timestamp"] < self._reset_at

    def _age(self, stamp: Time) -> float:
        """Return a stamp's age in seconds; 0 for a zero stamp, which means "now"."""
        sent = stamp.sec * 10**9 + stamp.nanosec
        return 0.0 if sent == 0 else (self.get_clock().now().nanoseconds - sent) * 1e-9

    # -- helpers -----------------------------------------------------------------------------------------------------

    def _parameter(
        self, name: str, default: Any, meaning: str, low: float | None = None, high: float | None = None
    ) -> Any:
        """Declare a parameter that is read once, and return its value."""
        descriptor = ParameterDescriptor(description=meaning, read_only=True)
        if isinstance(default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        elif isinstance(default, int):
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        return self.declare_parameter(name, default, descriptor).value

    def _load_simulator(self) -> None:
        """Import the simulator, which takes a second and fails where there is no way to render."""
        try:
            from dysl_vla_ros.simulation import scene, tasks
        except (ImportError, AttributeError) as error:  # PyOpenGL without libOSMesa: AttributeError
            raise DataError(
                f"the simulator cannot be loaded ({error}); install metaworld (requirements/simulation.txt) and "
                "libosmesa6, or set MUJOCO_GL=egl on a machine with a GPU"
            ) from error
        self._new_scene = scene.Scene
        self._steps_per_tick, self._control_period = scene.STEPS_PER_TICK, tasks.CONTROL_PERIOD
        self.step_period: float = tasks.SIMULATION_STEP

    def _now(self) -> Time:
        return self.get_clock().now().to_msg()

    def _warn(self, key: str, text: str) -> None:
        """Log a warning, at most one a second for each key."""
        now = time.monotonic()
        if now - self._last_warning.get(key, -math.inf) >= 1.0:
            self._last_warning[key] = now
            self.get_logger().warning(text)


def run(node: SimNode, stop: StopRequest) -> None:
    """Step the node in real time and answer its callbacks in between, until a stop is wanted."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    pacer = Pacer(node.step_period, MAX_LAG, time.monotonic())
    report_at, said = time.monotonic() + REPORT_PERIOD, -1.0  # said: the share that was warned of last
    while not stop.is_set():
        if pacer.wait_time(time.monotonic()) <= 0.0:  # late: what came in meanwhile comes first, a flood does not
            for _ in range(CALLBACKS_WHEN_LATE):
                executor.spin_once(timeout_sec=0.0)
        while (remaining := pacer.wait_time(time.monotonic())) > 0.0 and not stop.is_set():
            executor.spin_once(timeout_sec=remaining)
        now = time.monotonic()
        if node.restarted:
            node.restarted = False
            pacer.restart(now)
        pacer.step(now)
        node.step()
        if now >= report_at:
            report_at = now + REPORT_PERIOD
            lost = pacer.share_lost(now)
            if lost > LOST_SHARE_WARNED and abs(lost - said) > LOST_SHARE_CHANGED:  # nobody can fix it meanwhile
                said = lost
                speed = f"simulated time ran at {100 * (1 - lost):.0f}% of real time for {REPORT_PERIOD:.0f} s"
                node.get_logger().warning(f"this machine is too slow: {speed}")
    executor.shutdown()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the simulated robot until a stop signal; return the exit code."""
    return run_program("sim_node", argv, _run, (DyslVlaError, ParameterException))


def _run(stop: StopRequest, console: Console) -> int:
    with stop.ending_at_once():  # importing the simulator and building the scene
        node = SimNode()
    run(node, stop)
    node.destroy_node()
    return 0


if __name__ == "__main__":
    sys.exit(main())
