"""How far two series of actions lie apart: millimetres, degrees, gripper opening; over all and by phase.

What lies apart depends on the kind of action (:func:`measures`). By phase, because what skipping may cost depends on
it: free motion forgives, a grasp does not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.interfaces import END_EFFECTOR_DELTA, END_EFFECTOR_POSE, JOINT_VELOCITY, ActionSpec
from dysl_vla_ros.joint_units import DEGREES, ENDS, METRES, RADIANS
from dysl_vla_ros.poses import poses, turn
from dysl_vla_ros.records.phases import PHASES, Actions, openings


@dataclass(frozen=True)
class Measure:
    """One way in which actions lie apart."""

    name: str  # key among figures, unit included
    words: str  # what lies apart
    unit: str
    apart: Callable[[Actions, Actions], NDArray[np.float64]]  # of actions (..., A), physical units -> (...)
    digits: int = 2
    over: str = ""  # what the unit is over, for titles


def measures(action: ActionSpec) -> tuple[Measure, ...]:
    """Return how actions of a policy lie apart; the first one leads: charts and criteria go by it.

    Of an end effector: translation in mm over one action, of poses position in mm; rotation in degrees, gripper
    opening. Of joints the one that lies furthest apart: turning joints in degrees, sliding ones in mm, those given as
    shares of a range in percent of it (of velocities each a second); gripper opening.
    """
    if action.kind == END_EFFECTOR_DELTA:
        return (
            Measure("translation_mm", "translation", "mm", translation_mm, over=" over one action"),
            Measure("rotation_degrees", "rotation", "degrees", rotation_degrees),
            Measure("gripper", "gripper", "opening", gripper_opening, 3),
        )
    if action.kind == END_EFFECTOR_POSE:
        found = [
            Measure("position_mm", "position", "mm", _between_poses(action, 0)),
            Measure("rotation_degrees", "rotation", "degrees", _between_poses(action, 1)),
        ]
        gripper = [Measure("gripper", "gripper", "opening", _opening(action), 3)] if action.gripper else []
        return (*found, *gripper)
    name, unit = ("_per_s", "/s") if action.kind == JOINT_VELOCITY else ("", "")
    kinds = (
        ("joint_degrees", "joints", "degrees", (RADIANS, DEGREES)),
        ("joint_mm", "sliding joints", "mm", (METRES,)),
        ("joint_percent", "joints in shares of their range", "%", tuple(ENDS)),
    )
    found = []
    for key, words, own_unit, units in kinds:
        places = [index for index in action.joint_indices if action.units[index] in units]
        if places:
            found.append(Measure(key + name, words, own_unit + unit, _furthest(action, places)))
    if action.gripper:
        found.append(Measure("gripper", "gripper", "opening", _opening(action), 3))
    return tuple(found)


def _opening(action: ActionSpec) -> Callable[[Actions, Actions], NDArray[np.float64]]:
    """Return the distance of the gripper's openings, 0 to 1."""

    def apart(one: Actions, other: Actions) -> NDArray[np.float64]:
        first, second = (openings(values.astype(np.float64), action) for values in (one, other))
        assert first is not None and second is not None
        return np.asarray(np.abs(first - second))

    return apart


def _between_poses(action: ActionSpec, part: int) -> Callable[[Actions, Actions], NDArray[np.float64]]:
    """Return the distance of positions in mm (part 0), or of orientations in degrees (part 1)."""

    def apart(one: Actions, other: Actions) -> NDArray[np.float64]:
        first, second = (poses(values, action.names)[part] for values in (one, other))
        way, factor = (second - first, 1e3) if part == 0 else (turn(first, second), np.degrees(1.0))
        return np.asarray(np.linalg.norm(way, axis=-1) * factor)

    return apart


def _furthest(action: ActionSpec, places: Sequence[int]) -> Callable[[Actions, Actions], NDArray[np.float64]]:
    """Return the largest distance among some joints, in degrees, mm or percent of their range."""
    shown = {RADIANS: np.degrees(1.0), DEGREES: 1.0, METRES: 1e3}
    shown |= {unit: 100.0 / (last - first) for unit, (first, last) in ENDS.items()}
    factor = np.array([shown[action.units[index]] for index in places])

    def apart(one: Actions, other: Actions) -> NDArray[np.float64]:
        return np.asarray(np.max(np.abs(one[..., places].astype(np.float64) - other[..., places]) * factor, axis=-1))

    return apart


def translation_mm(one: Actions, other: Actions) -> NDArray[np.float64]:
    """Return the distance of the translations of actions (..., A), in mm over one action."""
    return np.linalg.norm(one[..., :3].astype(np.float64) - other[..., :3], axis=-1) * 1e3


def rotation_degrees(one: Actions, other: Actions) -> NDArray[np.float64]:
    """Return the angle between the rotations of actions (..., A), in degrees; 0 where they have none."""
    if one.shape[-1] < 7:
        return np.zeros(one.shape[:-1])
    first, second = (quaternions(actions[..., 3:6].astype(np.float64)) for actions in (one, other))
    # both signs of a quaternion are one rotation; the angle by its sine, because the arccos of nearly 1 is inexact
    apart = np.minimum(np.linalg.norm(first - second, axis=-1), np.linalg.norm(first + second, axis=-1))
    return np.degrees(4.0 * np.arcsin(np.minimum(apart / 2.0, 1.0)))


def quaternions(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rotation vectors (..., 3) in rad as quaternions (..., 4), w first."""
    half = np.linalg.norm(vectors, axis=-1, keepdims=True) / 2.0
    return np.concatenate([np.cos(half), vectors / 2.0 * np.sinc(half / np.pi)], axis=-1)


def gripper_opening(one: Actions, other: Actions) -> NDArray[np.float64]:
    """Return the difference of the gripper's target opening (0 to 1) of actions (..., A)."""
    return np.abs(one[..., -1].astype(np.float64) - other[..., -1])


def normalised_distance(one: Actions, other: Actions, action: ActionSpec) -> NDArray[np.float64]:
    """Return the distance that ranks moments, normalised: translation (or joints), rotation and gripper, added up.

    Rotations of poses lie apart by their angle in rad.
    """
    apart = action.normalise(one).astype(np.float64) - action.normalise(other)
    if action.kind == END_EFFECTOR_POSE:
        places, gripper = list(action.joint_indices[:3]), action.gripper_index
        rotation = turn(*(poses(values, action.names)[1] for values in (one, other)))
        parts = [apart[..., places], rotation, apart[..., [] if gripper is None else [gripper]]]
    else:
        parts = [apart[..., places] for places in action.motion_parts]
    moving, turning, gripping = (np.linalg.norm(part, axis=-1) for part in parts)
    return np.asarray(moving + turning + np.nan_to_num(gripping))


def figures(
    one: Actions, other: Actions, phase: NDArray[Any], measured: Sequence[Measure], **further: NDArray[Any]
) -> dict[str, Any]:
    """Return mean, p50, p95 and max of every deviation, over all moments and in each phase.

    Args:
        one: (n, A) actions.
        other: (n, A) what they are compared with; rows of NaN are left out.
        phase: (n,) of each moment, places in :data:`PHASES`.
        measured: the policy's :func:`measures`.
        further: (n,) more deviations of the same moments.
    """
    columns = {measure.name: measure.apart(one, other) for measure in measured} | further
    table = {"all": _spread(columns, np.ones(len(one), bool))}
    table |= {name: _spread(columns, phase == number) for number, name in enumerate(PHASES)}
    return table


def _spread(columns: dict[str, NDArray[Any]], chosen: NDArray[Any]) -> dict[str, Any]:
    first = next(iter(columns.values()))
    found: dict[str, Any] = {"moments": int(np.sum(chosen & np.isfinite(first)))}
    for name, column in columns.items():
        values = column[chosen]
        values = values[np.isfinite(values)]
        if not values.size:
            found[name] = None
            continue
        p50, p95 = np.percentile(values, (50, 95))
        found[name] = {"mean": float(values.mean()), "p50": float(p50), "p95": float(p95), "max": float(values.max())}
    return found
