"""What a foreign checkpoint does not say of the arm, put together from what the user says: names, units, kind, time.

Sizes that differ from the checkpoint's features, and cameras that only one of both has, are refused: nothing is
guessed, and no camera is ever replaced by a black picture.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dysl_vla_ros.errors import ContractError
from dysl_vla_ros.interfaces import (
    END_EFFECTOR_DELTA,
    END_EFFECTOR_POSE,
    GRIPPER_OPENING,
    ActionSpec,
    PolicyDescription,
    ProprioceptionSpec,
)
from dysl_vla_ros.joint_units import ENDS, GRIPPER_UNITS, JOINT_UNITS, range_faults
from dysl_vla_ros.policies.action_statistics import action_faults
from dysl_vla_ros.poses import COLUMNS, POSITION, STATE_TURN, is_unused
from dysl_vla_ros.robot_contract import RobotContract, draft

OPEN = "..."  # what is to be filled in
OPEN_KIND = "... # joint_position, joint_velocity, end_effector_delta or end_effector_pose"
OPEN_GRIPPER = "... # the one of these names that is the gripper's opening; no line where none is"
# value of proprioception of the end effector -> its unit
POSE = dict.fromkeys(POSITION, "m") | dict.fromkeys(STATE_TURN, "rad")
POSE |= dict.fromkeys(("ee.qx", "ee.qy", "ee.qz", "ee.qw", *COLUMNS), "1")


class Features(Protocol):
    """What a checkpoint's files say of its inputs and outputs: how many there are."""

    @property
    def type(self) -> str:
        """The family."""
        ...

    @property
    def cameras(self) -> Collection[str]:
        """Names of the pictures that it was trained with."""
        ...

    @property
    def state_size(self) -> int:
        """Values of proprioception."""
        ...

    @property
    def action_size(self) -> int:
        """Values of an action."""
        ...

    @property
    def implied(self) -> Mapping[str, Any]:
        """What the files say of the actions' meaning, as fields of a contract; drafts have it filled in."""
        ...

    def contradictions(self, action: ActionSpec) -> list[str]:
        """Return where what the user says of the actions is not what the files say."""
        ...

    def where(self, part: str) -> str:
        """Return which file says it, and under which key, of ``cameras``, ``state`` or ``action``."""
        ...

    def center_and_scale(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return what ``normalised = (action - center) / scale`` is made with."""
        ...


@dataclass(frozen=True)
class Meaning:
    """What goes in and out of a policy."""

    cameras: tuple[str, ...]
    proprioception: ProprioceptionSpec
    action: ActionSpec
    unit_sizes: tuple[float, ...] = ()  # (A,) that the library's actions are multiplied with; (): not at all


def meaning_of(folder: Features, said: RobotContract, horizon: int) -> Meaning:
    """Put folder and contract together.

    Raises:
        ContractError: an entry is missing or does not fit; every one is named, with the block to fill in.
    """
    state, action = proprioception_of(folder, said), action_of(folder, said, horizon)
    faults = [*_camera_faults(folder, said), *_state_faults(folder, said, state), *_action_faults(folder, said, action)]
    if faults:
        raise ContractError(f"{'; '.join(faults)}", contract_draft(folder, said, horizon))
    sizes = unit_sizes(said, folder.action_size) if said.action_unit_size else ()
    return Meaning(tuple(folder.cameras), state, action, sizes)


def contract_draft(folder: Features, said: RobotContract | None = None, horizon: int = 1) -> str:
    """Return the block of a parameter file that says everything, with ``...`` for what is missing."""
    said = said or RobotContract()
    implied = {name: value for name, value in folder.implied.items() if not getattr(said, name)}
    said = dataclasses.replace(said, **implied)
    action, state = action_of(folder, said, horizon), proprioception_of(folder, said)
    spec = dataclasses.replace(
        action,
        kind=action.kind or OPEN_KIND,
        names=action.names or (OPEN,) * folder.action_size,
        units=action.units or (OPEN,) * folder.action_size,
        gripper=action.gripper or OPEN_GRIPPER,
    )
    count = folder.state_size
    state = dataclasses.replace(state, names=state.names or (OPEN,) * count, units=state.units or (OPEN,) * count)
    described = PolicyDescription(folder.type, "", "", tuple(folder.cameras), state, spec, 0, (), ())
    return draft(described, said)


def proprioception_of(folder: Features, said: RobotContract) -> ProprioceptionSpec:
    """Return the state's meaning as far as it is said; a joint's range may be said of the action alone."""
    ends = []
    for own, others in ((said.state_low, said.action_low), (said.state_high, said.action_high)):
        known = dict(zip(said.action_names, others, strict=False))
        of_action = tuple(known.get(name, 0.0 if name == GRIPPER_OPENING else None) for name in said.state_names)
        ranged = any(unit in ENDS for unit in said.state_units)
        ends.append(own or (() if not ranged or None in of_action else of_action))
    return ProprioceptionSpec(said.state_names, said.state_units, _frame(said), *ends)  # type: ignore[arg-type]


def unit_sizes(said: RobotContract, count: int) -> tuple[float, ...]:
    """Return what 1.0 of each value (A,) of an action is, in the units of its meaning: 1 where nothing else is said."""
    motion = said.action_unit_size
    return (*motion, 1.0) if motion and len(motion) == count - 1 else (1.0,) * count


def action_of(folder: Features, said: RobotContract, horizon: int) -> ActionSpec:
    """Return the action's meaning as far as it is said."""
    sizes = unit_sizes(said, folder.action_size)
    center, scale = (
        tuple(size * value for size, value in zip(sizes, values, strict=True)) for values in folder.center_and_scale()
    )
    delta = said.action_kind == END_EFFECTOR_DELTA
    meaning: dict[str, Any] = {
        "names": said.action_names, "units": said.action_units, "gripper": said.action_gripper, "low": said.action_low,
        "high": said.action_high,
    }  # fmt: skip
    if delta and not said.action_names:  # of such an action everything follows from its size
        meaning = {}
    has_rotation = delta and folder.action_size == 7
    frame = said.action_frame if said.action_kind == END_EFFECTOR_POSE else _frame(said)
    return ActionSpec(horizon, said.time_step, has_rotation, center, scale, frame, kind=said.action_kind, **meaning)


def _frame(said: RobotContract) -> str:
    """Return the frame of the end effector's pose and motion."""
    return said.action_frame or "base"


def _camera_faults(folder: Features, said: RobotContract) -> list[str]:
    foreign = [name for name in said.cameras if name not in folder.cameras]
    absent = [name for name in folder.cameras if name not in said.cameras]
    where = folder.where("cameras")
    faults = [f"robot.cameras names {', '.join(foreign)}, {where} has {', '.join(folder.cameras)}"] if foreign else []
    if absent:
        faults.append(f"robot.cameras has no topic for {', '.join(absent)} of {where}; a camera is never replaced")
    return faults


def _state_faults(folder: Features, said: RobotContract, spec: ProprioceptionSpec) -> list[str]:
    where = folder.where("state")
    faults = [
        *_size_fault("robot.state.names", said.state_names, folder.state_size, where),
        *_size_fault("robot.state.units", said.state_units, folder.state_size, where),
    ]
    if faults:
        return faults
    if len(set(spec.names)) < len(spec.names) or "" in spec.names:
        return [f"robot.state.names is {list(spec.names)}, expected a name of its own for each value"]
    for name, unit in zip(spec.names, spec.units, strict=True):
        known: Sequence[str] = JOINT_UNITS
        if name == GRIPPER_OPENING:
            known = GRIPPER_UNITS
        elif name in POSE:
            known = (POSE[name],)
        elif is_unused(name):
            known = ("1",)
        if unit not in known:
            faults.append(f"robot.state.units has {unit!r:.40} for {name}, expected {', '.join(known)}")
    gripper = spec.names.index(GRIPPER_OPENING) if GRIPPER_OPENING in spec.names else None
    return faults or range_faults(spec.names, spec.units, spec.low, spec.high, "robot.state", gripper)


def _action_faults(folder: Features, said: RobotContract, spec: ActionSpec) -> list[str]:
    where = folder.where("action")
    faults = []
    motion = folder.action_size - 1
    if said.action_unit_size and said.action_kind != END_EFFECTOR_DELTA:
        faults.append(f"robot.action.unit_size is of {END_EFFECTOR_DELTA} alone")
    elif said.action_unit_size and len(said.action_unit_size) != motion:
        faults.append(
            f"robot.action.unit_size has {len(said.action_unit_size)} values, expected {motion}: of the motion, "
            "without the gripper"
        )
    if not said.action_kind:
        faults.append("robot.action.kind is not said, and no file of the checkpoint says it")
    if not said.time_step:
        faults.append("robot.action.time_step is not said, and no file of the checkpoint says it")
    if said.action_kind == END_EFFECTOR_DELTA:
        if folder.action_size not in (4, 7):
            sizes = "4 (translation, gripper) or 7 (rotation too)"
            faults.append(
                f"robot.action.kind is {END_EFFECTOR_DELTA}, of {sizes} values; {where} has {folder.action_size}"
            )
    else:
        faults += _size_fault("robot.action.names", said.action_names, folder.action_size, where)
        faults += _size_fault("robot.action.units", said.action_units, folder.action_size, where)
    if said.action_kind == END_EFFECTOR_POSE and not said.action_frame:
        faults.append("robot.action.frame is not said, and no file of the checkpoint says which frame its poses are in")
    return faults or folder.contradictions(spec) or action_faults(spec, "robot.action")


def _size_fault(name: str, said: Sequence[str], wanted: int, where: str) -> list[str]:
    if not said:
        return [f"{name} is not said, and no file of the checkpoint says it ({where} has {wanted} values)"]
    return [f"{name} has {len(said)} values, {where} has {wanted}"] if len(said) != wanted else []
