"""An arm whose actions are absolute poses of its end effector: what the tests of such actions share."""

from collections.abc import Sequence

import numpy as np

from dysl_vla_ros.interfaces import END_EFFECTOR_POSE, ActionSpec
from dysl_vla_ros.poses import POSE_VALUES, of_vectors, pose_values

FRAME = "base"


def end_effector_poses(horizon: int = 8, gripper: bool = True, unused: int = 0) -> ActionSpec:
    """Return absolute poses: columns before the position, then a gripper's closing, then values that mean nothing."""
    names = (*POSE_VALUES[3:], *POSE_VALUES[:3], *("jaw",) * gripper, *(f"unused.{place}" for place in range(unused)))
    return ActionSpec(
        horizon,
        0.05,
        False,
        center=(0.0,) * 6 + (0.1, 0.5, 0.2) + (0.5,) * gripper + (0.0,) * unused,
        scale=(1.0,) * 6 + (0.2, 0.25, 0.1) + (0.5,) * gripper + (1.0,) * unused,
        frame=FRAME,
        kind=END_EFFECTOR_POSE,
        names=names,
        units=("1",) * 6 + ("m",) * 3 + ("closing",) * gripper + ("1",) * unused,
        gripper="jaw" if gripper else "",
    )


def action_at(
    spec: ActionSpec, position: Sequence[float], turn: Sequence[float] = (0.0, 0.0, 0.0), closing: float = 0.5
) -> np.ndarray:
    """Return the action (A,) that goes to a position (m) turned by a rotation vector (rad)."""
    values = pose_values(np.array(position, float), of_vectors(np.array(turn, float)))
    values |= {"jaw": closing}
    return np.array([values.get(name, 0.0) for name in spec.names], np.float32)
