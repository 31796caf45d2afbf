"""The phases of a task, read off its actions: the gripper closes or opens, motion is slow or free.

What skipping may cost depends on them: free motion forgives, a grasp does not.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.interfaces import END_EFFECTOR_DELTA, END_EFFECTOR_POSE, ActionSpec
from dysl_vla_ros.joint_units import CLOSEDNESS, PERCENT

FREE, SLOW, CLOSING, OPENING = "free motion", "slow motion", "gripper closes", "gripper opens"
PHASES = (FREE, SLOW, CLOSING, OPENING)
SLOW_SHARE = 0.3  # of the recording's 90th percentile of speed: below it motion counts as slow, hence precise
GRIPPER_CHANGE = 0.25  # of the opening: a smaller change within the window is no closing or opening
GRIPPER_WINDOW = 0.25  # s before and after a moment

Actions = NDArray[Any]


def phases(
    speed: NDArray[np.float64], gripper: NDArray[Any] | None, times: NDArray[np.float64], episodes: NDArray[Any]
) -> NDArray[np.int8]:
    """Return the phase of each moment, as places in :data:`PHASES`.

    The gripper closes (opens) at a moment where its target falls (rises) by :data:`GRIPPER_CHANGE` or more from
    :data:`GRIPPER_WINDOW` before to as long after it, within the episode. Elsewhere motion is slow below
    :data:`SLOW_SHARE` of the 90th percentile of the recording's speeds, else free.

    Args:
        speed: (n,) of the action played first at each moment, in any unit; of a recording, at full depth.
        gripper: (n,) its target opening, 0 to 1; None: there is none.
        times: (n,) s, never falling within an episode.
        episodes: (n,) number of the episode.
    """
    found = np.full(len(speed), PHASES.index(FREE), np.int8)
    if not len(speed):
        return found
    found[speed < SLOW_SHARE * np.percentile(speed, 90)] = PHASES.index(SLOW)
    if gripper is None:
        return found
    for episode in np.unique(episodes):
        rows = np.flatnonzero(episodes == episode)
        own, target = times[rows], gripper[rows]
        before = np.searchsorted(own, own - GRIPPER_WINDOW - 1e-6)
        after = np.searchsorted(own, own + GRIPPER_WINDOW + 1e-6, side="right") - 1
        change = target[after] - target[before]
        found[rows[change <= -GRIPPER_CHANGE]] = PHASES.index(CLOSING)
        found[rows[change >= GRIPPER_CHANGE]] = PHASES.index(OPENING)
    return found


def openings(actions: Actions, action: ActionSpec) -> NDArray[Any] | None:
    """Return the gripper's target opening, 0 to 1, of actions (..., A) in physical units; None: there is none."""
    place = action.gripper_index
    if place is None:
        return None
    if action.units[place] == CLOSEDNESS:
        return np.float32(1.0) - actions[..., place]
    return actions[..., place] / np.float32(100.0 if action.units[place] == PERCENT else 1.0)


def speed_and_gripper(
    actions: Actions, times: NDArray[np.float64], episodes: NDArray[Any], action: ActionSpec
) -> tuple[NDArray[np.float64], NDArray[Any] | None]:
    """Return how fast actions (n, A) in physical units move (n,), and the target opening (n,) where there is a gripper.

    An end effector in m/s; joints in their scales a second. Absolute targets go by their way from moment to moment.
    """
    gripper = openings(actions, action)
    if action.kind == END_EFFECTOR_DELTA:
        return np.linalg.norm(actions[:, :3].astype(np.float64), axis=1) / action.time_step, gripper
    moving = list(action.joint_indices)
    scale: NDArray[np.float64] = np.asarray(action.scale, np.float64)[moving]
    if action.kind == END_EFFECTOR_POSE:
        moving, scale = moving[:3], np.ones(3)
    moved = actions[:, moving].astype(np.float64)
    if action.absolute and len(actions) > 1:
        passed = np.diff(times)
        same = (np.diff(episodes) == 0) & (passed > 0)
        moved = np.where(same, 1.0 / np.where(same, passed, 1.0), 0.0)[:, None] * np.diff(moved, axis=0)
        moved, follows = np.concatenate([moved, moved[-1:]]), np.concatenate([[False], same])
        moved[1:] = np.where(follows[1:, None], moved[:-1], moved[1:])  # the first of an episode by what follows it
    return np.linalg.norm(moved / scale, axis=1), gripper
