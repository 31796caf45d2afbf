"""What the node says of a policy that moves joints: commands to a controller of ros2_control, and their reasons.

Two kinds of controller are served. A ``joint_trajectory_controller`` takes a trajectory of one point that is to be
reached a control period from now: stamp 0, which means at once. The group controllers of ``forward_command_controller``
take an array in the order of their joints.
"""

from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from std_msgs.msg import Float64, Float64MultiArray

from dysl_vla_ros.control.joint_commander import JointCommand
from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.interfaces import JOINT_POSITION, PolicyDescription
from dysl_vla_ros.msg import JointAction, JointActionChunk
from dysl_vla_ros.nodes.lifecycle_guard import GuardedLifecycleNode
from dysl_vla_ros.nodes.outputs import RELIABLE, InferenceRecord, Make, Outputs, command_qos
from dysl_vla_ros.robot_contract import ARRAY, TRAJECTORY
from dysl_vla_ros.settings import ControlSettings


class JointOutputs(Outputs):
    """The node's publishers where the policy moves joints; see :class:`~dysl_vla_ros.nodes.outputs.Outputs`.

    Args:
        message: what ``~/joint_command`` carries: ``joint_trajectory`` or ``float64_multi_array``.
    """

    topic = "joint command"
    last_command = "last command"

    def __init__(
        self, node: GuardedLifecycleNode, description: PolicyDescription, control: ControlSettings, message: str
    ) -> None:
        """Create the publishers, silent until the node is active.

        Raises:
            SettingError: trajectories are wanted, and their package is not installed.
        """
        self._message = message
        super().__init__(node, description, control)

    def _make_commands(self, make: Make, control: ControlSettings) -> None:
        commands = command_qos(control.rate)
        self._trajectory = None if self._message == ARRAY else trajectory_messages()
        kind = self._trajectory[0] if self._trajectory else Float64MultiArray
        self._commanded = make(kind, "~/joint_command", commands)
        if self._description.action.gripper:
            self._gripper = make(Float64, "~/gripper", commands)
        self._action = make(JointAction, "~/joint_action", RELIABLE)
        self._chunk = make(JointActionChunk, "~/joint_action_chunk", RELIABLE)

    def command(self, command: Any, now: int, episode: int, image_stamp: Any, control: ControlSettings) -> None:
        """Publish one control tick: joint command where one is known, gripper unless it holds, action.

        Args:
            command: what the joints are told: a :class:`JointCommand`. A target that is not known is not published.
            now: ns, ROS clock: the stamp of the action.
            episode: number of the episode.
            image_stamp: of the image that the action answers; None: it answers none.
            control: in force; its period is the time to reach a target in.
        """
        assert isinstance(command, JointCommand), "another kind of action has outputs of its own"
        spec = self._description.action
        told = command.positions if self._positions else command.velocities
        finite = np.isfinite(command.velocities).all() and (told is None or np.isfinite(told).all())
        assert finite and (command.gripper is None or np.isfinite(command.gripper)), "the commander lets no NaN pass"
        if told is not None:
            self._commanded.publish(self._command_message(told.tolist(), 1.0 / control.rate))
        if command.gripper is not None:
            self._gripper.publish(Float64(data=float(command.gripper)))
        action = JointAction(
            version=JointAction.VERSION,
            kind=spec.kind,
            names=list(spec.joints),
            positions=[] if command.positions is None else command.positions.tolist(),
            velocities=command.velocities.tolist(),
            **self._action_fields(command, episode, image_stamp),
        )
        action.header.stamp = Time(sec=now // 10**9, nanosec=now % 10**9)
        self._action.publish(action)

    @property
    def _positions(self) -> bool:
        return self._description.action.kind == JOINT_POSITION

    def _command_message(self, values: list[float], period: float) -> Any:
        if self._trajectory is None:
            return Float64MultiArray(data=values)
        trajectory, point = self._trajectory
        nanoseconds = round(period * 1e9)
        one = point(time_from_start=Duration(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9))
        if self._positions:
            one.positions = values
        else:
            one.velocities = values
        return trajectory(joint_names=list(self._description.action.joints), points=[one])

    def _publish_chunk(self, record: InferenceRecord) -> None:
        spec = self._description.action
        message = JointActionChunk(
            version=JointActionChunk.VERSION,
            kind=spec.kind,
            names=list(spec.names),
            units=list(spec.units),
            actions=record.result.chunk.actions.ravel().tolist(),
            **self._chunk_fields(record),
        )
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._chunk.publish(message)


def trajectory_messages() -> tuple[Any, Any]:
    """Return the types JointTrajectory and JointTrajectoryPoint.

    Raises:
        SettingError: their package is not installed.
    """
    try:
        from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
    except ImportError as error:
        raise SettingError(
            f"robot.action.message is {TRAJECTORY!r}, and trajectory_msgs cannot be imported ({error}): install it, or "
            f"set robot.action.message to {ARRAY!r} for a forward_command_controller"
        ) from error
    return JointTrajectory, JointTrajectoryPoint
