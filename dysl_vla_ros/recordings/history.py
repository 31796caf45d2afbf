"""What a bag tells of the run that it recorded: the node's episodes, the scene's, and the actions that were played.

Read in a pass of its own before the pictures, because an action is recorded after the picture that it answers; kept
are a few numbers a message.
"""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from dysl_vla_ros.errors import BagError
from dysl_vla_ros.interfaces import (
    END_EFFECTOR_DELTA,
    END_EFFECTOR_POSE,
    JOINT_POSITION,
    ActionSpec,
    FloatArray,
    PolicyDescription,
)
from dysl_vla_ros.joint_units import UnitScale
from dysl_vla_ros.poses import POSE_VALUES, pose_values
from dysl_vla_ros.readings import nanoseconds
from dysl_vla_ros.recordings.topics import Served

TWIST_REACH = 2  # action time steps after a frame within which the twist that answers it must come
SOURCES = {  # where recorded actions are taken from, the first that is there
    "action_chunk": "the policy's chunks as recorded",
    "action": "the commands as recorded, after the limits",
    "twist": "the twist and gripper commands as recorded",
    "joint_action_chunk": "the policy's chunks as recorded",
    "joint_action": "the commands as recorded, after the limits",
    "pose_action_chunk": "the policy's chunks as recorded",
    "pose_action": "the commands as recorded, after the limits",
}
JOINT_ROLES = ("joint_action_chunk", "joint_action")
POSE_ROLES = ("pose_action_chunk", "pose_action")


class FrameKey(NamedTuple):
    """What names a frame: where a clock was set back, stamps come twice."""

    segment: int  # of the bag
    stamp: int  # ns, as recorded


@dataclass(frozen=True)
class RecordedAction:
    """What was played, or would have been played first, upon one frame."""

    index: int  # place in the chunk
    action: FloatArray  # (A,) physical units; NaN where it is not known


@dataclass
class History:
    """The recorded run."""

    source: str = ""  # key of SOURCES; "" where the bag has no actions
    note: str = ""  # why recorded actions could not be used
    _action: ActionSpec | None = None
    _episodes: dict[FrameKey, int] = field(default_factory=dict)  # the node's episode
    _actions: dict[FrameKey, RecordedAction] = field(default_factory=dict)
    _executed: dict[FrameKey, tuple[bool, ...]] = field(default_factory=dict)  # layers that ran
    _scenes: list[tuple[FrameKey, int]] = field(default_factory=list)  # (of the state; the scene's episode)
    _twists: list[tuple[int, FloatArray]] = field(default_factory=list)  # (ns of the bag; (6,) m/s, rad/s)
    _grippers: list[tuple[int, float]] = field(default_factory=list)  # (ns of the bag; opening)

    def episode(self, frame: FrameKey) -> int | None:
        """Return the node's episode in which a frame was first answered; None where it was not."""
        return self._episodes.get(frame)

    def scene(self, frame: FrameKey) -> int | None:
        """Return the simulated scene's episode at a frame's stamp; None where the bag does not say."""
        place = bisect.bisect_right(self._scenes, (frame, 2**62))
        return self._scenes[place - 1][1] if place and self._scenes[place - 1][0].segment == frame.segment else None

    def executed(self, frame: FrameKey) -> tuple[bool, ...] | None:
        """Return which layers the recorded run executed on a frame, where its model was this one."""
        return self._executed.get(frame)

    def action(self, frame: FrameKey, time: int) -> RecordedAction | None:
        """Return the recorded action that answers a frame received at ``time`` (ns since the bag's first message)."""
        if self.source != "twist":
            return self._actions.get(frame)
        assert self._action is not None
        place = bisect.bisect_left(self._twists, time, key=lambda entry: entry[0])
        if place == len(self._twists):
            return None
        heard, twist = self._twists[place]
        if heard - time > TWIST_REACH * self._action.time_step * 1e9:
            return None
        before = bisect.bisect_right(self._grippers, heard, key=lambda entry: entry[0])
        gripper = self._grippers[before - 1][1] if before else math.nan
        motion = twist * np.float32(self._action.time_step)
        parts = motion if self._action.has_rotation else motion[:3]
        return RecordedAction(0, np.append(parts, np.float32(gripper)).astype(np.float32))


def read_history(
    reader: Any, outputs: Mapping[str, Served], description: PolicyDescription, frames: Mapping[str, str] | None = None
) -> History:
    """Read the topics that carry commands and reports.

    Args:
        reader: an open bag.
        outputs: of :class:`~dysl_vla_ros.recordings.topics.BagTopics`.
        description: the policy that is replayed.
        frames: frame of recorded twists -> frame that the policy means by it.
    """
    action = description.action
    history = History(_action=action)
    roles = {served.topic: role for role, served in outputs.items()}
    for entry in reader.messages(list(roles)) if roles else ():
        role = roles[entry.topic]
        try:
            message = entry.message
        except BagError as error:
            history.note = str(error)
            continue
        if role == "scene_state":
            history._scenes.append((FrameKey(entry.segment, nanoseconds(message.header.stamp)), int(message.episode)))
        elif role == "gripper":
            history._grippers.append((entry.elapsed_ns, float(message.data)))
        elif role == "twist":
            _take_twist(history, entry.elapsed_ns, message, action, frames or {})
        else:
            _take_own(history, role, entry.segment, message, description)
    history._scenes.sort()
    known: dict[str, Any] = dict.fromkeys(SOURCES, history._actions) | {"twist": history._twists}
    history.source = next((source for source in SOURCES if source in outputs and known[source]), "")
    return history


def _take_twist(history: History, time: int, message: Any, action: ActionSpec, frames: Mapping[str, str]) -> None:
    if action.kind != END_EFFECTOR_DELTA:
        history.note = f"recorded twists are of an end effector, this policy's actions are {action.kind}"
        return
    found = message.header.frame_id
    if frames.get(found, found) not in ("", action.frame):
        history.note = (
            f"recorded twists are in {found!r:.60}, the policy acts in {action.frame!r}: if that is the same frame by "
            f"another name, give --frame {found}:={action.frame}"
        )
        return
    linear, angular = message.twist.linear, message.twist.angular
    values = (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)
    history._twists.append((time, np.array(values, np.float32)))


def _take_own(history: History, role: str, segment: int, message: Any, description: PolicyDescription) -> None:
    action = description.action
    frame = FrameKey(segment, nanoseconds(message.image_stamp))
    if not frame.stamp:
        return  # a stop answers no image
    history._episodes.setdefault(frame, int(message.episode))
    if role == "skip_report":
        # earlier releases named the base weights alone
        if message.model_hash in (description.model_hash, description.weights_hash):
            history._executed.setdefault(frame, tuple(map(bool, message.executed)))
    elif fault := _kind_fault(role, message, action):
        history.note = fault
    elif role in JOINT_ROLES:
        _take_joints(history, role, frame, message, action)
    elif role == "pose_action":
        _take_pose(history, frame, message, action)
    elif role == "pose_action_chunk":
        _take_named_chunk(history, frame, message, action)
    elif role == "action_chunk":
        if not math.isclose(message.time_step, action.time_step) or bool(len(message.rotation)) != action.has_rotation:
            history.note = "the recorded chunks are of another kind than this policy's actions"
            return
        rotation = message.rotation[:3]
        values = np.concatenate([message.translation[:3], rotation, message.gripper[:1]]).astype(np.float32)
        history._actions[frame] = RecordedAction(0, values)  # also over what ~/action says, which the limits changed
    elif role == "action" and message.first_tick and not message.stop_reason and frame not in history._actions:
        rotation = [message.rotation.x, message.rotation.y, message.rotation.z] if action.has_rotation else []
        moved = [message.translation.x, message.translation.y, message.translation.z]
        values = np.array([*moved, *rotation, message.gripper], np.float32)
        history._actions[frame] = RecordedAction(int(message.chunk_index), values)


def _kind_fault(role: str, message: Any, action: ActionSpec) -> str:
    """Return why recorded actions are none of this policy's, "" where they may be."""
    own = END_EFFECTOR_POSE if role in POSE_ROLES else END_EFFECTOR_DELTA
    found = message.kind if role in JOINT_ROLES else own
    if found == action.kind:
        return ""
    what = "an end effector" if found == END_EFFECTOR_DELTA else f"the kind {found!r:.40}"
    return f"the recorded actions are of {what}, this policy's are {action.kind}"


def _take_joints(history: History, role: str, frame: FrameKey, message: Any, action: ActionSpec) -> None:
    """Take what joints were told, by name: a chunk as the policy gave it, a command in rad and m."""
    if role == "joint_action_chunk":
        _take_named_chunk(history, frame, message, action)
        return
    order = _order_of(history, message.names, action.joints)
    if not order or not _begins_anew(history, frame, message):
        return
    told = message.positions if action.kind == JOINT_POSITION else message.velocities
    if len(told) != len(order):
        return
    si = np.full(action.dimensions, math.nan)
    si[list(action.joint_indices)] = np.asarray(told, np.float64)[order]
    _take_command(history, frame, message, si, action)


def _take_pose(history: History, frame: FrameKey, message: Any, action: ActionSpec) -> None:
    """Take where an end effector was told to be; what commands nothing was 0."""
    if not _begins_anew(history, frame, message):
        return
    position, orientation = message.pose.position, message.pose.orientation
    values = pose_values(
        np.array([getattr(position, axis) for axis in "xyz"]), np.array([getattr(orientation, axis) for axis in "xyzw"])
    )
    si = np.zeros(action.dimensions)
    si[list(action.joint_indices)] = [values[name] for name in POSE_VALUES]
    _take_command(history, frame, message, si, action)


def _take_named_chunk(history: History, frame: FrameKey, message: Any, action: ActionSpec) -> None:
    """Take the first action of a chunk that names its values, as the policy gave it."""
    names = message.names if len(message.units) == len(message.names) else ()
    order = _order_of(history, names, action.names)
    if not order:
        return
    units = [message.units[place] for place in order]
    if units != list(action.units) or not math.isclose(message.time_step, action.time_step):
        history.note = "the recorded chunks have other units or another time step than this policy's actions"
    elif len(message.actions) >= len(order):
        values = np.asarray(message.actions, np.float32)[order]
        history._actions[frame] = RecordedAction(0, values)  # also over what the command says, which the limits changed


def _order_of(history: History, found: Sequence[str], wanted: tuple[str, ...]) -> list[int]:
    """Return where a message has the values of these names; [] where it has others, which is noted."""
    names = list(found)
    if sorted(names) != sorted(wanted):
        history.note = f"the recorded actions are of {', '.join(names):.200}, this policy's of {', '.join(wanted)}"
        return []
    return [names.index(name) for name in wanted]


def _begins_anew(history: History, frame: FrameKey, message: Any) -> bool:
    """Whether a command plays an action for the first time, and nothing is known of its frame yet."""
    return bool(message.first_tick) and not message.stop_reason and frame not in history._actions


def _take_command(history: History, frame: FrameKey, message: Any, si: Any, action: ActionSpec) -> None:
    """Take a command (A,) in rad and m, its gripper's value that of the message."""
    if action.gripper_index is not None:
        si[action.gripper_index] = message.gripper
    scale = UnitScale(action.units, action.low, action.high, action.gripper_index)
    history._actions[frame] = RecordedAction(int(message.chunk_index), scale.from_si(si).astype(np.float32))
