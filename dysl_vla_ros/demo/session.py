"""The demo's session: both nodes up, one episode after another, both nodes down.

An episode begins with the policy's node inactive: the scene is laid out, the instruction given, and only when the new
scene has been seen is the node activated. So no command and no picture of the episode before reaches the next one.
Every wait has a limit and says what was waited for; a node that ends meanwhile ends the wait with its own reason.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String

from dysl_vla_ros.demo.processes import NodeEnded, NodeProcess, ros_environment, share_folder
from dysl_vla_ros.demo.recorder import Recorder
from dysl_vla_ros.engines.choice import EngineChoice
from dysl_vla_ros.errors import DataError, DyslVlaError
from dysl_vla_ros.records.trace import EpisodeRecord
from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD, Task
from dysl_vla_ros.srv import ResetScene

PARAMETER_FILES = ("dysl_vla.yaml", "simulated_arm.yaml")  # the later one goes on top
POLICY, ROBOT = "/dysl_vla", "/sim"
PICTURE_RATE = 10.0  # Hz, of the scene, for film strip and video
START_LIMIT = 60.0  # s for a node to appear
CONFIGURE_LIMIT = 90.0  # s: model.load_timeout is 60
CALL_LIMIT = 20.0  # s for any other service
FIRST_COMMAND_LIMIT = 15.0  # s from activation to the arm's first command
SLOWNESS = 4.0  # an episode may take so many times its real time before it counts as stuck
LINGER = 0.4  # s that are still filmed after the end
_TRANSITIONS = ("configure", "activate", "deactivate")


class TimeIsUp(DyslVlaError):
    """A wait of the demo reached its limit."""


@dataclass(frozen=True)
class DemoOptions:
    """What is played, and with which policy."""

    tasks: tuple[Task, ...]
    episodes: int  # a task
    seed: int  # of each task's first episode; the next ones follow
    checkpoint: Path
    output: Path
    full_depth: bool = False
    engine: EngineChoice = EngineChoice()  # what computes the policy
    max_ticks: int = 200  # control ticks of an episode
    record: Path | None = None  # folder of a bag of everything that a robot would record


class DemoSession:
    """Both nodes, and a node of the demo's own beside them. Use it in a ``with`` block; nothing outlives that.

    Raises:
        NodeEnded: a node ended, or refused to be configured; the message has its own reason.
        TimeIsUp: a wait reached its limit.
        KeyboardInterrupt: the end was asked for.
    """

    def __init__(self, options: DemoOptions, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Start nothing before the ``with`` block begins; a wait during which ``interrupted`` holds is broken off."""
        self._options = options
        self._interrupted = interrupted
        self._stack = contextlib.ExitStack()
        self._active = False
        self._bag_recorder: NodeProcess | None = None
        self._fault: Exception | None = None  # of a callback

    def __enter__(self) -> "DemoSession":
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        options = self._options
        parameters = [share_folder() / "config" / name for name in PARAMETER_FILES]
        if missing := [str(path) for path in parameters if not path.is_file()]:
            raise DataError(f"missing: {', '.join(missing)}; build and install the package again")
        environment = ros_environment()
        os.environ.update(environment)  # this process's own node must find the others
        policy_arguments = [word for path in parameters for word in ("--params-file", str(path))]
        policy_arguments += ["-p", f"model.checkpoint:={options.checkpoint.resolve()}"]
        policy_arguments += ["-p", f"model.runtime:={options.engine.runtime}"]
        if options.engine.export:
            policy_arguments += ["-p", f"model.export:={Path(options.engine.export).resolve()}"]
        if options.full_depth:
            policy_arguments += ["-p", "skipping.rule:=full"]
        robot_arguments = ["-p", f"scene.rate:={PICTURE_RATE}", "-p", f"task:={options.tasks[0].name}"]
        robot_arguments += ["-r", f"twist:={POLICY}/twist", "-r", f"gripper:={POLICY}/gripper"]
        logs = options.output / "logs"
        if options.record is not None:  # the first one started is the last one stopped: it hears the zero twist
            arguments = ["-p", f"folder:={options.record.absolute()}"]
            recorder = NodeProcess("bag_recorder", arguments, environment, logs / "bag_recorder.log")
            self._bag_recorder = self._stack.enter_context(recorder)
        # The last one started is the first one stopped: the policy says its zero twist while the robot still listens.
        self._robot, self._policy = (
            self._stack.enter_context(NodeProcess(program, arguments, environment, logs / f"{program}.log"))
            for program, arguments in (("sim_node", robot_arguments), ("vla_node", policy_arguments))
        )
        self._join_graph()
        self._transition("configure", CONFIGURE_LIMIT)

    def _join_graph(self) -> None:
        """Make the demo's own node and the thread that runs its callbacks."""
        context = rclpy.Context()
        rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
        self._stack.callback(context.try_shutdown)
        node = Node("dysl_vla_demo", context=context)
        self._stack.callback(node.destroy_node)
        self.recorder = Recorder(node, POLICY, ROBOT)
        # Transient local serves every subscriber, the node's transient-local one too.
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._instructions = node.create_publisher(String, "instruction", latched)
        self._change_state = node.create_client(ChangeState, f"{POLICY}/change_state")
        self._reset_scene = node.create_client(ResetScene, f"{ROBOT}/reset")
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        ended = threading.Event()

        def spin() -> None:
            try:
                while not ended.is_set():
                    executor.spin_once(timeout_sec=0.2)
            except Exception as fault:  # raised again by the wait that would never see its condition
                self._fault = fault

        spinner = threading.Thread(target=spin, name="demo-node", daemon=True)
        spinner.start()

        def leave() -> None:
            ended.set()
            executor.wake()
            spinner.join(5.0)
            executor.shutdown()

        self._stack.callback(leave)

    def recording_fault(self) -> str:
        """Say, when the block has ended, why the bag is not whole; "" where it is, or where none was asked for."""
        recorder = self._bag_recorder
        return "" if recorder is None or recorder.exit_code == 0 else recorder.reason()

    # -- episodes ----------------------------------------------------------------------------------------------------

    def play(self, task: Task, seed: int, record: EpisodeRecord) -> None:
        """Play one episode to success or the last tick; ``record`` fills while it runs."""
        recorder = self.recorder
        if self._active:
            self._transition("deactivate", CALL_LIMIT)
        self._wait(lambda: self._instructions.get_subscription_count() > 0, CALL_LIMIT, "a subscriber of instruction")
        self._instructions.publish(String(data=record.instruction))
        request = ResetScene.Request(task=task.name, seed=seed)
        answer = self._call(self._reset_scene, request, CALL_LIMIT, f"{ROBOT}/reset")
        if not answer.success:
            raise DataError(f"{ROBOT}/reset refused task {task.name}, seed {seed}: {answer.message}")
        recorder.begin(record, answer.episode, self._options.max_ticks)
        self._wait(lambda: recorder.scene_ready, CALL_LIMIT, f"the scene of task {task.name}")
        self._transition("activate", CALL_LIMIT)
        self._wait(lambda: recorder.moving, FIRST_COMMAND_LIMIT, "the first command of the episode", needs_policy=True)
        limit = SLOWNESS * self._options.max_ticks * CONTROL_PERIOD
        self._wait(
            lambda: recorder.over,
            limit,
            "the end of the episode",
            needs_policy=True,
        )
        ended = time.monotonic()
        self._wait(lambda: time.monotonic() - ended >= LINGER, LINGER + 1.0, "the last pictures")
        recorder.end()

    # -- waiting -----------------------------------------------------------------------------------------------------

    def _wait(self, condition: Callable[[], bool], limit: float, what: str, needs_policy: bool = False) -> None:
        """Wait until ``condition`` holds; both nodes must live, and the policy's stay active where it is needed."""
        deadline = time.monotonic() + limit
        while True:
            if self._interrupted():
                raise KeyboardInterrupt
            if self._fault is not None:
                raise RuntimeError("a callback of the demo's node failed") from self._fault
            self._robot.require_alive()
            self._policy.require_alive()
            with self.recorder.changed:
                if condition():
                    return
                if needs_policy and self.recorder.policy_state in ("unconfigured", "finalized"):
                    raise NodeEnded(f"vla_node gave up: {self._policy.reason()}")
                left = deadline - time.monotonic()
                if left <= 0.0:
                    raise TimeIsUp(f"waited {limit:g} s for {what}; logs: {self._options.output / 'logs'}")
                self.recorder.changed.wait(min(left, 0.1))

    def _call(self, client: Any, request: Any, limit: float, what: str) -> Any:
        """Call a service and return its response."""
        self._wait(client.service_is_ready, START_LIMIT, f"the service {what}")
        future = client.call_async(request)
        self._wait(future.done, limit, f"an answer of {what}")
        return future.result()

    def _transition(self, label: str, limit: float) -> None:
        """Take the policy's node through one lifecycle transition."""
        assert label in _TRANSITIONS
        request = ChangeState.Request()
        request.transition.label = label
        if not self._call(self._change_state, request, limit, f"{POLICY}/change_state ({label})").success:
            raise NodeEnded(f"vla_node could not {label}: {self._policy.reason()}")
        self._active = label == "activate"


def planned(options: DemoOptions) -> Sequence[tuple[Task, int]]:
    """Return task and seed of every episode, in the order of playing."""
    return [(task, options.seed + number) for task in options.tasks for number in range(options.episodes)]
