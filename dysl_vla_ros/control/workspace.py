"""Keeps the end effector inside a box: motion that would leave it is clipped, motion back into it never. numpy only.

Each axis by itself, so that the arm slides along a wall. The room that is left is judged from the position last
measured, over the time since that measurement and the coming tick: an arm that nears a wall slows down in front of it.
Only the end effector's own point is kept inside, no link, tool or held object. Not a safety-rated function.
"""

from dataclasses import dataclass

import numpy as np

from dysl_vla_ros.control.seam import ROUNDING, Vector
from dysl_vla_ros.interfaces import ActionSpec, ProprioceptionSpec
from dysl_vla_ros.settings import SafetySettings

POSITION = ("ee.x", "ee.y", "ee.z")


@dataclass(frozen=True, eq=False)
class Place:
    """Where the end effector was."""

    position: Vector  # (3,) m, in the frame of the actions
    age: float  # s since it was measured


def kept_inside(
    velocity: Vector, place: Place | None, tick: float, safety: SafetySettings
) -> tuple[Vector, tuple[str, ...]]:
    """Clip one tick of motion.

    Args:
        velocity: (3,) m/s.
        place: where the end effector was last; None: unknown, and nothing moves.
        tick: s that the velocity will hold.
        safety: the box.

    Returns:
        (3,) m/s, ``velocity`` itself where nothing is clipped, and the names of the walls that acted.
    """
    if not safety.workspace_box:
        return velocity, ()
    if place is None:
        return np.zeros(3), ("safety.workspace_box",)
    clipped, acted = velocity.copy(), []
    time = place.age + tick
    for axis, (low, high) in enumerate(box(safety)):
        slowest = -max(place.position[axis] - low, 0.0) / time
        fastest = max(high - place.position[axis], 0.0) / time
        if velocity[axis] < slowest * (1.0 + ROUNDING):
            clipped[axis] = slowest
            acted.append(f"safety.workspace_min_{'xyz'[axis]}")
        elif velocity[axis] > fastest * (1.0 + ROUNDING):
            clipped[axis] = fastest
            acted.append(f"safety.workspace_max_{'xyz'[axis]}")
    return (clipped, tuple(acted)) if acted else (velocity, ())


def box(safety: SafetySettings) -> tuple[tuple[float, float], ...]:
    """Return (low, high) in m for x, y, z."""
    return tuple((getattr(safety, f"workspace_min_{axis}"), getattr(safety, f"workspace_max_{axis}")) for axis in "xyz")


def empty_axes(safety: SafetySettings) -> str:
    """Return what is wrong with the box itself, "" where every axis has room."""
    faults = [
        f"safety.workspace_min_{axis} is {low:g} m and safety.workspace_max_{axis} {high:g} m: the first must be below"
        for axis, (low, high) in zip("xyz", box(safety), strict=True)
        if low >= high
    ]
    return "; ".join(faults) + (" (set both at once with set_parameters_atomically)" if faults else "")


def unsuitable_policy(safety: SafetySettings, proprioception: ProprioceptionSpec, action: ActionSpec) -> str:
    """Return why the box cannot be enabled with a policy, "" where it can or is not."""
    if not safety.workspace_box:
        return ""
    if absent := [name for name in POSITION if name not in proprioception.names]:
        return (
            f"safety.workspace_box needs the end effector's position; the policy does not declare {', '.join(absent)}, "
            f"its proprioception is {', '.join(proprioception.names) or 'nothing'}: leave it false"
        )
    if proprioception.frame != action.frame:
        return (
            f"safety.workspace_box needs position and actions in one frame; the policy has {proprioception.frame!r} "
            f"and {action.frame!r}: leave it false"
        )
    return ""
