"""Sets methods up on calibration scenes and by the depth of ``dysl``: once for each set of tasks and each m."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from dysl_vla_ros.calibration.signals import signals_of_runs
from dysl_vla_ros.comparison.methods.method import CalibrationScenes, Library, Matched
from dysl_vla_ros.comparison.methods.registry import METHODS, method_named
from dysl_vla_ros.comparison.plan import Comparison, Entry
from dysl_vla_ros.comparison.run_folder import RunFolder
from dysl_vla_ros.engines.choice import EngineChoice
from dysl_vla_ros.evaluation.closed_loop import full_depth_runs
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import actions_judged
from dysl_vla_ros.simulation.seeds import CALIBRATION_SEEDS
from dysl_vla_ros.simulation.tasks import chosen_on

LOG = logging.getLogger(__name__)


def group_name(tasks: str, m: int) -> str:
    """Return the name of a group: ``easy@1``."""
    return f"{tasks}@{m}"


class Matching:
    """What was set, by group; kept in the run's folder, so that a resumed run plays under the same."""

    def __init__(self, comparison: Comparison, library: Library, folder: RunFolder, jobs: int) -> None:
        self._comparison, self._library, self._folder, self._jobs = comparison, library, folder, jobs
        self._runs: dict[tuple[str, int], list[FullDepthRun]] = {}
        self.groups = {name: Matched(**values) for name, values in folder.matched().items()}

    def set_up(self, entries: Sequence[Entry]) -> None:
        """Set what these entries need and is not set yet.

        Raises:
            DataError: there is nothing to take the oracle's threshold from.
        """
        for m in dict.fromkeys(entry.m for entry in entries):
            methods = {entry.method for entry in entries if entry.m == m}
            for tasks in self._comparison.tasks:
                name = group_name(tasks, m)
                own = self.groups.get(name, Matched())
                if own.depth is None:
                    own = replace(own, depth=self._depth(entries, tasks, m))
                own = self._set(own, methods, tasks, m)
                self.groups[name] = own
                self._folder.keep_matched({key: asdict(value) for key, value in self.groups.items()})

    def _set(self, own: Matched, methods: set[str], tasks: str, m: int) -> Matched:
        scenes = CalibrationScenes(
            self._comparison,
            self._library,
            actions_judged(m),
            own.depth,
            runs=lambda: self._calibration_runs(tasks, m),
            runs_of_all=lambda: [run for each in self._comparison.tasks for run in self._calibration_runs(each, m)],
        )
        for name in METHODS:
            method = method_named(name)
            if name in methods and method.set_up and not own.values.keys() >= set(method.sets):
                own = replace(own, values={**own.values, **method.set_up(scenes)})
        runs = self._runs.get((tasks, m))
        if runs and own.signals is None and (runtime := self._runtime()).policy.initial_state() is None:
            own = replace(own, signals=signals_of_runs(runtime, runs, actions_judged(m)))
        return own

    def _depth(self, entries: Sequence[Entry], tasks: str, m: int) -> float | None:
        """Return the depth to come to: the given one, else the mean layer calls of ``dysl``, played by now.

        None where none of the entries waits for it.
        """
        comparison = self._comparison
        if comparison.depth is not None:
            return comparison.depth
        if not any(entry.m == m and comparison.waits_for_depth(entry) for entry in entries):
            return None
        dysl = Entry("dysl", m, comparison.runtime)
        seeds = range(comparison.evaluation.first_seed, comparison.evaluation.first_seed + comparison.evaluation.seeds)
        played = [self._folder.read(dysl.label, task.name, s) for task in comparison.tasks[tasks] for s in seeds]
        return float(np.mean([call for episode in played if episode for call in episode.layer_calls]))

    def _runtime(self) -> Runtime:
        options = self._comparison.options
        return self._library.with_adapters(options.checkpoint, options.adapters, self._comparison.runtime)

    def _calibration_runs(self, tasks: str, m: int) -> list[FullDepthRun]:
        """Play full depth on scenes of their own; once for each group."""
        comparison = self._comparison
        if not comparison.calibration_seeds:
            return []
        if (tasks, m) not in self._runs:
            settings = replace(
                comparison.evaluation,
                runtime=replace(comparison.options.settings, actions_per_inference=m),
                first_seed=CALIBRATION_SEEDS.start,
                seeds=comparison.calibration_seeds,
                checkpoint=comparison.options.checkpoint,
                adapters=comparison.options.adapters,
                tasks=tuple(chosen_on(comparison.tasks[tasks])),
                condition="plain",  # methods are set up without knowing what they will meet
                real_time=None,
                chunk=0,
                engine=EngineChoice(comparison.runtime, comparison.options.export),
            )
            LOG.info("setting methods up on full-depth runs, %d of each %s task ...", settings.seeds, tasks)
            self._runs[tasks, m], _ = full_depth_runs(settings, self._jobs)
        return self._runs[tasks, m]
