"""Methods of ``table.json`` files as points to draw beside floors: mean layer calls and success, with m = 1."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dysl_vla_ros.comparison.floor_records import of_set
from dysl_vla_ros.comparison.methods.registry import METHODS, method_named
from dysl_vla_ros.engines import TORCH
from dysl_vla_ros.errors import DataError

REMEDY = "name a table.json that `dysl_vla evaluate --methods` of this release wrote"


@dataclass(frozen=True)
class Point:
    """One method on one set of tasks."""

    method: str
    label: str  # as it is shown: the method, and the table where there are several
    table: int  # number of its table
    tasks: str  # name of the set
    layers: float  # mean layer calls of an inference, verification included
    episodes: int
    successes: int


@dataclass(frozen=True)
class BaselineTable:
    """What one table has to show."""

    path: Path
    tasks: dict[str, tuple[str, ...]]  # of each set
    max_ticks: int
    points: tuple[Point, ...]


def read_tables(paths: Sequence[Path]) -> list[BaselineTable]:
    """Read tables; where there are several, each method is labelled with its table's folder as well.

    Raises:
        DataError: one cannot be read, lacks what is drawn, was played under a condition or with a delay (floors are
            not), or has no method with m = 1.
    """
    folders = [path.resolve().parent.name for path in paths]
    if len(set(folders)) < len(folders):
        folders = [str(path.parent) for path in paths]
    suffixes = [f" ({own})" if len(paths) > 1 else "" for own in folders]
    return [_read(path, suffixes[number], number) for number, path in enumerate(paths)]


def fitting(tables: Sequence[BaselineTable], played: Mapping[str, Any]) -> tuple[list[Point], list[str]]:
    """Return the points that can stand beside a closed-loop record, and what is to be said of the others.

    A set of other tasks than were played is left out; another limit of ticks is said.
    """
    points: list[Point] = []
    said: list[str] = []
    for table in tables:
        same = {
            name
            for name, tasks in table.tasks.items()
            if (own := of_set(played, name)) and set(own.tasks) == set(tasks)
        }
        points += [point for point in table.points if point.tasks in same]
        if others := [name for name in table.tasks if name not in same]:
            said.append(f"{table.path}: {' and '.join(others)} left out, the floors played other tasks")
        if same and table.max_ticks != played["max_ticks"]:
            said.append(f"{table.path}: at most {table.max_ticks} ticks an episode, floors {played['max_ticks']}")
    return points, said


def _read(path: Path, suffix: str, number: int) -> BaselineTable:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        otherwise = _otherwise(table)
        tasks = {str(name): tuple(map(str, own)) for name, own in table["tasks"].items()}
        rows = [row for row in table["methods"] if row["actions_per_inference"] == 1 and row["layers_mean"] is not None]
        points = tuple(_point(row, suffix, number) for row in rows)
        found = BaselineTable(path, tasks, int(table["max_ticks"]), points)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; {REMEDY}") from error
    except KeyError as error:
        raise DataError(f"{path} lacks {error}; {REMEDY}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}; {REMEDY}") from error
    if otherwise:
        raise DataError(f"{path} was played with {otherwise}, floors are not; {REMEDY} without it")
    if not points:
        raise DataError(f"{path} has no method with m = 1; {REMEDY} with such methods")
    return found


def _otherwise(table: Mapping[str, Any]) -> str:
    condition, delay = table.get("condition", "plain"), float(table.get("delay", 0.0))
    found = [f"the condition {condition}"] if condition != "plain" else []
    found += [f"a delay of {delay:g} s"] if delay else []
    found += ["time that goes on"] if table.get("slow_down") else []
    return " and ".join(found + ([f"chunks of {table['chunk']}"] if table.get("chunk") else []))


def _point(row: Mapping[str, Any], suffix: str, number: int) -> Point:
    episodes, successes = int(row["episodes"]), int(row["successes"])
    if not 0 <= successes <= episodes or not episodes or not float(row["layers_mean"]) > 0.0:
        raise ValueError(f"{row['method']} has {successes} of {episodes} episodes at {row['layers_mean']} layer calls")
    name = str(row["method"])
    on = "" if row.get("runtime", TORCH) == TORCH else f":{row['runtime']}"
    bound = ", a bound" if name in METHODS and method_named(name).bound else ""  # its looks are not counted
    shown = name + on + bound + suffix
    return Point(name, shown, number, str(row["tasks"]), float(row["layers_mean"]), episodes, successes)
