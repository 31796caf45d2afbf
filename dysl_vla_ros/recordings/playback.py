"""A policy in bag time: as if it were driving, with its own chunks.

Between two inferences it has played so many actions of its own last chunk as action time steps went by in the
recording. That is what its guidance observes.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from dysl_vla_ros.interfaces import ActionSpec, FloatArray, Observation, PolicyDescription, StepResult
from dysl_vla_ros.recordings.moments import Moment
from dysl_vla_ros.settings import RuntimeSettings


class Steps(Protocol):
    """A policy that can be stepped: a :class:`~dysl_vla_ros.runtime.step.Runtime` here, or one that is elsewhere."""

    @property
    def description(self) -> PolicyDescription:
        """What the outside must know of it."""

    def reset(self) -> None:
        """Begin an episode."""

    def step(
        self, observation: Observation, played: FloatArray, settings: RuntimeSettings, gaps: Sequence[int] = ()
    ) -> StepResult:
        """Compute one action chunk."""


class Playback:
    """Counts which actions of the newest chunk were played in bag time."""

    def __init__(self, action: ActionSpec) -> None:
        """Begin with no chunk."""
        self._action = action
        self.begin(0.0)

    def begin(self, clock: float) -> None:
        """Begin an episode at ``clock`` (s): nothing was played."""
        self._began = clock
        self._counted = 0  # action time steps since then
        self._chunk: FloatArray | None = None  # (H, A)
        self._gap = False

    def take(self, clock: float) -> tuple[FloatArray, bool]:
        """Return the actions (n, A) played since the last call, and whether a gap lay before them.

        Time steps are counted from the episode's beginning, so that rounding does not add up. Beyond the chunk's end
        nothing is played: a gap before whatever comes next.
        """
        counted = round((clock - self._began) / self._action.time_step)
        passed, self._counted = counted - self._counted, counted
        if self._chunk is None or passed <= 0:
            return np.zeros((0, self._action.dimensions), np.float32), False
        gap, self._gap = self._gap, passed > len(self._chunk)
        return self._chunk[:passed], gap

    def offer(self, chunk: FloatArray) -> None:
        """Take the chunk (H, A) that is played from now on, from its first action."""
        self._chunk = chunk


class Player:
    """Runs a policy on moments of a recording, with the state of its own episode."""

    def __init__(self, runtime: Steps, settings: RuntimeSettings) -> None:
        """Use ``runtime`` for this player alone; policies and modules may be shared with others."""
        self.runtime, self.settings = runtime, settings
        self.description = runtime.description
        self._playback = Playback(self.description.action)

    def begin(self, clock: float) -> None:
        """Begin an episode."""
        self.runtime.reset()
        self._playback.begin(clock)

    def step(self, moment: Moment) -> tuple[StepResult, int, bool]:
        """Compute one inference; return it with the number of actions observed and whether a gap lay before them."""
        played, gap = self._playback.take(moment.clock)
        result = self.runtime.step(moment.observation, played, self.settings, gaps=(0,) if gap else ())
        self._playback.offer(result.chunk.actions)
        return result, len(played), gap
