"""Sets up what depends on calibration scenes and on the depth of ``dysl``: once for each set of tasks and each m."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from dysl_vla_ros.comparison.matching import best_plan, nearest_layers, oracle_threshold, skip_probability
from dysl_vla_ros.comparison.methods import Library, Matched
from dysl_vla_ros.comparison.plan import Comparison, Entry
from dysl_vla_ros.comparison.run_folder import RunFolder
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.evaluation.closed_loop import full_depth_runs
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.runtime.folder import CALIBRATION
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import GuidanceSettings
from dysl_vla_ros.simulation.seeds import CALIBRATION_SEEDS

PaperGuidance = Callable[[Runtime, Sequence[FullDepthRun], int], GuidanceSettings]
"""Finds thresholds for the paper's guidance on full-depth runs at m (``distillation.paper_guidance``)."""

MeasureSignals = Callable[[Runtime, Sequence[FullDepthRun], int], Mapping[str, Mapping[str, float | None]]]
"""Says what each signal knows of the floor's error on full-depth runs at m (``distillation.signals``)."""


def group_name(tasks: str, m: int) -> str:
    """Return the name of a group: ``easy@1``."""
    return f"{tasks}@{m}"


class MatchedGroups:
    """What was set, by group; kept in the run's folder, so that a resumed run plays under the same."""

    def __init__(
        self,
        comparison: Comparison,
        library: Library,
        folder: RunFolder,
        jobs: int,
        paper: PaperGuidance,
        signals: MeasureSignals,
    ) -> None:
        self._comparison, self._library, self._folder = comparison, library, folder
        self._jobs, self._paper, self._signals = jobs, paper, signals
        self._runs: dict[tuple[str, int], list[FullDepthRun]] = {}
        self.groups = {name: _from_json(values) for name, values in folder.matched().items()}

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
        if "dysl_paper" in methods and own.paper is None:
            own = replace(own, paper=self._paper_guidance(m))
        own = self._set_equal_depth(own, methods, tasks, m)
        runs = self._runs.get((tasks, m))
        if runs and own.signals is None and (runtime := self._runtime()).policy.initial_state() is None:
            own = replace(own, signals=self._signals(runtime, runs, m))
        return own

    def _set_equal_depth(self, own: Matched, methods: set[str], tasks: str, m: int) -> Matched:
        if not methods & {"fixed", "random", "oracle"}:
            return own
        runtime = self._runtime()
        assert runtime.dysl is not None
        partition = runtime.dysl.partition
        if "random" in methods and own.probability is None:
            assert own.depth is not None
            own = replace(own, probability=skip_probability(partition, own.depth))
        if "fixed" in methods and own.plan is None:
            assert own.depth is not None
            choice = best_plan(runtime, self._calibration_runs(tasks, m), m, nearest_layers(partition, own.depth))
            own = replace(own, plan=choice.plan, plan_choice=choice.how)
        if "oracle" in methods and own.oracle_threshold is None:
            own = replace(own, oracle_threshold=self._oracle_threshold(runtime, own.depth, tasks, m))
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
        dysl = Entry("dysl", m)
        seeds = range(comparison.evaluation.first_seed, comparison.evaluation.first_seed + comparison.evaluation.seeds)
        played = [self._folder.read(dysl.label, task.name, s) for task in comparison.tasks[tasks] for s in seeds]
        return float(np.mean([call for episode in played if episode for call in episode.layer_calls]))

    def _oracle_threshold(self, runtime: Runtime, depth: float | None, tasks: str, m: int) -> float:
        if self._comparison.oracle_threshold is not None:
            return self._comparison.oracle_threshold
        runs = self._calibration_runs(tasks, m)
        if runs and depth is not None and runtime.policy.initial_state() is None:
            return oracle_threshold(runtime, runs, m, depth)
        options = self._comparison.options
        folder = Path(options.adapters) if options.adapters else Path(options.checkpoint) / "dysl"
        calibration = json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))
        tolerated = calibration.get("chosen", {}).get("tolerated_error")
        if tolerated is None:
            raise DataError(
                f"{folder / CALIBRATION} has no tolerated error for the oracle; name a threshold by "
                "--oracle-threshold, or let calibration runs be played (--calibration-seeds)"
            )
        return float(tolerated)

    def _paper_guidance(self, m: int) -> GuidanceSettings | None:
        """Return guidance for the paper's stride; None: the folder's own, because it was calibrated for that."""
        options = self._comparison.options
        runtime = self._library.with_adapters(options.checkpoint, options.paper_adapters or options.adapters)
        assert runtime.dysl is not None
        calibrated = runtime.dysl.calibrated
        if calibrated.get("stride") == "paper" and calibrated.get("verify_on") == "first":
            return None
        runs = [run for tasks in self._comparison.tasks for run in self._calibration_runs(tasks, m)]
        if not runs:
            return None
        return self._paper(runtime, runs, m)

    def _runtime(self) -> Runtime:
        return self._library.with_adapters(self._comparison.options.checkpoint, self._comparison.options.adapters)

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
                tasks=tuple(comparison.tasks[tasks]),
                condition="plain",  # methods are set up without knowing what they will meet
            )
            print(f"setting methods up on full-depth runs, {settings.seeds} of each {tasks} task ...", flush=True)
            self._runs[tasks, m], _ = full_depth_runs(settings, self._jobs)
        return self._runs[tasks, m]


def _from_json(values: Mapping[str, Any]) -> Matched:
    paper, plan = values["paper"], values["plan"]
    return Matched(
        **{
            **values,
            "paper": GuidanceSettings(**paper) if paper else None,
            "plan": tuple(plan) if plan is not None else None,
        }
    )
