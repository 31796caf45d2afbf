"""The table of methods in README is the file's, figure by figure, as soon as there is one."""

import json
from pathlib import Path

import pytest

from dysl_vla_ros.comparison.table import FIELDS
from dysl_vla_ros.comparison.text import markdown

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "benchmarks" / "results" / "table.json"


def row(method, tasks="easy", m=1, **figures):
    known = {
        "method": method, "tasks": tasks, "actions_per_inference": m, "runtime": "torch", "episodes": 160,
        "successes": 159,
        "success_low": 0.9655, "success_high": 0.9989, "difference": -0.0063, "difference_low": -0.0345,
        "difference_high": 0.018, "inferences_mean": 54.25, "layers_total": 24, "layers_mean": 7.4512,
        "layers_std_within": 6.1,
        "verified_share": 0.0551, "stack_ms_p50": 6.0, "stack_ms_mean": 7.25, "stack_ms_p99": 17.7,
        "step_ms_p50": 9.9, "step_ms_mean": 11.0, "step_ms_p99": 28.6, "stack_speedup": 2.411,
        "trainable_parameters": 1_447_000, "training_steps": 3500, "training_seconds": None,
    }  # fmt: skip
    assert tuple(known) == FIELDS
    return known | figures


MADE_UP = {
    "tasks": {"easy": ["reach", "push"], "hard": ["assembly"]},
    "methods": [
        row("full", difference=None, difference_low=None, difference_high=None, trainable_parameters=0),
        row("dysl"),
        row("dysl", m=4),
        row("oracle", tasks="hard", stack_ms_mean=None, stack_speedup=None),
    ],
}


def test_a_table_is_written_figure_by_figure():
    lines = markdown(MADE_UP).splitlines()
    assert (
        "| `dysl` | 159/160 | 96.5 to 99.9 | -0.6 (-3.5 to 1.8) | 7.5 of 24 | 6.1 | 6% | 7.2 | 2.41 | 1.45 M |" in lines
    )
    assert "| `full` | 159/160 | 96.5 to 99.9 |  | 7.5 of 24 | 6.1 | 6% | 7.2 | 2.41 | none |" in lines
    assert any(line.startswith("| `dysl@4` |") for line in lines)
    assert "|  |  | 1.45 M |" in next(line for line in lines if "oracle" in line), "a bound has no milliseconds"
    assert [line for line in lines if line.startswith("| easy, 2 tasks")] and "| hard, 1 task |" in markdown(MADE_UP)


def differences(readme: str, table: dict) -> list[str]:
    """Return the lines of the table that README does not show."""
    shown = set(readme.splitlines())
    return [line for line in markdown(table).splitlines() if line and line not in shown]


def test_a_figure_that_is_not_the_files_would_be_found():
    readme = f"# Title\n\n{markdown(MADE_UP)}\nmore\n"
    assert differences(readme, MADE_UP) == []
    assert len(differences(readme.replace("159/160", "160/160", 1), MADE_UP)) == 1


def test_readme_shows_the_table_of_the_file():
    if not TABLE.exists():
        pytest.skip("no table has been committed yet: benchmarks/results/table.json")
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    later = ("inferences_mean", "runtime")  # the table may have been played before there were these
    earlier = tuple(name for name in FIELDS if name not in later)
    assert all(tuple(own) in (FIELDS, earlier) for own in table["methods"])
    assert differences((ROOT / "README.md").read_text(encoding="utf-8"), table) == []
