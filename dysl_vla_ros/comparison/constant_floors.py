"""The best constant depths: for all tasks, for each set, for each instruction the smallest floor that loses nothing.

Chosen from what ``dysl_vla floors --evaluate`` played in calibration scenes, for tables of other scenes. What dynamic
depth must beat: a table of depths knows the instruction and nothing of the moment.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dysl_vla_ros.comparison.floor_records import RESULT, comparable
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.simulation.tasks import Task, chosen_on, names_of, set_of, task_named

WITHIN = 1.5  # points below full depth that count as none
FULL_DEPTH = ""  # in place of a floor's name: no floor is within

Group = tuple[str, ...]  # names of tasks that are judged as one


def read_floors(folder: Path) -> dict[str, Any]:
    """Return ``floors.json`` of a folder in which floors and full depth were played.

    Raises:
        DataError: it cannot be read, or nothing was played.
    """
    path, remedy = folder / RESULT, "name the folder that `dysl_vla floors ... --out FOLDER --evaluate N` wrote"
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        played = comparable(values["floors"], values["full_depth"])
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; {remedy}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is no table of floors: {error!r}; {remedy}") from error
    if not values["full_depth"] or not played:
        raise DataError(f"{path}: floors and full depth were not played in the same scenes; {remedy}")
    return values


def for_all(values: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, str]:
    """Choose one floor: within ``WITHIN`` points of full depth in every set.

    Args:
        values: of ``floors.json``.
        tasks: that it is chosen for. In place of those held out, those set aside are looked at.

    Returns:
        By the name of each task the name of its floor's folder; ``FULL_DEPTH`` where no floor is within.

    Raises:
        DataError: floors were not played in a task that is to be looked at.
    """
    floor = _smallest(values, [_judged_by(own) for own in _sets(tasks)])
    return {task.name: floor for task in tasks}


def for_each_set(values: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, str]:
    """Choose one floor a set; see :func:`for_all`."""
    return {task.name: _smallest(values, [_judged_by(own)]) for own in _sets(tasks) for task in own}


def for_each_instruction(values: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, str]:
    """Choose one floor a task; one that is held out takes that of the chains set aside that are as long."""
    return {task.name: _smallest(values, [_judged_by([task])]) for task in tasks}


CHOICES: dict[str, Callable[[Mapping[str, Any], Sequence[Task]], dict[str, str]]] = {
    "constant": for_all,
    "constant_by_set": for_each_set,
    "constant_by_instruction": for_each_instruction,
}


def _sets(tasks: Sequence[Task]) -> list[list[Task]]:
    found: dict[str, list[Task]] = {}
    for task in tasks:
        found.setdefault(set_of(task), []).append(task)
    return list(found.values())


def _judged_by(tasks: Sequence[Task]) -> Group:
    return tuple(task.name for task in chosen_on(tasks))


def _smallest(values: Mapping[str, Any], groups: Iterable[Group]) -> str:
    """Return the floor of fewest layers that loses nothing in any group; of equal layers that of the least error."""
    full, groups = values["full_depth"], list(groups)
    if lacking := [task_named(name) for group in groups for name in group if name not in full["tasks"]]:
        raise DataError(
            f"floors were not played in {names_of(lacking)}; play them with `dysl_vla floors --evaluate N "
            "--evaluate-tasks ...`"
        )
    for floor in comparable(values["floors"], full):
        if all(_lost(floor["closed_loop"], full, group) <= WITHIN for group in groups):
            return str(floor["name"])
    return FULL_DEPTH


def _lost(own: Mapping[str, Any], full: Mapping[str, Any], group: Group) -> float:
    """Return by how many points less of a group's episodes ended well than at full depth."""
    first, end = full["seeds"]
    apart = sum(full["successes_by_task"][task] - own["successes_by_task"][task] for task in group)
    return 100.0 * apart / (len(group) * (end - first))
