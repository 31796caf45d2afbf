"""``results.json``: where in a task layers went, what held controllers back, what verification corrected; by task too.

Phases are read off the actions that the method itself played (``phases``): the gripper closes (grasp) or opens
(release), motion is slow (contact, precision), or it is free.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dysl_vla_ros.comparison.episode_figures import EpisodeFigures
from dysl_vla_ros.comparison.methods.registry import METHODS, method_named
from dysl_vla_ros.comparison.run import Played
from dysl_vla_ros.comparison.table import layer_figures, of_tasks
from dysl_vla_ros.comparison.worth import worth_of
from dysl_vla_ros.records.intervals import Z
from dysl_vla_ros.records.phases import FREE, PHASES
from dysl_vla_ros.records.summary import layer_medians, mean, rounded


def results_of(played: Played) -> dict[str, Any]:
    """Return ``results.json`` as plain values: what calibration scenes gave for each set and m, one entry a row of the
    table, and what depth is worth over all sets (``worth``).

    Of calibration scenes: what methods of equal depth were set to, and what each signal knows of the floor's error
    (``calibration.signals``; null where no calibration runs were played).
    """
    groups = {
        name: {
            "depth": matched.depth,
            **{key: matched.values.get(key) for method in METHODS for key in method_named(method).sets},
            "signals": matched.signals,
        }
        for name, matched in played.groups.items()
    }
    rows = []
    for set_name, tasks in played.comparison.tasks.items():
        for entry, episodes in played.episodes.items():
            own = of_tasks(episodes, tasks)
            rows.append(
                {
                    "method": entry.method,
                    "tasks": set_name,
                    "actions_per_inference": entry.m,
                    "runtime": entry.runtime,
                    **decisions(own),
                    "by_task": [_task(task.name, of_tasks(own, [task])) for task in tasks],
                }
            )
    return {"set": groups, "methods": rows, "worth": worth_of(played)}


def decisions(episodes: Sequence[EpisodeFigures]) -> dict[str, Any]:
    """Return what decided on the depth of these episodes of one method.

    Returns:
        ``phases``: for each phase the inferences, their mean layer calls and the share verified.
        ``layers_beyond_free``: see :func:`layers_beyond_free`. ``allow_points``: as
        in a summary, one histogram a block. ``held_back_share``: of the inferences whose depth was up to the method,
        those in which the prior kept a controller from being asked. ``corrections``: how far verified actions lie from
        the first pass's, L1 of the played actions, normalised.
    """
    phase = np.array([place for episode in episodes for place in episode.phases], dtype=int)
    calls = np.array([call for episode in episodes for call in episode.layer_calls], dtype=float)
    verified = np.array([flag for episode in episodes for flag in episode.verified], dtype=float)
    ruled = sum(episode.ruled for episode in episodes)
    corrections = [value for episode in episodes for value in episode.corrections]
    return {
        "inferences": len(calls),
        "phases": {
            name: {
                "inferences": int(np.sum(phase == number)),
                "layers_mean": mean(calls[phase == number]),
                "verified_share": mean(verified[phase == number]),
            }
            for number, name in enumerate(PHASES)
        },
        "layers_beyond_free": layers_beyond_free(episodes),
        "allow_points": _allow_points(episodes),
        "held_back_share": rounded(sum(episode.held_back for episode in episodes) / ruled) if ruled else None,
        "verified_share": mean(verified),
        "corrections": _spread(corrections),
    }


def layers_beyond_free(episodes: Sequence[EpisodeFigures]) -> dict[str, float | int | None]:
    """Say whether depth follows importance: layer calls around grasp, release and in slow motion, less free motion's.

    Returns:
        ``mean`` of the episodes' own differences with its 95% interval (``low``, ``high``: normal), over the
        ``episodes`` that have both kinds of motion; null where there are too few.
    """
    apart = []
    for episode in episodes:
        free = np.array(episode.phases) == PHASES.index(FREE)
        if free.any() and not free.all():
            calls = np.array(episode.layer_calls, float)
            apart.append(calls[~free].mean() - calls[free].mean())
    if len(apart) < 2:
        return {"mean": None, "low": None, "high": None, "episodes": len(apart)}
    middle, half = float(np.mean(apart)), Z * float(np.std(apart, ddof=1)) / len(apart) ** 0.5
    return {
        "mean": rounded(middle),
        "low": rounded(middle - half),
        "high": rounded(middle + half),
        "episodes": len(apart),
    }


def _allow_points(episodes: Sequence[EpisodeFigures]) -> list[dict[str, Any]]:
    blocks = episodes[0].blocks if episodes else []
    return [
        {
            "first": first,
            "end": end,
            "counts": np.sum([episode.allow_points[block] for episode in episodes], axis=0).tolist(),
        }
        for block, (first, end) in enumerate(blocks)
    ]


def _spread(values: Sequence[float]) -> dict[str, float | None] | None:
    if not values:
        return None
    p50, p95 = np.percentile(values, (50, 95))
    return {"mean": mean(values), "p50": rounded(p50), "p95": rounded(p95), "max": rounded(max(values))}


def _task(name: str, episodes: Sequence[EpisodeFigures]) -> dict[str, Any]:
    return {
        "task": name,
        "episodes": len(episodes),
        "successes": sum(episode.success for episode in episodes),
        "ticks_mean": mean([episode.ticks for episode in episodes]),
        **layer_figures(episodes),
        **moments(episodes),
    }


def moments(episodes: Sequence[EpisodeFigures]) -> dict[str, float | None]:
    """Return the :func:`layer_medians` of episodes; those that an earlier release played do not know them."""
    return layer_medians((own.layer_calls, own.fetching) for own in episodes if own.fetching >= 0)
