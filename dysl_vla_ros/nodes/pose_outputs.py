"""What the node says of a policy that gives absolute poses: a pose to be at one control period from now, and why.

``~/pose_command`` is for whatever takes a geometry_msgs/PoseStamped as a target that is renewed all the time: a
Cartesian controller, or MoveIt Servo in its pose mode.
"""

import math
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, PoseStamped, Quaternion
from geometry_msgs.msg import Pose as PoseMessage
from std_msgs.msg import Float64

from dysl_vla_ros.control.pose_commander import PoseCommand
from dysl_vla_ros.control.pose_limits import Pose
from dysl_vla_ros.msg import PoseAction, PoseActionChunk
from dysl_vla_ros.nodes.outputs import RELIABLE, InferenceRecord, Make, Outputs, command_qos, vector
from dysl_vla_ros.settings import ControlSettings


class PoseOutputs(Outputs):
    """The node's publishers where the policy gives absolute poses; see :class:`~dysl_vla_ros.nodes.outputs.Outputs`."""

    topic = "pose command"
    last_command = "last pose"

    def _make_commands(self, make: Make, control: ControlSettings) -> None:
        commands = command_qos(control.rate)
        self._commanded = make(PoseStamped, "~/pose_command", commands)
        if self._description.action.gripper:
            self._gripper = make(Float64, "~/gripper", commands)
        self._action = make(PoseAction, "~/pose_action", RELIABLE)
        self._chunk = make(PoseActionChunk, "~/pose_action_chunk", RELIABLE)

    def command(self, command: Any, now: int, episode: int, image_stamp: Any, control: ControlSettings) -> None:
        """Publish one control tick: pose where one is known, gripper unless it holds, action.

        Args:
            command: where the end effector is told to be: a :class:`PoseCommand`. A pose that is not known is not
                published.
            now: ns, ROS clock: the stamp of pose and action.
            episode: number of the episode.
            image_stamp: of the image that the action answers; None: it answers none.
            control: in force; says the frame of the command.
        """
        assert isinstance(command, PoseCommand), "another kind of action has outputs of its own"
        values = [command.linear, command.angular]
        values += [command.pose.position, command.pose.orientation] if command.pose else []
        finite = all(np.isfinite(part).all() for part in values)
        assert finite and (command.gripper is None or np.isfinite(command.gripper)), "the commander lets no NaN pass"
        told = PoseStamped(pose=pose_message(command.pose))
        told.header.stamp = Time(sec=now // 10**9, nanosec=now % 10**9)
        told.header.frame_id = control.command_frame or self._description.action.frame
        if command.pose is not None:
            self._commanded.publish(told)
        if command.gripper is not None:
            self._gripper.publish(Float64(data=float(command.gripper)))
        action = PoseAction(
            version=PoseAction.VERSION,
            pose=told.pose,
            linear=vector(command.linear),
            angular=vector(command.angular),
            **self._action_fields(command, episode, image_stamp),
        )
        action.header = told.header
        self._action.publish(action)

    def _publish_chunk(self, record: InferenceRecord) -> None:
        spec = self._description.action
        message = PoseActionChunk(
            version=PoseActionChunk.VERSION,
            names=list(spec.names),
            units=list(spec.units),
            actions=record.result.chunk.actions.ravel().tolist(),
            **self._chunk_fields(record),
        )
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.header.frame_id = spec.frame
        self._chunk.publish(message)


def pose_message(pose: Pose | None) -> PoseMessage:
    """Return a pose as a message: NaN where there is none."""
    position, orientation = (pose.position, pose.orientation) if pose else ([math.nan] * 3, [math.nan] * 4)
    return PoseMessage(
        position=Point(**dict(zip("xyz", map(float, position), strict=True))),
        orientation=Quaternion(**dict(zip("xyzw", map(float, orientation), strict=True))),
    )
