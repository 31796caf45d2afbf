"""Everything that lives from configure to cleanup: worker, commander, control loop, subscriptions, publishers."""

import contextlib
import functools
import math
import time
from collections.abc import Callable
from typing import Any

from dysl_vla_ros.control.chunk_time import require_playable
from dysl_vla_ros.control.commander import Commander
from dysl_vla_ros.control.contract import contract_faults
from dysl_vla_ros.control.joint_commander import JointCommander
from dysl_vla_ros.control.limits import unsuitable_policy
from dysl_vla_ros.control.pose_commander import PoseCommander
from dysl_vla_ros.errors import SettingError, WorkerError
from dysl_vla_ros.interfaces import END_EFFECTOR_DELTA, PolicyDescription
from dysl_vla_ros.nodes.control_loop import ControlLoop
from dysl_vla_ros.nodes.graph_watch import GraphWatch
from dysl_vla_ros.nodes.inputs import Inputs
from dysl_vla_ros.nodes.joint_outputs import JointOutputs
from dysl_vla_ros.nodes.lifecycle_guard import GuardedLifecycleNode
from dysl_vla_ros.nodes.outputs import Outputs
from dysl_vla_ros.nodes.parameters import NodeParameters, Settings
from dysl_vla_ros.nodes.pose_outputs import PoseOutputs
from dysl_vla_ros.nodes.statistics import Statistics
from dysl_vla_ros.robot_contract import draft
from dysl_vla_ros.worker.client import StepReply, WorkerClient, WorkerSpec

TWIST_ACK_LIMIT = 1.0  # s that leaving active waits for consumers to have the last command


class Session:
    """One configuration of the node; opened once, closed once."""

    description: PolicyDescription
    commander: Commander | PoseCommander | JointCommander
    loop: ControlLoop
    inputs: Inputs
    outputs: Outputs
    graph: GraphWatch

    def __init__(self, node: GuardedLifecycleNode, parameters: NodeParameters) -> None:
        """Take the settings in force; nothing is started yet."""
        self._node = node
        self._parameters = parameters
        self.statistics = Statistics()
        self.is_open = False
        spec = WorkerSpec.from_settings(parameters.settings.model, parameters.robot)
        self.client = WorkerClient(spec, node.guarded("reply")(self._on_reply), self._on_lost)

    def open(self) -> None:
        """Start the worker, load, warm up, connect. Blocks at most ``model.load_timeout``; :meth:`close` ends it.

        Raises:
            WorkerError: the worker's own reason, or that it took too long.
            SettingError: a setting that this policy does not allow, or inputs that this version does not read.
        """
        node, parameters = self._node, self._parameters
        try:
            self.description = self.client.start()
        except WorkerError as error:
            if error.draft:
                node.get_logger().error(f"say this in a parameter file:\n{error.draft}")
            raise
        settings = parameters.settings
        if fault := self._cross_check(settings):
            raise SettingError(fault)
        robot = parameters.robot
        if faults := contract_faults(robot, self.description):
            node.get_logger().error(f"say this in a parameter file:\n{draft(self.description, robot)}")
            raise SettingError(f"{'; '.join(faults)}; the log has the block of a parameter file to fill in")
        action = self.description.action
        outputs: Callable[..., Outputs] = Outputs
        given = (action, settings.control, settings.safety)
        if action.kind == END_EFFECTOR_DELTA:
            self.commander = Commander(*given)
        elif action.moves_joints:
            self.commander = JointCommander(*given, robot.limits)
            outputs = functools.partial(JointOutputs, message=robot.message)
        else:
            self.commander, outputs = PoseCommander(*given, robot.limits.max_first_step), PoseOutputs
        parameters.cross_check = self._cross_check
        self.loop = ControlLoop(
            self.description,
            self.commander,
            lambda: parameters.settings,
            self.statistics,
            self.ros_nanoseconds,
            node.fail,
            node.log_throttled,
            self.simulated,
            lambda text: node.get_logger().warning(text),
            lambda text: node.get_logger().info(text),
        )
        self.inputs = Inputs(
            node,
            self.description,
            self.loop.lock,
            lambda: parameters.settings.safety,
            settings.model.image_transport,
            self.loop.hear_image,
            self.loop.hear_instruction,
            robot.cameras,
        )
        self.outputs = outputs(node, self.description, settings.control)
        self.loop.connect(self.client, self.inputs, self.outputs)
        self.graph = GraphWatch(node, self.inputs.subscriptions, self.outputs.publishers, self.inputs.publishers.look)
        self.is_open = True

    def close(self) -> None:
        """End the worker, without waiting for its step, and take everything off the graph. Idempotent.

        Do not hold the loop's lock: the client waits for its callbacks.
        """
        self.is_open = False
        self._parameters.cross_check = lambda settings: ""
        with contextlib.ExitStack() as parts:  # the last first, and each of them even where another one fails
            for part in ("outputs", "inputs"):
                if hasattr(self, part):
                    parts.callback(getattr(self, part).destroy)
            parts.callback(self.client.close)

    def leave_active(self, reason: str) -> None:
        """Publish the one command that leaves the arm still and wait, for a limited time, until consumers have it."""
        if self.loop.leave(reason) and not self.outputs.wait_for_command_acked(TWIST_ACK_LIMIT):
            self._node.get_logger().warning(
                f"a consumer of the {self.outputs.topic} has not acknowledged the {self.outputs.last_command} within "
                f"{TWIST_ACK_LIMIT:g} s"
            )

    def ros_nanoseconds(self) -> int:
        """Return the ROS clock."""
        return int(self._node.get_clock().now().nanoseconds)

    def simulated(self) -> bool:
        """Whether the ROS clock is ``/clock`` (parameter ``use_sim_time``)."""
        return bool(self._node.get_clock().ros_time_is_active)

    def steady_now(self) -> float:
        """Return the steady clock in seconds."""
        return time.monotonic()

    def _cross_check(self, settings: Settings) -> str:
        rule = settings.skipping.rule
        faults = [unsuitable_policy(settings.safety, self.description.proprioception, self.description.action)]
        try:
            require_playable(settings.control, self.description.action)
        except SettingError as error:
            faults.insert(0, str(error))
        budget, shortest = settings.control.budget_ms, self.description.floor_ms
        if 0.0 < budget < shortest:
            faults.append(
                f"control.budget_ms is {budget:g}, and the shortest inference took {shortest:.1f} ms while warming up: "
                f"give it at least {math.ceil(shortest)}, or 0 for no budget"
            )
        if rule in ("dysl", "static") and not self.description.blocks:
            faults.append(
                f"skipping.rule is {rule!r}, and without a DySL folder every layer runs; name one in model.adapters, "
                "or leave the rule empty"
            )
        return "; ".join(fault for fault in faults if fault)

    def _on_reply(self, reply: StepReply) -> None:
        if self.is_open:
            self.loop.hear_reply(reply)

    def _on_lost(self, cause: Any) -> None:
        if self.is_open:
            self.loop.hear_loss(str(cause))
        else:  # between its start and the end of open
            self._node.fail(str(cause))
