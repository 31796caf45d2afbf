"""What the user says of an arm that a checkpoint does not say, or says too: ``robot.*`` and ``safety.joint.*``.

Read when the node is configured. What both say must agree; what neither says refuses to configure: no motion is made of
a missing meaning.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.interfaces import END_EFFECTOR_DELTA, END_EFFECTOR_POSE, GRIPPER_OPENING, KINDS, PolicyDescription
from dysl_vla_ros.joint_units import ENDS

TRAJECTORY, ARRAY = "joint_trajectory", "float64_multi_array"
MESSAGES = (TRAJECTORY, ARRAY)
FIRST_STEP = 0.1  # rad or m
CAMERAS = "robot.cameras."


@dataclass(frozen=True)
class JointLimits:
    """Limits of each joint that is commanded, in the order of the actions without the gripper; rad and m."""

    min_position: tuple[float, ...] = ()
    max_position: tuple[float, ...] = ()
    max_velocity: tuple[float, ...] = ()  # a second
    max_acceleration: tuple[float, ...] = ()  # a second squared
    max_first_step: float = FIRST_STEP  # of the first target after activation, from the measured position


@dataclass(frozen=True)
class RobotContract:
    """What the user says of cameras, state and action; "", (), 0.0: not said."""

    cameras: Mapping[str, str] = field(default_factory=dict)  # name in the checkpoint -> topic
    state_names: tuple[str, ...] = ()
    state_units: tuple[str, ...] = ()
    state_low: tuple[float, ...] = ()  # rad or m at the lower end of percent and range_100, a value for each name
    state_high: tuple[float, ...] = ()  # the same at the upper end
    action_kind: str = ""
    action_names: tuple[str, ...] = ()
    action_units: tuple[str, ...] = ()
    action_unit_size: tuple[float, ...] = ()  # m or rad that 1.0 of each value of a motion is; (): as they are
    action_frame: str = ""  # of absolute poses
    action_gripper: str = ""  # the one of action_names that is the gripper's opening
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    time_step: float = 0.0  # s
    message: str = TRAJECTORY  # what ~/joint_command carries
    limits: JointLimits = JointLimits()


NUMBERS, TEXTS, NUMBER, TEXT = "a list of numbers (write 1.0, not 1)", "a list of texts", "a number", "a text"
# parameter -> (what it is, where it goes, default, what it means); a list or text that is empty, and 0.0, say nothing
ENTRIES: dict[str, tuple[str, str, Any, str]] = {
    "robot.state.names": (TEXTS, "state_names", [], "the policy's proprioception in its order, as it is named there"),
    "robot.state.units": (
        TEXTS, "state_units", [],
        "a unit for each: rad, m, deg, percent, range_100; 1 of orientations; 1, percent or closing of a gripper"
    ),
    "robot.state.low": (
        NUMBERS, "state_low", [], "rad or m at the lower end of percent and range_100, a value for each name; empty: "
        "those that robot.action.low has of the same names"
    ),
    "robot.state.high": (NUMBERS, "state_high", [], "the same at the upper end"),
    "robot.action.kind": (TEXT, "action_kind", "", f"one of {', '.join(KINDS)}"),
    "robot.action.names": (TEXTS, "action_names", [], "a name for each value of an action, in the policy's order"),
    "robot.action.units": (
        TEXTS, "action_units", [],
        "a unit for each: rad, m, deg, percent, range_100; 1 of a pose's columns; 1, percent or closing of a gripper"
    ),
    "robot.action.unit_size": (
        NUMBERS, "action_unit_size", [],
        "m or rad over one action that 1.0 of each value of an end_effector_delta is, without the gripper; empty: 1"
    ),
    "robot.action.frame": (TEXT, "action_frame", "", "frame that absolute poses, and ee_pose, are in"),
    "robot.action.gripper": (TEXT, "action_gripper", "", "the one of these names that is the gripper's opening"),
    "robot.action.low": (
        NUMBERS, "action_low", [], "rad or m at the lower end of percent and range_100, a value for each name"
    ),
    "robot.action.high": (NUMBERS, "action_high", [], "the same at the upper end"),
    "robot.action.time_step": (NUMBER, "time_step", 0.0, "s that one action spans"),
    "robot.action.message": (TEXT, "message", TRAJECTORY, f"what ~/joint_command carries: {' or '.join(MESSAGES)}"),
    "safety.joint.min_position": (NUMBERS, "min_position", [], "lowest position of each joint, rad or m"),
    "safety.joint.max_position": (NUMBERS, "max_position", [], "highest position of each joint, rad or m"),
    "safety.joint.max_velocity": (NUMBERS, "max_velocity", [], "largest velocity of each joint, rad/s or m/s"),
    "safety.joint.max_acceleration": (
        NUMBERS, "max_acceleration", [], "largest acceleration of each joint, rad/s^2 or m/s^2"
    ),
    "safety.max_first_step": (
        NUMBER, "max_first_step", FIRST_STEP,
        "rad and m that the first target after activation may lie from the measured position"
    ),
}  # fmt: skip


def is_entry(name: str) -> bool:
    """Whether a parameter is one of the contract's."""
    return name in ENTRIES or is_camera(name)


def is_camera(name: str) -> bool:
    """Whether a parameter names a camera's topic."""
    return name.startswith(CAMERAS) and name != CAMERAS


def entry_fault(name: str, value: Any) -> str:
    """Return why ``value`` cannot be that entry, "" where it can: type, finiteness."""
    kind = TEXT if name.startswith(CAMERAS) else ENTRIES[name][0]
    if kind in (NUMBERS, TEXTS):
        wanted = float if kind == NUMBERS else str
        fits = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        fits = fits and all(type(item) is wanted for item in value)
    else:
        fits = type(value) is (float if kind == NUMBER else str)
    if not fits:
        return f"{name} must be {kind}, not {value!r:.80}"
    numbers = value if kind == NUMBERS else (value,) if kind == NUMBER else ()
    if not all(map(math.isfinite, numbers)):
        return f"{name} must be finite, not {value!r:.80}"
    if name == "robot.action.unit_size" and not all(it > 0.0 for it in value):
        return f"{name} must be above 0 throughout, not {value!r:.80}"
    if kind == NUMBER and (value < 0.0 or value == 0.0 != ENTRIES[name][2]):
        return f"{name} must be above 0, not {value:g}"
    if name == "robot.action.message" and value not in MESSAGES:
        return f"{name} must be one of {', '.join(MESSAGES)}, not {value!r:.40}"
    return f"{name} is empty; name a topic" if name.startswith(CAMERAS) and not value else ""


def contract_of(values: Mapping[str, Any]) -> RobotContract:
    """Make the contract of parameters by their names.

    Raises:
        SettingError: values of another type; every one is named.
    """
    if faults := [fault for name, value in values.items() if (fault := entry_fault(name, value))]:
        raise SettingError("; ".join(faults))
    own: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    cameras: dict[str, str] = {}
    for name, value in values.items():
        if name.startswith(CAMERAS):
            cameras[name[len(CAMERAS) :]] = value
            continue
        kind, key, *_ = ENTRIES[name]
        part = limits if name.startswith("safety.") else own
        if value:
            part[key] = tuple(value) if kind in (NUMBERS, TEXTS) else value
    return dataclasses.replace(RobotContract(cameras=cameras, limits=JointLimits(**limits)), **own)


def draft(description: PolicyDescription, contract: RobotContract | None = None) -> str:
    """Return the block of a parameter file that says everything, to be filled in where it has ``...``.

    Args:
        description: the policy's.
        contract: what is said already; None: nothing.
    """
    said = contract or RobotContract()
    spec, state, limits = description.action, description.proprioception, said.limits
    lines = ["/**/dysl_vla:", "  ros__parameters:", "    robot:", "      cameras:"]
    # a name with points in it is no name of a topic
    lines += [
        f"        {name}: {said.cameras.get(name, '...' if '.' in name else name)}" for name in description.cameras
    ]
    lines += ["      state:", f"        names: {_listed(state.names)}", f"        units: {_listed(state.units)}"]
    lines += _range(state.names, state.units, state.low, state.high, GRIPPER_OPENING)
    lines += ["      action:", f"        kind: {spec.kind}", f"        names: {_listed(spec.names)}"]
    lines += [
        f"        units: {_listed(spec.units)}",
        *_range(spec.names, spec.units, spec.low, spec.high, spec.gripper),
    ]
    lines += [f"        gripper: {spec.gripper}"] if spec.gripper and spec.kind != END_EFFECTOR_DELTA else []
    if spec.kind == END_EFFECTOR_POSE:
        lines += [f"        frame: {spec.frame or '...'}"]
    if said.action_unit_size:
        lines += [f"        unit_size: [{', '.join(map(_number, said.action_unit_size))}]"]
    lines += [f"        time_step: {_number(spec.time_step) if spec.time_step else '...'}"]
    if spec.moves_joints:
        lines += [f"        message: {said.message}"]
    if spec.kind != END_EFFECTOR_DELTA:
        first = limits.max_first_step if contract else FIRST_STEP
        lines += ["    safety:", f"      max_first_step: {_number(first)} # rad or m"]
    if spec.moves_joints:
        lines += [f"      joint: # in this order, without the gripper: {', '.join(spec.joints)}; rad and m"]
        for name in ("min_position", "max_position", "max_velocity", "max_acceleration"):
            values = getattr(limits, name)
            given = (
                [_number(value) for value in values] if len(values) == len(spec.joints) else ["..."] * len(spec.joints)
            )
            lines.append(f"        {name}: [{', '.join(given)}]")
    return "\n".join(lines) + "\n"


def _range(
    names: Sequence[str], units: Sequence[str], low: Sequence[float], high: Sequence[float], gripper: str
) -> list[str]:
    """Return the lines that say what both ends of ``percent`` and ``range_100`` are, where a joint has such a unit."""
    shares = [name for name, unit in zip(names, units, strict=False) if unit in ENDS and name != gripper]
    if not low and not high and not shares:
        return []
    parts = {end: values or ("...",) * len(units) for end, values in (("low", low), ("high", high))}
    return [
        f"        {name}: [{', '.join(it if isinstance(it, str) else _number(it) for it in values)}]"
        for name, values in parts.items()
    ]


def _listed(values: Iterable[str]) -> str:
    return json.dumps(list(values), ensure_ascii=False)


def _number(value: float) -> str:
    """Return a number with a point: ROS tells 1 and 1.0 apart."""
    return repr(float(value))
