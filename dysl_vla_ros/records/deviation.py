"""How far two series of actions lie apart: millimetres, degrees, gripper opening; over all and by phase.

By phase, because what skipping may cost depends on it: free motion forgives, a grasp does not.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.interfaces import ActionSpec
from dysl_vla_ros.records.phases import PHASES, Actions


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
    """Return the distance that ranks moments: lengths of translation, rotation and gripper, normalised, added up."""
    apart = action.normalise(one).astype(np.float64) - action.normalise(other)
    parts = np.linalg.norm(apart[..., :3], axis=-1) + np.linalg.norm(apart[..., 3:-1], axis=-1)
    return parts + np.nan_to_num(np.abs(apart[..., -1]))


def figures(one: Actions, other: Actions, phase: NDArray[Any], **further: NDArray[Any]) -> dict[str, Any]:
    """Return mean, p50, p95 and max of every deviation, over all moments and in each phase.

    Args:
        one: (n, A) actions.
        other: (n, A) what they are compared with; rows of NaN are left out.
        phase: (n,) of each moment, places in :data:`PHASES`.
        further: (n,) more deviations of the same moments.
    """
    columns = {
        "translation_mm": translation_mm(one, other),
        "rotation_degrees": rotation_degrees(one, other),
        "gripper": gripper_opening(one, other),
        **further,
    }
    table = {"all": _spread(columns, np.ones(len(one), bool))}
    table |= {name: _spread(columns, phase == number) for number, name in enumerate(PHASES)}
    return table


def _spread(columns: dict[str, NDArray[Any]], chosen: NDArray[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"moments": int(np.sum(chosen & np.isfinite(columns["translation_mm"])))}
    for name, column in columns.items():
        values = column[chosen]
        values = values[np.isfinite(values)]
        if not values.size:
            found[name] = None
            continue
        p50, p95 = np.percentile(values, (50, 95))
        found[name] = {"mean": float(values.mean()), "p50": float(p50), "p95": float(p95), "max": float(values.max())}
    return found
