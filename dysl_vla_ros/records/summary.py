"""``summary.json``: what a set of episodes comes to, per task and instruction and over all.

A mean of layers is a mean of layer *calls*: the layers that a verification ran count too. ``verify`` has percentiles
over the verified inferences only, every other timing over all. A figure that nothing was measured for is null.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.files import write_json
from dysl_vla_ros.records.trace import TIMINGS, EpisodeRecord, InferenceRecord

FORMAT_VERSION = 1


def summarise(episodes: Sequence[EpisodeRecord], *, complete: bool = True, **about: Any) -> dict[str, Any]:
    """Return the summary as plain values for JSON.

    Args:
        episodes: played episodes, in any order; instructions keep the order in which they first come.
        complete: false where the run was cut short.
        about: further entries (checkpoint, seed, machine), written before the figures.
    """
    groups: dict[tuple[str, str], list[EpisodeRecord]] = {}
    for episode in episodes:
        groups.setdefault((episode.task, episode.instruction), []).append(episode)
    return {
        "format_version": FORMAT_VERSION,
        "complete": complete,
        **about,
        "tasks": [
            {"task": task, "instruction": instruction, **_figures(group), "allow_points": allow_points(group)}
            for (task, instruction), group in groups.items()
        ],
        "overall": _figures(episodes),
    }


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write a summary, whole or not at all."""
    write_json(path, summary)


def allow_points(episodes: Sequence[EpisodeRecord]) -> list[dict[str, Any]]:
    """Count, per block, how often each layer was its skipping-allow point.

    Returns:
        One entry a block: ``first`` (its first dynamic layer), ``end`` (one past its last; there the block is closed)
        and ``counts``, one number for each position from ``first`` to ``end``.
    """
    blocks = next((episode.blocks for episode in episodes if episode.blocks), ())
    histograms = []
    for block, (first, end) in enumerate(blocks):
        points = [inference.trace.allow_points[block] for episode in episodes for inference in episode.inferences]
        counts = [points.count(layer) for layer in range(first, end + 1)]
        histograms.append({"first": first, "end": end, "counts": counts})
    return histograms


def timings(inferences: Sequence[InferenceRecord]) -> dict[str, dict[str, float | None]]:
    """Return p50 and p99 of every timing, in milliseconds; null where nothing was measured."""
    table = {}
    for name in TIMINGS:
        values = np.array([inference.milliseconds(name) for inference in inferences], dtype=np.float64)
        values = values[np.isfinite(values)]
        p50, p99 = np.percentile(values, (50, 99)) if values.size else (None, None)
        table[name] = {"p50": rounded(p50), "p99": rounded(p99)}
    return table


def seams(inferences: Sequence[InferenceRecord]) -> dict[str, float | None]:
    """Return p50, p95 and the largest seam between chunks, normalised, before it is bounded; null where none met."""
    met = np.array([inference.seam for inference in inferences if np.isfinite(inference.seam)])
    p50, p95, largest = np.percentile(met, (50, 95, 100)) if met.size else (None, None, None)
    return {"p50": rounded(p50), "p95": rounded(p95), "max": rounded(largest)}


def _figures(episodes: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Return the figures that a task and the whole have in common."""
    inferences = [inference for episode in episodes for inference in episode.inferences]
    successes = sum(episode.success for episode in episodes)
    seconds = sum(episode.seconds for episode in episodes if episode.inferences)
    played = [episode for episode in episodes if episode.inferences]
    return {
        "episodes": len(episodes),
        "successes": successes,
        "success_rate": rounded(successes / len(episodes)) if episodes else None,
        "ticks_mean": mean([episode.ticks for episode in episodes]),
        "inferences": len(inferences),
        "rate": rounded(len(inferences) / seconds) if seconds else None,
        "layers_mean": mean([inference.trace.layer_calls for inference in inferences]),
        **layer_medians((list(episode.layer_calls), episode.fetching) for episode in played),
        "layers_std_within": mean([float(np.std(episode.layer_calls)) for episode in played]),
        "layers_total": max((episode.layers_total for episode in episodes), default=0),
        "verified_share": mean([inference.trace.verified for inference in inferences]),
        "missed_deadlines": sum(inference.missed_deadline for inference in inferences),
        "stopped_ticks": sum(sum(episode.stops.values()) for episode in episodes),
        "seams": seams(inferences),
        "timings": timings(inferences),
    }


def layer_medians(episodes: Iterable[tuple[Sequence[int], int]]) -> dict[str, float | None]:
    """Return median layer calls before and after the task's object was moved; null where there was no such inference.

    On the board the hand fetches the puck before, and the goal decides after.

    Args:
        episodes: of each the layer calls of its inferences, and how many of these were before.
    """
    played = list(episodes)
    before = [call for calls, fetching in played for call in calls[:fetching]]
    after = [call for calls, fetching in played for call in calls[fetching:]]
    return {
        "layers_median_fetching": float(np.median(before)) if before else None,
        "layers_median_moving": float(np.median(after)) if after else None,
    }


def mean(values: Sequence[float] | NDArray[Any]) -> float | None:
    """Return the mean, or null where there is nothing to average."""
    return rounded(float(np.mean(values))) if len(values) else None


def rounded(value: float | None) -> float | None:
    """Keep four digits after the point: more than any of these figures is known to."""
    return None if value is None else round(float(value), 4)
