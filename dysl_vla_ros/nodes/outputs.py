"""What the node says: publishers from configure to cleanup, and the making of their messages."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TwistStamped, Vector3
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64, String

from dysl_vla_ros.control.commander import AnyCommand, Command
from dysl_vla_ros.interfaces import PolicyDescription, StepResult
from dysl_vla_ros.msg import ActionChunk as ActionChunkMessage
from dysl_vla_ros.msg import EndEffectorAction, SkipReport
from dysl_vla_ros.nodes.lifecycle_guard import GuardedLifecycleNode
from dysl_vla_ros.readings import instruction_hash
from dysl_vla_ros.settings import ControlSettings

RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
DEADLINE_PERIODS = 2  # of control.rate; offered on the commands, so that a consumer may ask for it


@dataclass(frozen=True)
class InferenceRecord:
    """One finished inference, for ``~/action_chunk``, ``~/skip_report`` and the statistics."""

    result: StepResult
    episode: int
    inference: int  # number within the episode, from 1
    instruction: str
    image_stamp: Any  # builtin_interfaces/Time of the first camera
    first_index: int  # place in the chunk of the first action that can still be played
    convert_ms: float
    transfer_ms: float
    total_ms: float  # from the start of the request to the reply
    image_age_ms: float  # from the image's stamp to the reply, ROS clock
    missed_deadline: bool
    seam: float  # normalised action units, NaN: none


def command_qos(rate: float) -> QoSProfile:
    """Return the profile of command topics: reliable, newest only, with a deadline."""
    return QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.VOLATILE,
        deadline=Duration(seconds=DEADLINE_PERIODS / rate),
    )


Make = Callable[[type, str, QoSProfile], Any]


class Outputs:
    """The node's publishers. Its owner calls every method under the control loop's lock.

    Attributes:
        topic: what the commands are called in texts.
        last_command: what leaving active sends last.
    """

    topic = "twist"
    last_command = "zero twist"

    def __init__(self, node: GuardedLifecycleNode, description: PolicyDescription, control: ControlSettings) -> None:
        """Create the publishers, silent until the node is active."""
        self._node = node
        self._description = description
        self.publishers: list[Any] = []

        def make(kind: type, topic: str, qos: QoSProfile) -> Any:
            self.publishers.append(node.create_lifecycle_publisher(kind, topic, qos))
            return self.publishers[-1]

        try:
            self._make_commands(make, control)
            self._report = make(SkipReport, "~/skip_report", RELIABLE)
            self._instruction = make(String, "~/instruction", LATCHED)
        except BaseException:
            self.destroy()
            raise

    def _make_commands(self, make: Make, control: ControlSettings) -> None:
        """Make the publishers that are of this kind of action; the first one commands the arm."""
        commands = command_qos(control.rate)
        self._twist = make(TwistStamped, "~/twist", commands)
        self._gripper = make(Float64, "~/gripper", commands)
        self._action = make(EndEffectorAction, "~/action", RELIABLE)
        self._chunk = make(ActionChunkMessage, "~/action_chunk", RELIABLE)

    def destroy(self) -> None:
        """Take every publisher off the graph; each of them, even where another one fails, which a second call tries."""
        with contextlib.ExitStack() as parts:
            for publisher in reversed(self.publishers):
                parts.callback(self._destroy, publisher)

    def _destroy(self, publisher: Any) -> None:
        self._node.destroy_lifecycle_publisher(publisher)
        self.publishers.remove(publisher)

    def wait_for_command_acked(self, limit: float) -> bool:
        """Wait until every consumer has the last command, at most ``limit`` seconds; false if one has not."""
        return bool(self.publishers[0].wait_for_all_acked(Duration(seconds=limit)))

    def instruction(self, text: str) -> None:
        """Publish the instruction in force, "" for none: it may have come by a topic, a parameter or a launch."""
        self._instruction.publish(String(data=text))

    def command(self, command: Any, now: int, episode: int, image_stamp: Any, control: ControlSettings) -> None:
        """Publish one control tick: twist, gripper unless it holds, action.

        Args:
            command: what the arm is told, of the kind that these outputs are for: here a :class:`Command`.
            now: ns, ROS clock: the moment by which the command was judged, and its stamp.
            episode: number of the episode.
            image_stamp: of the image that the action answers; None: it answers none.
            control: in force; says the frame of the command.
        """
        assert isinstance(command, Command), "another kind of action has outputs of its own"
        finite = np.isfinite(command.linear).all() and np.isfinite(command.angular).all()
        assert finite and (command.gripper is None or np.isfinite(command.gripper)), "the commander lets no NaN pass"
        frame = control.command_frame or self._description.action.frame
        twist = TwistStamped()
        twist.header.stamp = Time(sec=now // 10**9, nanosec=now % 10**9)
        twist.header.frame_id = frame
        twist.twist.linear = vector(command.linear)
        twist.twist.angular = vector(command.angular)
        self._twist.publish(twist)
        if command.gripper is not None:
            self._gripper.publish(Float64(data=float(command.gripper)))
        action = EndEffectorAction(
            version=EndEffectorAction.VERSION,
            translation=vector(command.translation),
            rotation=vector(command.rotation),
            **self._action_fields(command, episode, image_stamp),
        )
        action.header = twist.header
        self._action.publish(action)

    def _action_fields(self, command: AnyCommand, episode: int, image_stamp: Any) -> dict[str, Any]:
        """Return what the message of a command says whatever its kind."""
        answers = {} if image_stamp is None or command.reason else {"image_stamp": image_stamp}
        return answers | {
            "episode": episode,
            "inference": command.inference if not command.reason else 0,
            "gripper": float("nan") if command.gripper is None else float(command.gripper),
            "time_step": float(self._description.action.time_step),
            "chunk_index": command.index,
            "chunk_length": command.chunk_length,
            "first_tick": command.first_tick,
            "verified": command.verified,
            "limits": list(command.limits),
            "stop_reason": command.reason,
        }

    @staticmethod
    def _chunk_fields(record: InferenceRecord) -> dict[str, Any]:
        """Return what the message of a chunk says whatever its kind."""
        chunk = record.result.chunk
        return {
            "image_stamp": record.image_stamp,
            "episode": record.episode,
            "inference": record.inference,
            "time_step": float(chunk.time_step),
            "horizon": len(chunk.actions),
            "first_index": min(max(record.first_index, 0), len(chunk.actions)),
            "verified": chunk.verified,
        }

    def inference(self, record: InferenceRecord) -> None:
        """Publish one inference: the chunk as the policy gave it, and the skip report."""
        self._publish_chunk(record)
        self._publish_report(record)

    def _publish_chunk(self, record: InferenceRecord) -> None:
        spec, chunk = self._description.action, record.result.chunk
        message = ActionChunkMessage(
            version=ActionChunkMessage.VERSION,
            translation=chunk.actions[:, :3].ravel().tolist(),
            rotation=chunk.actions[:, 3:6].ravel().tolist() if spec.has_rotation else [],
            gripper=chunk.actions[:, -1].tolist(),
            **self._chunk_fields(record),
        )
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.header.frame_id = spec.frame
        self._chunk.publish(message)

    def _publish_report(self, record: InferenceRecord) -> None:
        trace, timings, described = record.result.trace, record.result.timings, self._description
        message = SkipReport(
            version=SkipReport.VERSION,
            image_stamp=record.image_stamp,
            episode=record.episode,
            inference=record.inference,
            model_hash=described.model_hash,
            instruction_hash=instruction_hash(record.instruction),
            layers_total=trace.layers_total,
            layer_calls=trace.layer_calls,
            executed=[bool(ran) for ran in trace.executed],
            block_first=[first for first, _ in described.blocks],
            block_end=[end for _, end in described.blocks],
            allow_points=list(trace.allow_points),
            skip_points=list(trace.skip_points),
            controller_outputs=[float(output) for output in trace.controller_outputs],
            full_depth_reason=trace.full_depth_reason,
            continuity=float(trace.continuity),
            continuity_change=float(trace.continuity_change),
            candidate_change=float(trace.candidate_change),
            verified=trace.verified,
            verify_reason=trace.verify_reason,
            budget_cut=trace.budget_cut,
            actions_to_play=record.result.chunk.actions_to_play,
            convert_ms=float(record.convert_ms),
            transfer_ms=float(record.transfer_ms),
            vision_ms=float(timings.vision),
            stack_ms=float(timings.stack),
            head_ms=float(timings.head),
            verify_ms=float(timings.verify),
            total_ms=float(record.total_ms),
            image_age_ms=float(record.image_age_ms),
            missed_deadline=record.missed_deadline,
            seam=float(record.seam),
        )
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._report.publish(message)


def vector(values: Any) -> Vector3:
    """Return three numbers as a message."""
    return Vector3(x=float(values[0]), y=float(values[1]), z=float(values[2]))
