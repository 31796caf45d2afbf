"""What ``dysl_vla floors`` played, by set of tasks: from the records of ``floors.json``, plain values.

A closed-loop record has ``seeds`` (first, one behind the last), ``tasks``, ``max_ticks``, ``episodes``, ``successes``,
``successes_by_task``, and, where this release played it, ``outcomes``: for each task a character a scene, in the order
of the seeds, ``1`` for success.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dysl_vla_ros.simulation.tasks import TASK_SETS, set_of, task_named

RESULT = "floors.json"
SCENES = ("seeds", "tasks", "max_ticks")  # what makes two records of the same scenes


@dataclass(frozen=True)
class OfSet:
    """The episodes of one set of tasks."""

    tasks: tuple[str, ...]
    episodes: int
    successes: int
    outcomes: tuple[bool, ...] | None  # in the order of tasks and seeds; None where they were not kept


def of_set(record: Mapping[str, Any] | None, name: str) -> OfSet | None:
    """Return what a closed-loop record has of a set of tasks; None where it has nothing of it."""
    tasks = tuple(task for task in (record or {}).get("tasks", ()) if set_of(task_named(task)) == name)
    if not record or not tasks:
        return None
    first, end = record["seeds"]
    kept = record.get("outcomes")
    return OfSet(
        tasks,
        len(tasks) * (end - first),
        sum(record["successes_by_task"][task] for task in tasks),
        None if kept is None else tuple(own == "1" for task in tasks for own in kept[task]),
    )


def sets_played(records: Iterable[Mapping[str, Any] | None]) -> list[str]:
    """Return the sets that any of these closed-loop records has tasks of."""
    kept = list(records)
    return [name for name in TASK_SETS if any(of_set(record, name) for record in kept)]


def same_scenes(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two closed-loop records are of the same scenes under the same limit."""
    return all(one.get(name) == other.get(name) for name in SCENES)


def comparable(
    floors: Mapping[str, Mapping[str, Any]], full_depth: Mapping[str, Any] | None
) -> list[Mapping[str, Any]]:
    """Return the floors that were played, in the same scenes as full depth where that was; fewest layers first."""
    played = [own for own in floors.values() if own.get("closed_loop")]
    found = [own for own in played if full_depth is None or same_scenes(own["closed_loop"], full_depth)]
    return sorted(found, key=lambda own: (own["layers"], own["floor_error"]))
