"""Action statistics that an arm can mean: what a file says of centre and scale is looked at before it moves anything.

The bounds are fixed, far above any arm's own speed, and no setting moves them: a user's limit says how fast this arm
may go, these say what cannot be an action at all. They are those of the settings ``safety.max_linear_speed`` and
``safety.max_angular_speed`` at their highest.
"""

import math

import numpy as np

from dysl_vla_ros.interfaces import END_EFFECTOR_DELTA, END_EFFECTOR_POSE, JOINT_POSITION, KINDS, ActionSpec
from dysl_vla_ros.joint_units import GRIPPER_UNITS, JOINT_UNITS, METRES, SPEED_UNITS, UnitScale, range_faults
from dysl_vla_ros.poses import POSE_VALUES, POSITION, is_unused

LARGEST_LINEAR_SPEED = 5.0  # m/s
LARGEST_ANGULAR_SPEED = 20.0  # rad/s
LARGEST_OPENING = 2.0  # an opening goes from 0 to 1; statistics of a mean and a deviation reach beyond it
TIME_STEPS = (0.001, 10.0)  # s
LARGEST_HORIZON = 4096
LARGEST_COLUMN = 2.0  # columns of a rotation matrix have values from -1 to 1; statistics reach beyond it as well
LARGEST_TURN, LARGEST_DISTANCE = 10.0 * math.pi, 10.0  # rad of a turning joint, m of a sliding one, from its zero
AXES = ("x", "y", "z")


def action_faults(spec: ActionSpec, where: str = "action") -> list[str]:
    """Return what no action of its kind can be, each with its key; empty: nothing.

    Normalised actions lie from -1 to 1, so that centre and scale together are the largest motion of one time step.

    Args:
        spec: values of the right types.
        where: its key in the file.
    """
    faults = []
    shortest, longest = TIME_STEPS
    if not shortest <= spec.time_step <= longest:  # NaN too
        faults.append(f"{where}.time_step is {spec.time_step:g} s, expected {shortest:g} to {longest:g}")
    if not 1 <= spec.horizon <= LARGEST_HORIZON:
        faults.append(f"{where}.horizon is {spec.horizon}, expected 1 to {LARGEST_HORIZON}")
    faults += _meaning_faults(spec, where)
    sizes = {name: len(values) for name, values in (("center", spec.center), ("scale", spec.scale))}
    why = "" if spec.kind != END_EFFECTOR_DELTA else f" where has_rotation is {spec.has_rotation}"
    faults += [
        f"{where}.{name} has {size} values, expected {spec.dimensions}{why}"
        for name, size in sizes.items()
        if size != spec.dimensions
    ]
    for name, values in (("center", spec.center), ("scale", spec.scale)):
        faults += [f"{where}.{name}[{i}] is {v}, not finite" for i, v in enumerate(values) if not math.isfinite(v)]
    faults += [f"{where}.scale[{i}] is {value}, must be above 0" for i, value in enumerate(spec.scale) if value <= 0.0]
    if faults:
        return faults
    if spec.kind == END_EFFECTOR_POSE:
        return _pose_faults(spec, where)
    return _joint_faults(spec, where) if spec.moves_joints else _motion_faults(spec, where)


def _meaning_faults(spec: ActionSpec, where: str) -> list[str]:
    """Return what is wrong with kind, names, units and ranges."""
    if spec.kind not in KINDS:
        return [f"{where}.kind is {spec.kind!r:.40}, expected {', '.join(KINDS)}"]
    if spec.kind == END_EFFECTOR_DELTA:
        own = ActionSpec(spec.horizon, spec.time_step, spec.has_rotation, (), ())
        parts = (("names", own.names, spec.names), ("units", own.units, spec.units))
        faults = [
            f"{where}.{key} is {list(found)}, expected {list(wanted)}"
            for key, wanted, found in parts
            if wanted != found
        ]
        return faults + [f"{where}.{key} is of joints alone" for key in ("low", "high") if getattr(spec, key)]
    if not spec.names or "" in spec.names or len(set(spec.names)) < len(spec.names):
        return [f"{where}.names is {list(spec.names)}, expected a name of its own for each value"]
    if len(spec.units) != len(spec.names):
        return [f"{where}.units has {len(spec.units)} values, {where}.names {len(spec.names)}"]
    if spec.gripper and spec.gripper not in spec.names:
        return [f"{where}.gripper is {spec.gripper!r:.40}, expected one of {where}.names or an empty text"]
    if spec.kind == END_EFFECTOR_POSE:
        return _pose_meaning_faults(spec, where)
    faults = [f"{where}.has_rotation is of end effectors alone"] if spec.has_rotation else []
    if not spec.joints:
        faults.append(f"{where}.names has no joint beside the gripper")
    known = JOINT_UNITS if spec.kind == JOINT_POSITION else SPEED_UNITS
    for index, (name, unit) in enumerate(zip(spec.names, spec.units, strict=True)):
        expected = GRIPPER_UNITS if name == spec.gripper else known
        if unit not in expected:
            faults.append(f"{where}.units[{index}] of {name} is {unit!r:.40}, expected {', '.join(expected)}")
    return faults or range_faults(spec.names, spec.units, spec.low, spec.high, where, spec.gripper_index)


def _pose_meaning_faults(spec: ActionSpec, where: str) -> list[str]:
    """Return what is wrong with names and units of absolute poses."""
    faults = [f"{where}.{key} is of joints alone" for key in ("low", "high") if getattr(spec, key)]
    faults += [f"{where}.has_rotation is of {END_EFFECTOR_DELTA} alone"] if spec.has_rotation else []
    faults += [] if spec.frame else [f"{where}.frame is empty; a pose is one in a frame"]
    if absent := [name for name in POSE_VALUES if name not in spec.names or name == spec.gripper]:
        faults.append(f"{where}.names has no {', '.join(absent)}; a pose has {', '.join(POSE_VALUES)}")
    for index, (name, unit) in enumerate(zip(spec.names, spec.units, strict=True)):
        known: tuple[str, ...] = (METRES,) if name in POSITION else ("1",)
        if name == spec.gripper:
            known = GRIPPER_UNITS
        elif name not in POSE_VALUES and not is_unused(name):
            faults.append(
                f"{where}.names[{index}] is {name!r:.40}, expected {', '.join(POSE_VALUES)}, the name of "
                f"{where}.gripper, or one that begins with 'unused.' where the value commands nothing"
            )
            continue
        if unit not in known:
            faults.append(f"{where}.units[{index}] of {name} is {unit!r:.40}, expected {', '.join(known)}")
    return faults


def _pose_faults(spec: ActionSpec, where: str) -> list[str]:
    """Return which statistics no pose can have."""
    faults = []
    for index in spec.used_indices:
        name, bound, named = spec.names[index], LARGEST_COLUMN, "of a column of the rotation matrix, from -1 to 1,"
        most = abs(spec.center[index]) + spec.scale[index]
        if name in POSITION:
            bound, named = LARGEST_DISTANCE, "m of the position"
        elif name == spec.gripper:
            scale = UnitScale(spec.units, (), (), index)
            most = abs(float(scale.to_si(np.array(spec.center))[index])) + abs(scale.factor[index]) * spec.scale[index]
            bound, named = LARGEST_OPENING, "of its opening, from 0 to 1,"
        if most > bound * (1 + 1e-6):
            faults.append(
                f"{where}.center[{index}] {spec.center[index]:g} and scale[{index}] {spec.scale[index]:g} come to "
                f"{most:.3g} {named} of {name}; at most {bound:g} is taken"
            )
    return faults


def _joint_faults(spec: ActionSpec, where: str) -> list[str]:
    """Return which statistics no joint's target or speed can have, in rad and m."""
    scale = UnitScale(spec.units, spec.low, spec.high, spec.gripper_index)
    center, reach = scale.to_si(np.array(spec.center)), np.abs(scale.factor) * np.array(spec.scale)
    turning, sliding, unit = LARGEST_TURN, LARGEST_DISTANCE, ""
    if spec.kind != JOINT_POSITION:
        turning, sliding, unit = LARGEST_ANGULAR_SPEED, LARGEST_LINEAR_SPEED, "/s"
    faults = []
    for index, name in enumerate(spec.names):
        slides = spec.units[index] == METRES
        bound, named = (sliding, f"m{unit}") if slides else (turning, f"rad{unit}")
        if name == spec.gripper:
            bound, named = LARGEST_OPENING, "of its opening, from 0 to 1"
        most = abs(center[index]) + reach[index]
        if most > bound * (1 + 1e-6):
            faults.append(
                f"{where}.center[{index}] {spec.center[index]:g} and scale[{index}] {spec.scale[index]:g} in "
                f"{spec.units[index]} come to {most:.3g} {named} of {name}; at most {bound:.4g} is taken"
            )
    return faults


def _motion_faults(spec: ActionSpec, where: str) -> list[str]:
    faults = []
    *motion, gripper = zip(spec.center, spec.scale, strict=True)
    for index, (center, scale) in enumerate(motion):
        linear = index < len(AXES)
        speed = (abs(center) + scale) / spec.time_step
        bound, unit = (LARGEST_LINEAR_SPEED, "m/s") if linear else (LARGEST_ANGULAR_SPEED, "rad/s")
        if speed > bound * (1 + 1e-6):  # statistics are float32
            axis = f"{'' if linear else 'rotation '}{AXES[index % len(AXES)]}"
            faults.append(
                f"{where}.center[{index}] {center:g} and scale[{index}] {scale:g} come to {speed:.3g} {unit} of {axis} "
                f"within time_step {spec.time_step:g} s; no arm moves faster than {bound:g} {unit}"
            )
    center, scale = gripper
    if abs(center) + scale > LARGEST_OPENING:
        faults.append(
            f"{where}.center[{len(motion)}] {center:g} and scale[{len(motion)}] {scale:g} are no gripper's: "
            "its opening goes from 0 to 1"
        )
    return faults
