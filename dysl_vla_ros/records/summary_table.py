"""A summary as a table in the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = ("instruction", "success", "ticks", "layers", "varies by", "verified", "p50 ms", "p99 ms")


def print_table(summary: dict[str, Any], console: Console | None = None) -> None:
    """Print one row a task and instruction, and one over all; ``summary`` says ``condition`` and ``runtime``."""
    condition = summary["condition"]
    title = f"condition {condition}, computed by {summary['runtime']}; layers: mean of layer calls, with verification"
    table = Table(*COLUMNS, title=title)
    for row in summary["tasks"]:
        said = row["instruction"] if condition == "plain" else f"{row['task']}: {row['instruction']}"
        table.add_row(said, *_cells(row))
    table.add_section()
    table.add_row("all", *_cells(summary["overall"]), style="bold")
    (console or Console()).print(table)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    total = row["timings"]["total"]
    return (
        f"{row['successes']}/{row['episodes']}",
        _number(row["ticks_mean"], 0),
        f"{_number(row['layers_mean'], 1)} / {row['layers_total']}",
        _number(row["layers_std_within"], 1),
        "" if row["verified_share"] is None else f"{row['verified_share']:.0%}",
        _number(total["p50"], 1),
        _number(total["p99"], 1),
    )


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
