"""Recorded experts of the simulator as :class:`~dysl_vla_ros.runs.training_data.TrainingData`."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.simulation.tasks import Task
from dysl_vla_ros.training.dataset import Episodes, load_episodes, observations, observations_in_order


class DemonstrationData:
    """A folder that ``dysl_vla demonstrations`` wrote; the last episodes of each task are held out."""

    def __init__(self, folder: Path, tasks: Sequence[Task]) -> None:
        """Read ``tasks`` of ``folder`` when they are asked for."""
        self._folder, self._tasks = folder, tasks

    @cached_property
    def _episodes(self) -> Episodes:
        return load_episodes(self._folder, self._tasks)

    def learned_count(self, count: int) -> int:
        """Return how many observations :meth:`observations` yields of ``count``."""
        return min(count, len(self._episodes))

    def observations(self, count: int) -> Iterator[Observation]:
        """Yield ``count`` observations to learn from, all if there are fewer."""
        return observations(self._episodes, count)

    def held_out_observations(self, count: int) -> Iterator[Observation]:
        """Yield up to ``count`` observations of episodes that nothing is learned from."""
        return observations(load_episodes(self._folder, self._tasks, validation=True), count)

    def in_order(self, count: int, *, held_out: bool = False) -> tuple[Iterator[Observation], tuple[bool, ...]]:
        """Return about ``count`` observations of whole episodes, and whether each is the first of its episode."""
        episodes = load_episodes(self._folder, self._tasks, validation=True) if held_out else self._episodes
        return observations_in_order(episodes, count)

    def told(self) -> dict[str, Any]:
        """Nothing: what was recorded here needs no words of the user's."""
        return {}
