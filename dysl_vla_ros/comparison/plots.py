"""Two pictures of ``table.json``: success against the stack's milliseconds, and against layer calls."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from dysl_vla_ros.comparison.text import entry_of
from dysl_vla_ros.files import write_atomically
from dysl_vla_ros.reports.charts import FAINT, STYLE

COLOURS = ("#1c2530", "#1f5fa8", "#8a4fb0", "#2a8f6d", "#d9730d", "#b0473d", "#7a6a1d", "#3d7f96", "#c2568f", "#8a94a0",
           "#5aa02c", "#6b4f3a")  # fmt: skip
MARKERS = "osD^vP*Xphd<"
WIDTH, HEIGHT = 4.6, 3.6  # inches of a panel


def write_pictures(folder: Path, table: Mapping[str, Any]) -> list[Path]:
    """Write ``pareto.png`` and ``layers.png`` into a folder, each whole or not at all; return their paths."""
    pictures = {
        "pareto.png": ("stack_ms", "stack, ms a step (mean, verification included)"),
        "layers.png": ("layers_mean", "layer calls a step (mean, verification included)"),
    }
    places = stack_milliseconds(table["methods"])
    rows = [
        {**row, "stack_ms": place, "method": entry_of(row).name}
        for row, place in zip(table["methods"], places, strict=True)
    ]
    placed = {**table, "methods": rows}
    for name, (field, label) in pictures.items():
        write_atomically(folder / name, partial(_draw, placed, field, label))
    return [folder / name for name in pictures]


def stack_milliseconds(rows: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Return for each row the mean milliseconds of its stack on the clock of its set's ``full``; None for a bound.

    Each method's speed-up is over full depth played in turns with it, for some of them another playing than that of
    ``full`` in the table. A machine is not always as fast; full depth's mean over the speed-up puts all on one scale.
    Without ``full`` a row's own mean.
    """
    full = {(row["tasks"], entry_of(row)): row["stack_ms_mean"] for row in rows if row["method"] == "full"}
    clocks = [full.get((row["tasks"], entry_of(row).full)) for row in rows]
    return [
        clock / row["stack_speedup"] if clock and row["stack_speedup"] else row["stack_ms_mean"]
        for row, clock in zip(rows, clocks, strict=True)
    ]


def _draw(table: Mapping[str, Any], field: str, label: str, target: Path) -> None:
    """Draw success with its 95% interval over ``field``: a panel a set of tasks, a line a method through its m.

    Methods crowd where skipping is cheapest, which a logarithmic axis spreads.
    """
    sets = list(table["tasks"])
    methods = list(dict.fromkeys(row["method"] for row in table["methods"]))
    looks = dict(zip(methods, zip(cycle(COLOURS), cycle(MARKERS)), strict=False))
    with matplotlib.rc_context({**STYLE, "savefig.dpi": 150}):
        figure = Figure(figsize=(WIDTH * len(sets), HEIGHT + 0.25 * (1 + len(methods) // (4 * len(sets)))))
        FigureCanvasAgg(figure)
        figure.set_layout_engine("constrained")
        panels = figure.subplots(1, len(sets), squeeze=False)[0]
        handles = {}
        for panel, name in zip(panels, sets, strict=True):
            rows = [row for row in table["methods"] if row["tasks"] == name and row[field] is not None]
            for method in methods:
                own = sorted((row for row in rows if row["method"] == method), key=lambda r: r["actions_per_inference"])
                if own:
                    handles[method] = _line(panel, own, field, *looks[method])
            panel.set_title(f"{name} tasks ({len(table['tasks'][name])})")
            panel.set_xlabel(label)
            panel.set_ylabel("success, % (95% interval)")
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
            panel.xaxis.set_major_formatter(ScalarFormatter())
            panel.xaxis.set_minor_locator(NullLocator())
            panel.grid(color=FAINT, alpha=0.25, linewidth=0.6)
        more = sorted({row["actions_per_inference"] for row in table["methods"]} - {1})
        if more:
            hollow = Line2D([], [], color="black", marker="o", markerfacecolor="white", linestyle="")
            handles[f"hollow: m = {', '.join(str(m) if m else 'automatic' for m in more)}"] = hollow
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4 * len(sets))
        figure.savefig(target)


def _line(panel: Any, rows: Sequence[Mapping[str, Any]], field: str, colour: str, marker: str) -> Any:
    """Draw one method: a point for each m, joined; return what the legend shows."""
    x = [row[field] for row in rows]
    y = [100.0 * row["successes"] / row["episodes"] for row in rows]
    low = [max(0.0, own - 100.0 * row["success_low"]) for own, row in zip(y, rows, strict=True)]
    high = [max(0.0, 100.0 * row["success_high"] - own) for own, row in zip(y, rows, strict=True)]
    line = panel.errorbar(
        x, y, yerr=[low, high], color=colour, marker=marker, markersize=5, linewidth=1.2, elinewidth=0.9, capsize=2
    )
    for row, at, height in zip(rows, x, y, strict=True):
        if row["actions_per_inference"] != 1:
            panel.plot(at, height, color=colour, marker=marker, markerfacecolor="white", markersize=5, zorder=3)
    return line
