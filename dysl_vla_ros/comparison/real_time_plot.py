"""``real_time.png``: success over slow-down, a panel a set of tasks and length of chunk, a line a method."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dysl_vla_ros.comparison.plots import COLOURS, MARKERS
from dysl_vla_ros.comparison.text import label_of
from dysl_vla_ros.files import write_atomically
from dysl_vla_ros.reports.charts import FAINT, STYLE

PLOT = "real_time.png"
WIDTH, HEIGHT = 4.0, 3.2  # inches of a panel


def write_real_time_plot(folder: Path, values: Mapping[str, Any]) -> Path:
    """Draw the rows of ``real_time.json`` into a folder, whole or not at all; return the path."""
    write_atomically(folder / PLOT, partial(_draw, values["rows"]))
    return folder / PLOT


def _draw(rows: list[Mapping[str, Any]], target: Path) -> None:
    sets, chunks, methods = (
        list(dict.fromkeys(values))
        for values in ((row["tasks"] for row in rows), (row["chunk"] for row in rows), (label_of(row) for row in rows))
    )
    with matplotlib.rc_context({**STYLE, "savefig.dpi": 150}):
        figure = Figure(figsize=(WIDTH * len(sets), HEIGHT * len(chunks) + 0.4))
        FigureCanvasAgg(figure)
        figure.set_layout_engine("constrained")
        panels = figure.subplots(len(chunks), len(sets), squeeze=False, sharex=True, sharey=True)
        for chunk, line_of_panels in zip(chunks, panels, strict=True):
            for name, panel in zip(sets, line_of_panels, strict=True):
                own = [row for row in rows if row["tasks"] == name and row["chunk"] == chunk]
                for number, method in enumerate(methods):
                    line = sorted((row for row in own if label_of(row) == method), key=lambda row: row["slow_down"])
                    shares = [100.0 * row["successes"] / row["episodes"] for row in line]
                    below = [share - 100.0 * row["success_low"] for share, row in zip(shares, line, strict=True)]
                    above = [100.0 * row["success_high"] - share for share, row in zip(shares, line, strict=True)]
                    panel.errorbar(
                        [row["slow_down"] for row in line], shares, yerr=[below, above], label=method, capsize=2,
                        color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)], markersize=4,
                        linewidth=1.3, elinewidth=0.7,
                    )  # fmt: skip
                panel.set_title(f"{name} tasks{f', chunks of {chunk}' if chunk else ''}")
                panel.set_ylim(-3, 103)
                panel.grid(color=FAINT, alpha=0.25, linewidth=0.6)
        for panel in panels[-1]:
            panel.set_xlabel("control periods of an inference at full depth")
        for panel in panels[:, 0]:
            panel.set_ylabel("success, % (95% interval)")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
        figure.savefig(target)
