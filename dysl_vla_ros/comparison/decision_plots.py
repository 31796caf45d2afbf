"""Two pictures of ``results.json``: where in a task layers went, and where allow points stood."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dysl_vla_ros.comparison.methods.registry import method_named
from dysl_vla_ros.comparison.text import entry_of
from dysl_vla_ros.files import write_atomically
from dysl_vla_ros.records.phases import PHASES
from dysl_vla_ros.reports.charts import BLOCK_COLOURS, FAINT, STYLE

WIDTH, HEIGHT = 4.6, 3.2  # inches of a panel

Row = Mapping[str, Any]


def write_decision_pictures(folder: Path, results: Mapping[str, Any]) -> list[Path]:
    """Write ``phases.png`` and ``allow_points.png`` into a folder, each where a method has something to show."""
    rows = [row for row in results["methods"] if row["actions_per_inference"] == 1]
    varying = [row for row in rows if _varies(row)]
    guided = [row for row in rows if method_named(row["method"]).guided and row["allow_points"]]
    varying, guided = ([{**row, "method": entry_of(row).name} for row in own] for own in (varying, guided))
    written = []
    for name, chosen, draw in (("phases.png", varying, _phases), ("allow_points.png", guided, _allow_points)):
        if chosen:
            write_atomically(folder / name, partial(draw, chosen))
            written.append(folder / name)
    return written


def _varies(row: Row) -> bool:
    means = {own["layers_mean"] for own in row["phases"].values() if own["layers_mean"] is not None}
    return len(means) > 1


def _phases(rows: Sequence[Row], target: Path) -> None:
    """Draw mean layer calls in each phase: a panel a set of tasks, a bar a method."""
    sets, methods = (list(dict.fromkeys(row[field] for row in rows)) for field in ("tasks", "method"))
    met = [phase for phase in PHASES if any(row["phases"][phase]["inferences"] for row in rows)]
    with matplotlib.rc_context({**STYLE, "savefig.dpi": 150}):
        figure, panels = _panels(len(sets), 1)
        places, wide = np.arange(len(met)), 0.8 / len(methods)
        for panel, name in zip(panels[0], sets, strict=True):
            for row in (row for row in rows if row["tasks"] == name):
                number = methods.index(row["method"])
                means = [row["phases"][phase]["layers_mean"] or 0.0 for phase in met]
                colour = BLOCK_COLOURS[number % len(BLOCK_COLOURS)]
                left = places - 0.4 + wide * (number + 0.5)
                panel.bar(left, means, wide, color=colour, hatch="//" if number >= len(BLOCK_COLOURS) else None,
                          edgecolor="white", linewidth=0.4, label=row["method"])  # fmt: skip
            panel.set_title(f"{name} tasks")
            panel.set_xticks(places, [phase.replace(" ", "\n") for phase in met])
            panel.set_ylabel("layer calls an inference (mean)")
            panel.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
        handles = {text: handle for panel in panels[0] for handle, text in zip(*panel.get_legend_handles_labels(),
                                                                               strict=True)}  # fmt: skip
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4 * len(sets))
        figure.savefig(target)


def _allow_points(rows: Sequence[Row], target: Path) -> None:
    """Draw how often each layer was the allow point: a row a method, a panel a set of tasks."""
    sets, methods = (list(dict.fromkeys(row[field] for row in rows)) for field in ("tasks", "method"))
    with matplotlib.rc_context({**STYLE, "savefig.dpi": 150}):
        figure, panels = _panels(len(sets), len(methods))
        for row in rows:
            panel = panels[methods.index(row["method"])][sets.index(row["tasks"])]
            for block, points in enumerate(row["allow_points"]):
                counts = np.array(points["counts"], float)
                colour = BLOCK_COLOURS[block % len(BLOCK_COLOURS)]
                layers = points["first"] + np.arange(len(counts))
                panel.bar(layers, 100.0 * counts / max(1.0, counts.sum()), 0.8, color=colour, alpha=0.85)
            panel.set_title(f"{row['method']}, {row['tasks']} tasks")
            panel.set_xlabel("layer (the last place of a block: nothing of it may be skipped)")
            panel.set_ylabel("allow point there, % of inferences")
            panel.set_ylim(0.0, 100.0)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.savefig(target)


def _panels(columns: int, lines: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * lines))
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    return figure, figure.subplots(lines, columns, squeeze=False)
