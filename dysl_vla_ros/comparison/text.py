"""``table.json`` in the terminal, and as README shows it."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from dysl_vla_ros.comparison.methods.registry import method_named
from dysl_vla_ros.comparison.plan import Entry
from dysl_vla_ros.engines import TORCH

DEPTH = ("method", "success", "95%", "less full", "95%", "inferences", "layers", "varies by", "verified")
COST = ("method", "stack ms", "p50", "p99", "speed-up", "step ms", "p50", "p99", "trained", "steps", "s")
PAIRED = ("method", "tasks", "success", "on torch", "less torch", "95%", "ended apart", "same layers", "faster")
NARROWEST = 120  # characters, where the output is no terminal that says its own width


def print_comparison(table: Mapping[str, Any], console: Console | None = None) -> None:
    """Print two tables a set of tasks: success and depth, milliseconds and training."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(NARROWEST, console.width)
    for name in table["tasks"]:
        rows = [row for row in table["methods"] if row["tasks"] == name]
        what = f"{name} tasks, condition {table['condition']}"
        for columns, cells, title in (
            (DEPTH, _depth, f"{what}: success in %, inferences an episode, layer calls (with verification)"),
            (COST, _cost, f"{what}: mean milliseconds of a step (verification included), what was trained"),
        ):
            shown = Table(title=title, title_justify="left")
            for column in columns:
                shown.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
            for row in rows:
                shown.add_row(*cells(row))
            console.print(shown)
    bounds = dict.fromkeys(row["method"] for row in table["methods"] if method_named(row["method"]).bound)
    if bounds:
        what = "a bound; the passes that it looks with are counted neither in layers nor in time"
        console.print(f"{', '.join(bounds)}: {what}")


def print_runtimes(table: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what was played on torch and on another runtime beside each other, where anything was."""
    if not table["runtimes"]:
        return
    console = console or Console()
    if not console.is_terminal:
        console.width = max(NARROWEST, console.width)
    shown = Table(title="the same scenes on both runtimes: success in %, less torch's", title_justify="left")
    for column in PAIRED:
        shown.add_column(column, justify="left" if column in ("method", "tasks") else "right", no_wrap=True)
    for row in table["runtimes"]:
        shown.add_row(
            label_of(row),
            row["tasks"] or "all",
            f"{row['successes']}/{row['episodes']}",
            f"{row['successes_torch']}/{row['episodes']}",
            _points(row["difference"]),
            _interval(row["difference_low"], row["difference_high"]),
            str(row["apart"]),
            f"{row['same_layers_share']:.0%}",
            _number(row["step_speedup"], 2),
        )
    console.print(shown)


def print_worth(worth: Mapping[str, Any], console: Console | None = None) -> None:
    """Print depth over all sets alike beside the best constant depths, where such were played."""
    constants = list(dict.fromkeys(name for row in worth["methods"] for name in row["ratios"]))
    if not constants:
        return
    console = console or Console()
    if not console.is_terminal:
        console.width = max(NARROWEST, console.width)
    title = "layer calls over all sets alike, and as a share (95%) of the best constant depths"
    shown = Table(title=title, title_justify="left")
    for column in ("method", "layers", "speed-up", "part", *constants):
        shown.add_column(column, justify="left" if column in ("method", "part") else "right", no_wrap=True)
    for row in worth["methods"]:
        parts = list(dict.fromkeys(part for ratio in row["ratios"].values() for part in ratio)) or [""]
        for part in parts:
            first = part == parts[0]
            shown.add_row(
                label_of(row) if first else "",
                _number(row["layers_mean"], 1) if first else "",
                _number(row["stack_speedup"], 2) if first else "",
                part,
                *(_share(row["ratios"].get(name, {}).get(part)) for name in constants),
            )
    console.print(shown)


def print_curve(values: Mapping[str, Any], console: Console | None = None) -> None:
    """Print ``real_time.json``: a table a set of tasks and length of chunk, a row a method, a column a slow-down."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(NARROWEST, console.width)
    slow_downs = list(dict.fromkeys(row["slow_down"] for row in values["rows"]))
    for name, chunk in dict.fromkeys((row["tasks"], row["chunk"]) for row in values["rows"]):
        rows = [row for row in values["rows"] if (row["tasks"], row["chunk"]) == (name, chunk)]
        of = f", chunks of {chunk}" if chunk else ""
        console.print(f"{name} tasks{of}: success where an inference at full depth takes so many control periods")
        shown = Table()
        for column in ("method", *(f"{each:g}" for each in slow_downs)):
            shown.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
        for method in dict.fromkeys(label_of(row) for row in rows):
            own = {row["slow_down"]: row for row in rows if label_of(row) == method}
            shown.add_row(method, *(f"{own[each]['successes']}/{own[each]['episodes']}" for each in slow_downs))
        console.print(shown)


def _share(ratio: Mapping[str, float] | None) -> str:
    return "" if ratio is None else f"{ratio['ratio']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _depth(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        label_of(row),
        f"{row['successes']}/{row['episodes']}",
        _interval(row["success_low"], row["success_high"]),
        _points(row["difference"]),
        _interval(row["difference_low"], row["difference_high"]),
        _number(row.get("inferences_mean"), 1),
        f"{_number(row['layers_mean'], 1)} / {row['layers_total']}",
        _number(row["layers_std_within"], 1),
        "" if row["verified_share"] is None else f"{row['verified_share']:.0%}",
    )


def _cost(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        label_of(row),
        *(_number(row[f"stack_ms_{figure}"], 1) for figure in ("mean", "p50", "p99")),
        _number(row["stack_speedup"], 2),
        *(_number(row[f"step_ms_{figure}"], 1) for figure in ("mean", "p50", "p99")),
        _trained(row),
        _number(row["training_steps"], 0),
        _number(row["training_seconds"], 0),
    )


def label_of(row: Mapping[str, Any]) -> str:
    """Return the name of a row's method, with its m where that is not 1 and its runtime where that is not torch."""
    return entry_of(row).label


def entry_of(row: Mapping[str, Any]) -> Entry:
    """Return which entry a row is of; tables of earlier releases know torch alone."""
    return Entry(row["method"], row["actions_per_inference"], row.get("runtime", TORCH))


def markdown(table: Mapping[str, Any]) -> str:
    """Return the table as README shows it, one a set of tasks; every figure is the file's, rounded.

    ``test/test_readme_table.py`` holds README's figures against ``benchmarks/results/table.json`` by this.
    """
    parts = []
    for name, tasks in table["tasks"].items():
        rows = [row for row in table["methods"] if row["tasks"] == name]
        count = f"{len(tasks)} task{'' if len(tasks) == 1 else 's'}"
        head = f"| {name}, {count} | success | 95% | less full, 95% | layers | within an episode | verified |"
        lines = [f"{head} stack ms | speed-up | parameters trained |", "|---" * 10 + "|"]
        for row in rows:
            total = f"{row['layers_mean']:.1f} of {row['layers_total']}" if row["layers_mean"] is not None else ""
            lines.append(
                f"| `{label_of(row)}` | {row['successes']}/{row['episodes']} "
                f"| {_interval(row['success_low'], row['success_high'])} "
                f"| {_paired(row)} | {total} | {_number(row['layers_std_within'], 1)} "
                f"| {'' if row['verified_share'] is None else format(row['verified_share'], '.0%')} "
                f"| {_number(row['stack_ms_mean'], 1)} | {_number(row['stack_speedup'], 2)} | {_trained(row)} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _paired(row: Mapping[str, Any]) -> str:
    if row["difference"] is None:
        return ""
    return f"{_points(row['difference'])} ({_interval(row['difference_low'], row['difference_high'])})"


def _points(value: float | None) -> str:
    """Write a difference of shares in percentage points."""
    return "" if value is None else f"{100 * value:+.1f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


def _trained(row: Mapping[str, Any]) -> str:
    count = row["trainable_parameters"]
    return "none" if not count else f"{count / 1e6:.2f} M"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
