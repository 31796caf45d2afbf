"""``table.json``: one row a method and set of tasks; what was played on two runtimes beside each other.

A difference is to ``full`` on the same scenes at the same m and on the same runtime (``Entry.full``), with Newcombe's
paired interval (``intervals``). Inferences are those of an episode; layer calls and milliseconds are those of an
inference. Layer calls and stack milliseconds count the verification's pass. The speed-up of the stack is the mean at
full depth over the method's mean, both of this run and measured in turns. The oracle's milliseconds are null: what its
look costs is not counted. What nobody knows is null.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dysl_vla_ros.comparison.episode_figures import EpisodeFigures
from dysl_vla_ros.comparison.methods.registry import method_named
from dysl_vla_ros.comparison.plan import Entry
from dysl_vla_ros.comparison.run import Played
from dysl_vla_ros.records.intervals import paired_difference, wilson
from dysl_vla_ros.records.machine import commit, machine, versions
from dysl_vla_ros.records.summary import mean, rounded
from dysl_vla_ros.simulation.tasks import Task

FORMAT_VERSION = 1
FIELDS = (
    "method", "tasks", "actions_per_inference", "runtime", "episodes", "successes", "success_low", "success_high",
    "difference", "difference_low", "difference_high", "inferences_mean", "layers_total", "layers_mean",
    "layers_std_within", "verified_share", "stack_ms_p50", "stack_ms_mean", "stack_ms_p99", "step_ms_p50",
    "step_ms_mean", "step_ms_p99", "stack_speedup", "trainable_parameters", "training_steps", "training_seconds",
)  # fmt: skip


def table_of(played: Played, checkpoint: str) -> dict[str, Any]:
    """Return ``table.json`` as plain values."""
    evaluation = played.comparison.evaluation
    return {
        "format_version": FORMAT_VERSION,
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "checkpoint": checkpoint,
        "tasks": {name: [task.name for task in tasks] for name, tasks in played.comparison.tasks.items()},
        "first_seed": evaluation.first_seed,
        "seeds": evaluation.seeds,
        "max_ticks": evaluation.max_ticks,
        "delay": evaluation.delay,
        "condition": evaluation.condition,
        "slow_down": evaluation.real_time.slow_down if evaluation.real_time else None,
        "chunk": evaluation.chunk,
        "methods": [
            _row(played, entry, name, tasks)
            for name, tasks in played.comparison.tasks.items()
            for entry in played.episodes
        ],
        "runtimes": paired_runtimes(played),
    }


def paired_runtimes(played: Played) -> list[dict[str, Any]]:
    """Return how far apart both runtimes are on the same scenes, for each method that was played on both.

    Returns:
        One entry a method and set of tasks, and one over all sets (``tasks`` null) where there are several:
        ``difference`` of success, the other runtime's less torch's, with its paired 95% interval; ``apart``, how many
        episodes ended another way; ``same_layers_share``, of the episodes those with the same layer calls in every
        inference; ``step_speedup``, torch's mean milliseconds of a step over the other's.
    """
    sets = list(played.comparison.tasks.items())
    groups: list[tuple[str | None, Sequence[Task]]] = [*sets]
    if len(sets) > 1:
        groups.append((None, [task for _, tasks in sets for task in tasks]))
    return [
        _pair(entry, name, of_tasks(played.episodes[entry], tasks), of_tasks(played.episodes[entry.on_torch], tasks))
        for entry in played.episodes if entry != entry.on_torch and entry.on_torch in played.episodes
        for name, tasks in groups
    ]  # fmt: skip


def _pair(
    entry: Entry, tasks: str | None, one: Sequence[EpisodeFigures], other: Sequence[EpisodeFigures]
) -> dict[str, Any]:
    assert [(a.task, a.seed) for a in one] == [(b.task, b.seed) for b in other], "the scenes are the same"
    difference, low, high = paired_difference([own.success for own in one], [own.success for own in other])
    steps = [[value for episode in side for value in episode.step_ms] for side in (other, one)]
    timed = all(steps) and not method_named(entry.method).bound
    return {
        "method": entry.method,
        "runtime": entry.runtime,
        "tasks": tasks,
        "actions_per_inference": entry.m,
        "episodes": len(one),
        "successes": sum(own.success for own in one),
        "successes_torch": sum(own.success for own in other),
        "difference": rounded(difference),
        "difference_low": rounded(low),
        "difference_high": rounded(high),
        "apart": sum(a.success != b.success for a, b in zip(one, other, strict=True)),
        "same_layers_share": mean([float(a.layer_calls == b.layer_calls) for a, b in zip(one, other, strict=True)]),
        "step_speedup": rounded(float(np.mean(steps[0]) / np.mean(steps[1]))) if timed else None,
    }


def of_tasks(episodes: Sequence[EpisodeFigures], tasks: Sequence[Task]) -> list[EpisodeFigures]:
    """Return the episodes of some tasks, in their order."""
    names = {task.name for task in tasks}
    return [episode for episode in episodes if episode.task in names]


def layer_figures(episodes: Sequence[EpisodeFigures]) -> dict[str, Any]:
    """Return depth over all inferences, its deviation within an episode, and the share verified."""
    calls = [call for episode in episodes for call in episode.layer_calls]
    verified = [flag for episode in episodes for flag in episode.verified]
    return {
        "layers_total": max((episode.layers_total for episode in episodes), default=0),
        "layers_mean": mean(calls),
        "layers_std_within": mean([float(np.std(own.layer_calls)) for own in episodes if own.layer_calls]),
        "verified_share": mean(verified),
    }


def _row(played: Played, entry: Entry, set_name: str, tasks: Sequence[Task]) -> dict[str, Any]:
    episodes = of_tasks(played.episodes[entry], tasks)
    successes = sum(episode.success for episode in episodes)
    low, high = wilson(successes, len(episodes))
    trained = played.trained[entry, set_name]
    row = {
        "method": entry.method,
        "tasks": set_name,
        "actions_per_inference": entry.m,
        "runtime": entry.runtime,
        "episodes": len(episodes),
        "successes": successes,
        "success_low": rounded(low),
        "success_high": rounded(high),
        **_difference(played, entry, tasks),
        "inferences_mean": mean([len(episode.layer_calls) for episode in episodes]),
        **layer_figures(episodes),
        **_milliseconds(played, entry, tasks),
        "trainable_parameters": trained.parameters,
        "training_steps": trained.steps,
        "training_seconds": trained.seconds,
    }
    assert tuple(row) == FIELDS
    return row


def _difference(played: Played, entry: Entry, tasks: Sequence[Task]) -> dict[str, float | None]:
    full = entry.full
    if full not in played.episodes or entry == full:
        return {"difference": None, "difference_low": None, "difference_high": None}
    one, other = (of_tasks(played.episodes[own], tasks) for own in (entry, full))
    assert [(a.task, a.seed) for a in one] == [(b.task, b.seed) for b in other], "the scenes are the same"
    difference, low, high = paired_difference([own.success for own in one], [own.success for own in other])
    return {"difference": rounded(difference), "difference_low": rounded(low), "difference_high": rounded(high)}


def _milliseconds(played: Played, entry: Entry, tasks: Sequence[Task]) -> dict[str, float | None]:
    episodes, clock = (of_tasks(own[entry], tasks) for own in (played.episodes, played.clocks))
    found: dict[str, float | None] = {}
    for name in ("stack_ms", "step_ms"):
        bound = method_named(entry.method).bound
        values = [] if bound else [value for episode in episodes for value in getattr(episode, name)]
        p50, p99 = np.percentile(values, (50, 99)) if values else (None, None)
        found |= {f"{name}_p50": rounded(p50), f"{name}_mean": mean(values), f"{name}_p99": rounded(p99)}
    full = [value for episode in clock for value in episode.stack_ms]
    own = found["stack_ms_mean"]
    return found | {"stack_speedup": rounded(float(np.mean(full)) / own) if own and full else None}
