"""Action statistics that an arm can mean: what a file says of centre and scale is looked at before it moves anything.

The bounds are fixed, far above any arm's own speed, and no setting moves them: a user's limit says how fast this arm
may go, these say what cannot be an action at all. They are those of the settings ``safety.max_linear_speed`` and
``safety.max_angular_speed`` at their highest.
"""

import math

from dysl_vla_ros.interfaces import ActionSpec

LARGEST_LINEAR_SPEED = 5.0  # m/s
LARGEST_ANGULAR_SPEED = 20.0  # rad/s
LARGEST_OPENING = 2.0  # an opening goes from 0 to 1; statistics of a mean and a deviation reach beyond it
TIME_STEPS = (0.001, 10.0)  # s
LARGEST_HORIZON = 4096
AXES = ("x", "y", "z")


def action_faults(spec: ActionSpec, where: str = "action") -> list[str]:
    """Return what no end-effector delta action can be, each with its key; empty: nothing.

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
    sizes = {name: len(values) for name, values in (("center", spec.center), ("scale", spec.scale))}
    faults += [
        f"{where}.{name} has {size} values, expected {spec.dimensions} where has_rotation is {spec.has_rotation}"
        for name, size in sizes.items()
        if size != spec.dimensions
    ]
    for name, values in (("center", spec.center), ("scale", spec.scale)):
        faults += [f"{where}.{name}[{i}] is {v}, not finite" for i, v in enumerate(values) if not math.isfinite(v)]
    faults += [f"{where}.scale[{i}] is {value}, must be above 0" for i, value in enumerate(spec.scale) if value <= 0.0]
    return faults or _motion_faults(spec, where)


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
