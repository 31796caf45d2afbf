"""A ``floors.json`` as ``dysl_vla floors --evaluate`` writes it, with outcomes of the test's choice."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dysl_vla_ros.comparison.floor_records import RESULT
from dysl_vla_ros.simulation.seeds import CALIBRATION_SEEDS

Outcomes = Mapping[str, str]  # by task: a character a scene, 1 for success


def closed_loop(outcomes: Outcomes) -> dict[str, Any]:
    """Return the record of what was played; each task has as many scenes as the first."""
    first = CALIBRATION_SEEDS.start
    return {
        "seeds": [first, first + len(next(iter(outcomes.values())))],
        "tasks": list(outcomes),
        "max_ticks": 200,
        "episodes": sum(map(len, outcomes.values())),
        "successes": sum(own.count("1") for own in outcomes.values()),
        "successes_by_task": {task: own.count("1") for task, own in outcomes.items()},
        "outcomes": dict(outcomes),
    }


def write_floors(folder: Path, floors: Mapping[str, tuple[int, Outcomes]], full_depth: Outcomes) -> Path:
    """Write the table of floors, by name with their layers, into a folder and return it."""
    records = {
        name: {"name": name, "layers": layers, "floor_error": 0.1, "closed_loop": closed_loop(outcomes)}
        for name, (layers, outcomes) in floors.items()
    }
    values = {"floors": records, "full_depth": closed_loop(full_depth)}
    (folder / RESULT).write_text(json.dumps(values))
    return folder
