"""``floors.png``: success over mean layer calls, of every floor that was played, of full depth, of methods beside them.

A floor's mean layer calls are its static layers. Layers go by their logarithm: where floors differ, they are few.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from dysl_vla_ros.comparison.floor_records import OfSet, comparable, of_set, sets_played
from dysl_vla_ros.comparison.plots import COLOURS, MARKERS
from dysl_vla_ros.files import write_atomically
from dysl_vla_ros.floors.baselines import Point
from dysl_vla_ros.records.intervals import wilson
from dysl_vla_ros.reports.charts import FAINT, INK, STYLE

PICTURE = "floors.png"
CHOICE_COLOURS = {"informative": "#1f5fa8", "spread": "#d9730d"}
ADAPTER_LOOKS = {"token": ("o", "--"), "pooled": ("s", "-")}
_COLOURS = [colour for colour in COLOURS if colour not in CHOICE_COLOURS.values()]
PANEL, ONE_PANEL, HEIGHT, LEGEND_ROW = 4.6, 6.0, 3.6, 0.2  # inches
ENTRY = 1.7  # inches of a legend's entry
APART = 0.01  # of a panel's width between lines at the same layers, lest their bars lie on each other
TICKS = 0.06  # of a panel's width, the least between two ticks


def write_floors_picture(
    folder: Path,
    floors: Mapping[str, Mapping[str, Any]],
    full_depth: Mapping[str, Any] | None,
    layers: int,
    points: Sequence[Point] = (),
) -> Path:
    """Write ``floors.png`` into a folder, whole or not at all; return its path.

    Args:
        folder: where to.
        floors: the records of ``floors.json``; those that were not played in full depth's scenes are left out.
        full_depth: its closed-loop record, None where it was not played.
        layers: of the whole policy.
        points: methods to draw beside them, in the panels of their sets.
    """
    write_atomically(folder / PICTURE, partial(_draw, comparable(floors, full_depth), full_depth, layers, points))
    return folder / PICTURE


def _draw(
    floors: Sequence[Mapping[str, Any]],
    full_depth: Mapping[str, Any] | None,
    layers: int,
    points: Sequence[Point],
    target: Path,
) -> None:
    sets = sets_played([full_depth, *(own["closed_loop"] for own in floors)])
    points = [point for point in points if point.tasks in sets]
    width = PANEL * len(sets) if len(sets) > 1 else ONE_PANEL
    longest = max((len(point.label) for point in points), default=0)
    columns = max(1, int(width / max(ENTRY, 0.5 + 0.065 * longest)))
    with matplotlib.rc_context({**STYLE, "savefig.dpi": 150}):
        legend_rows = 1 + bool(points) + (len(_lines(floors)) + len({point.label for point in points})) // columns
        figure = Figure(figsize=(width, HEIGHT + LEGEND_ROW * legend_rows))
        FigureCanvasAgg(figure)
        figure.set_layout_engine("constrained")
        handles: dict[str, Any] = {}
        panels = figure.subplots(1, len(sets), squeeze=False, sharey=True)[0]
        panels[0].set_ylabel("success, % (95% interval)")
        for panel, name in zip(panels, sets, strict=True):
            handles |= _panel(panel, name, floors, full_depth, layers, points)
        order = [*(_line_label(*line) for line in _lines(floors)), _full_label(layers), *(own.label for own in points)]
        shown = [label for label in dict.fromkeys(order) if label in handles]
        title = "hollow: methods of other tables, in those tables' own scenes" if points else None
        places = {"loc": "outside lower center", "ncols": columns, "title": title, "title_fontsize": 7.5}
        figure.legend([handles[own] for own in shown], shown, **places)
        figure.savefig(target)


def _panel(
    panel: Axes,
    name: str,
    floors: Sequence[Mapping[str, Any]],
    full_depth: Mapping[str, Any] | None,
    layers: int,
    points: Sequence[Point],
) -> dict[str, Any]:
    """Draw one set of tasks; return what the legend shows, by its label."""
    played = [(floor, own) for floor in floors if (own := of_set(floor["closed_loop"], name))]
    own_points = [point for point in points if point.tasks == name]
    at = [float(floor["layers"]) for floor, _ in played] + [point.layers for point in own_points] or [float(layers)]
    low, high = min(at) / 1.15, max(at) * 1.15
    panel.set_xscale("log")
    panel.set_xlim(low, high)
    ticks = _ticks([*(floor["layers"] for floor, _ in played), *_whole(own_points)], high / low)
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xticklabels([f"{tick:g}" for tick in ticks])
    handles: dict[str, Any] = {}
    lines = _lines([floor for floor, _ in played])
    for number, (choice, adapter) in enumerate(lines):
        apart = (high / low) ** (APART * (number - (len(lines) - 1) / 2))
        line = [pair for pair in played if choice in pair[0]["choices"] and pair[0]["adapter"] == adapter]
        marker, dashes = ADAPTER_LOOKS[adapter]
        looks = {"color": CHOICE_COLOURS[choice], "marker": marker, "linestyle": dashes, "markersize": 3.8}
        results = [(own.successes, own.episodes) for _, own in line]
        xs = [floor["layers"] * apart for floor, _ in line]
        handles[_line_label(choice, adapter)] = _bars(panel, xs, results, **looks)
    methods = list(dict.fromkeys(point.method for point in points))
    for point in own_points:
        number = methods.index(point.method)  # of its colour in every table, of its marker in the first
        colour, marker = _COLOURS[number % len(_COLOURS)], MARKERS[(number + 5 * point.table) % len(MARKERS)]
        looks = {"color": colour, "marker": marker, "linestyle": "", "markersize": 7, "markerfacecolor": "white"}
        result = (point.successes, point.episodes)
        handles[point.label] = _bars(panel, [point.layers], [result], zorder=3, **looks)
    if full := of_set(full_depth, name):
        lowest, highest = (100.0 * own for own in wilson(full.successes, full.episodes))
        share = 100.0 * full.successes / full.episodes
        handles[_full_label(layers)] = panel.axhline(share, color=INK, linewidth=1.0, zorder=1)
        panel.axhspan(lowest, highest, color=FAINT, alpha=0.2, linewidth=0, zorder=0)
    panel.set_title(_title(name, [own for _, own in played] + ([full] if full else [])))
    panel.set_xlabel("mean layer calls of an inference")
    panel.grid(color=FAINT, alpha=0.25, linewidth=0.6)
    return handles


def _bars(panel: Axes, xs: Sequence[float], results: Sequence[tuple[int, int]], **looks: Any) -> Any:
    """Draw (successes, episodes) with Wilson's intervals."""
    shares = [100.0 * own / episodes for own, episodes in results]
    limits = [wilson(*own) for own in results]
    below = [max(0.0, share - 100.0 * low) for share, (low, _) in zip(shares, limits, strict=True)]
    above = [max(0.0, 100.0 * high - share) for share, (_, high) in zip(shares, limits, strict=True)]
    return panel.errorbar(xs, shares, yerr=[below, above], linewidth=1.3, elinewidth=0.9, capsize=2, **looks)


def _title(name: str, played: Sequence[OfSet]) -> str:
    tasks, counts = {len(own.tasks) for own in played}, sorted({own.episodes for own in played})
    count = "/".join(map(str, sorted(tasks)))
    scenes = " or ".join(map(str, counts))
    return f"{name} ({count} task{'' if count == '1' else 's'}), {scenes} scenes each"


def _lines(floors: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the pairs of choice and adapter that there are; a floor that both choices come to is in both lines."""
    there = {(choice, own["adapter"]) for own in floors for choice in own["choices"]}
    return [(choice, adapter) for choice in CHOICE_COLOURS for adapter in ADAPTER_LOOKS if (choice, adapter) in there]


def _line_label(choice: str, adapter: str) -> str:
    return f"floors: {choice}, {adapter}"


def _full_label(layers: int) -> str:
    return f"full depth, {layers} layers"


def _whole(points: Sequence[Point]) -> list[int]:
    """Return whole numbers around methods, of which ticks can be made."""
    return sorted({round(point.layers) for point in points} - {0})


def _ticks(wanted: Sequence[int], span: float) -> list[int]:
    """Return those that have room, the first named first; ``span`` is the panel's highest value over its lowest."""
    kept: list[int] = []
    for tick in dict.fromkeys(wanted):
        if all(max(tick / own, own / tick) >= span**TICKS for own in kept):
            kept.append(tick)
    return sorted(kept)
