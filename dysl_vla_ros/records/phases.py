"""The phases of a task, read off its actions: the gripper closes or opens, motion is slow or free.

What skipping may cost depends on them: free motion forgives, a grasp does not.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FREE, SLOW, CLOSING, OPENING = "free motion", "slow motion", "gripper closes", "gripper opens"
PHASES = (FREE, SLOW, CLOSING, OPENING)
SLOW_SHARE = 0.3  # of the recording's 90th percentile of speed: below it motion counts as slow, hence precise
GRIPPER_CHANGE = 0.25  # of the opening: a smaller change within the window is no closing or opening
GRIPPER_WINDOW = 0.25  # s before and after a moment

Actions = NDArray[Any]


def phases(actions: Actions, times: NDArray[np.float64], episodes: NDArray[Any], time_step: float) -> NDArray[np.int8]:
    """Return the phase of each moment, as places in :data:`PHASES`.

    The gripper closes (opens) at a moment where its target falls (rises) by :data:`GRIPPER_CHANGE` or more from
    :data:`GRIPPER_WINDOW` before to as long after it, within the episode. Elsewhere motion is slow below
    :data:`SLOW_SHARE` of the 90th percentile of the recording's speeds, else free.

    Args:
        actions: (n, A) the action played first at each moment; of a recording, at full depth.
        times: (n,) s, never falling within an episode.
        episodes: (n,) number of the episode.
        time_step: s that an action spans.
    """
    found = np.full(len(actions), PHASES.index(FREE), np.int8)
    if not len(actions):
        return found
    speed = np.linalg.norm(actions[:, :3].astype(np.float64), axis=1) / time_step
    found[speed < SLOW_SHARE * np.percentile(speed, 90)] = PHASES.index(SLOW)
    for episode in np.unique(episodes):
        rows = np.flatnonzero(episodes == episode)
        own, gripper = times[rows], actions[rows, -1]
        before = np.searchsorted(own, own - GRIPPER_WINDOW - 1e-6)
        after = np.searchsorted(own, own + GRIPPER_WINDOW + 1e-6, side="right") - 1
        change = gripper[after] - gripper[before]
        found[rows[change <= -GRIPPER_CHANGE]] = PHASES.index(CLOSING)
        found[rows[change >= GRIPPER_CHANGE]] = PHASES.index(OPENING)
    return found
