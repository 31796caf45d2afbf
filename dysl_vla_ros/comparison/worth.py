"""What dynamic depth is worth: each method's depth over all sets alike, beside the best constant depths.

Layer calls of an inference are a mean over episodes, then over tasks, then over sets: a set of many or long episodes
does not count for more. Both passes of a verified inference count.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.comparison.constant_floors import CHOICES
from dysl_vla_ros.comparison.episode_figures import EpisodeFigures
from dysl_vla_ros.comparison.methods.registry import method_named
from dysl_vla_ros.comparison.plan import Entry
from dysl_vla_ros.comparison.run import Played
from dysl_vla_ros.comparison.table import of_tasks
from dysl_vla_ros.records.intervals import paired_difference
from dysl_vla_ros.records.summary import rounded
from dysl_vla_ros.simulation.tasks import Task

RESAMPLES = 2000  # of the scenes of each task, for the interval of a ratio (Efron's percentile bootstrap)
PARTS = {"all": "", "board": "board"}  # of the sets, by how their names begin

Cells = Mapping[str, Sequence[NDArray[np.float64]]]  # by set: of each of its tasks (scenes,), one value an episode


def worth_of(played: Played) -> dict[str, Any]:
    """Return it as plain values.

    Returns:
        ``sets``, their names; ``methods``, one entry each: ``layers_mean`` over all sets; ``stack_speedup``, full
        depth's mean milliseconds over the method's, each a mean as of layers (null without ``full``, and of a bound);
        ``sets``, of each ``layers_mean``, ``success`` and ``difference`` to full depth with its paired interval;
        ``ratios``, of each constant depth that was played and each part of the sets (``all``, ``board``) layer calls
        over its layer calls, with a 95% interval over scenes, which both share.
    """
    sets = played.comparison.tasks
    return {"sets": list(sets), "methods": [_method(played, entry, sets) for entry in played.episodes]}


def _method(played: Played, entry: Entry, sets: Mapping[str, Sequence[Task]]) -> dict[str, Any]:
    full = entry.full
    timed = full in played.episodes and not method_named(entry.method).bound
    constants = [each for name in CHOICES if (each := entry._replace(method=name)) in played.episodes and each != entry]
    own = _cells(played, entry, sets, _layers)
    return {
        "method": entry.method,
        "actions_per_inference": entry.m,
        "runtime": entry.runtime,
        "layers_mean": rounded(_mean(own)),
        "stack_speedup": _speedup(played, entry, full, sets) if timed else None,
        "sets": {name: _set(played, entry, full, tasks, own[name]) for name, tasks in sets.items()},
        "ratios": {
            other.method: {
                part: _ratio(own, _cells(played, other, sets, _layers), begin)
                for part, begin in PARTS.items() if any(name.startswith(begin) for name in sets)
            }
            for other in constants
        },
    }  # fmt: skip


def _set(
    played: Played, entry: Entry, full: Entry, tasks: Sequence[Task], cells: Sequence[NDArray[np.float64]]
) -> dict[str, Any]:
    ended = [own.success for own in of_tasks(played.episodes[entry], tasks)]
    found: dict[str, Any] = {
        "layers_mean": rounded(float(np.mean([cell.mean() for cell in cells]))),
        "success": rounded(float(np.mean(ended))),
        "difference": None,
    }
    if full in played.episodes and entry != full:
        at_full = [own.success for own in of_tasks(played.episodes[full], tasks)]
        found["difference"] = [rounded(value) for value in paired_difference(ended, at_full)]
    return found


def _speedup(played: Played, entry: Entry, full: Entry, sets: Mapping[str, Sequence[Task]]) -> float | None:
    one, other = (_mean(_cells(played, own, sets, _stack_ms)) for own in (full, entry))
    return rounded(one / other)


def _layers(episode: EpisodeFigures) -> float:
    return float(np.mean(episode.layer_calls))


def _stack_ms(episode: EpisodeFigures) -> float:
    return float(np.mean(episode.stack_ms))


def _cells(
    played: Played, entry: Entry, sets: Mapping[str, Sequence[Task]], value: Callable[[EpisodeFigures], float]
) -> Cells:
    """Take a value of every episode that had an inference."""
    return {
        name: [
            np.array([value(own) for own in of_tasks(played.episodes[entry], [task]) if own.layer_calls])
            for task in tasks
        ]
        for name, tasks in sets.items()
    }


def _mean(cells: Cells, begin: str = "") -> float:
    return float(np.mean([np.mean([cell.mean() for cell in own]) for name, own in cells.items()
                          if name.startswith(begin)]))  # fmt: skip


def _ratio(one: Cells, other: Cells, begin: str) -> dict[str, float | None]:
    """Return the ratio of two means with its interval: scenes are drawn anew, the same for both."""
    one_mean, other_mean = (_resampled_mean(cells, begin) for cells in (one, other))
    low, high = np.percentile(one_mean / other_mean, (2.5, 97.5))
    return {
        "ratio": rounded(_mean(one, begin) / _mean(other, begin)),
        "low": rounded(float(low)),
        "high": rounded(float(high)),
    }


def _resampled_mean(cells: Cells, begin: str) -> NDArray[np.float64]:
    """Return the mean (RESAMPLES,) of drawn scenes: the same ones for every method of a comparison."""
    random = np.random.default_rng(0)

    def resampled(cell: NDArray[np.float64]) -> NDArray[np.float64]:
        return cell[random.integers(len(cell), size=(RESAMPLES, len(cell)))].mean(1)

    return np.mean(
        [np.mean([resampled(cell) for cell in own], axis=0) for name, own in cells.items() if name.startswith(begin)],
        axis=0,
    )
