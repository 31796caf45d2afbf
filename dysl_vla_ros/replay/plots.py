"""The charts of a replay's report that the demo's does not have; the look is that of ``reports/charts.py``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.records.deviation import Measure
from dysl_vla_ros.records.phases import CLOSING, FREE, OPENING, PHASES, SLOW
from dysl_vla_ros.reports.charts import FAINT, INK, PART_COLOURS, RAN, VERIFIED, chart_of

SIDE_COLOURS = (FAINT, RAN, "#2a8f6d")  # full depth, skipping, other
PHASE_COLOURS = {FREE: "#f4f6f8", SLOW: "#d5e3f2", CLOSING: "#f6cfae", OPENING: "#c4e6d4"}


def deviation(
    times: NDArray[np.float64],
    series: Mapping[str, NDArray[Any]],
    lead: Measure,
    phase: NDArray[np.int8],
    verified: NDArray[np.bool_],
) -> str:
    """Draw how far actions lie apart over an episode, on the colours of its phases.

    Args:
        times: (n,) s.
        series: name -> (n,) of ``lead``; the first is skipping's against full depth, its verified ones are marked.
        lead: what lies apart, and its unit.
        phase: (n,) places in PHASES.
        verified: (n,) of skipping.
    """
    with chart_of(f"Deviation of {lead.words}, {lead.unit}{lead.over}", lead.unit) as chart:
        edges = np.append(times, times[-1] + (np.median(np.diff(times)) if len(times) > 1 else 0.05))
        for name in PHASES:
            for start, end in _runs(phase == PHASES.index(name)):
                chart.axes.axvspan(edges[start], edges[end], color=PHASE_COLOURS[name], linewidth=0)
        colours = (RAN, SIDE_COLOURS[2], "#8a4fb0")
        for colour, values in zip(colours, series.values(), strict=False):
            chart.axes.plot(times, values, color=colour, linewidth=1.2)
        first = next(iter(series.values()))
        chart.axes.plot(times[verified], first[verified], "o", color=VERIFIED, markersize=3.0, linestyle="none")
        chart.axes.set_ylim(bottom=0)
        chart.axes.set_xlim(edges[0], edges[-1])
        there = [name for number, name in enumerate(PHASES) if name != FREE and np.any(phase == number)]
        chart.legend([*zip(colours, series, strict=False), *((PHASE_COLOURS[name], name) for name in there)])
    return chart.image


def phase_bars(sides: Mapping[str, Mapping[str, Any]], lead: Measure) -> str:
    """Draw p50 and p95 of the deviation of ``lead`` in each phase; ``sides``: name -> figures."""
    with chart_of("Deviation from full depth by phase, p50 and p95", lead.unit, "") as chart:
        width = 0.8 / len(sides)
        for number, (colour, table) in enumerate(zip(SIDE_COLOURS[1:], sides.values(), strict=False)):
            places = np.arange(len(PHASES)) + (number - (len(sides) - 1) / 2) * width
            for share, alpha in (("p95", 0.45), ("p50", 1.0)):
                heights = [(table[name][lead.name] or {}).get(share, 0.0) for name in PHASES]
                chart.axes.bar(places, heights, width=0.9 * width, color=colour, alpha=alpha)
        chart.axes.set_xticks(range(len(PHASES)), PHASES)
        chart.legend([(colour, f"{name} (pale: p95)") for colour, name in zip(SIDE_COLOURS[1:], sides, strict=False)])
    return chart.image


def layers(calls: NDArray[Any], verified: NDArray[np.bool_], total: int) -> str:
    """Draw how many layers inferences ran, verification's second pass included; ``calls``, ``verified``: (n,)."""
    with chart_of("Layer calls, all inferences", "inferences", "layers") as chart:
        bins = [count - 0.5 for count in range(max(total, int(calls.max())) + 2)]
        chart.axes.hist([calls[~verified], calls[verified]], bins=bins, stacked=True, color=[RAN, VERIFIED])
        chart.axes.axvline(total, color=FAINT, linestyle="--", linewidth=0.9)
        chart.legend([(RAN, "not verified"), (VERIFIED, "verified"), (FAINT, f"full depth {total}")])
    return chart.image


def latencies(totals: Mapping[str, NDArray[Any]]) -> str:
    """Draw the spread of an inference's milliseconds, one outline a side; ``totals``: name -> (n,) ms."""
    limit = max(float(np.percentile(values, 99.5)) for values in totals.values()) * 1.05 or 1.0
    with chart_of("Milliseconds of an inference", "inferences", "ms") as chart:
        for colour, values in zip(SIDE_COLOURS, totals.values(), strict=False):
            shown = np.minimum(values, limit)
            chart.axes.hist(shown, bins=50, range=(0, limit), color=colour, alpha=0.55)
            chart.axes.axvline(float(np.percentile(values, 99)), color=colour, linewidth=1.0, linestyle="--")
        chart.legend([*zip(SIDE_COLOURS, totals, strict=False), ("white", "dashed: p99")])
    return chart.image


def latency_parts(sides: Mapping[str, tuple[Sequence[str], NDArray[Any]]]) -> str:
    """Draw the mean milliseconds of each part; ``sides``: name -> (names of the parts, (n, parts) ms)."""
    with chart_of("Where the milliseconds go, mean of all inferences", "", "ms") as chart:
        parts = [part for part in PART_COLOURS if part != "transfer"]
        for row, (names, values) in enumerate(sides.values()):
            left = 0.0
            for part in parts:
                mean = float(values[:, list(names).index(part)].mean())
                chart.axes.barh(row, mean, left=left, color=PART_COLOURS[part], height=0.6)
                left += mean
            chart.axes.text(left, row, f" {left:.1f}", va="center", color=INK)
        chart.axes.set_yticks(range(len(sides)), list(sides))
        chart.axes.invert_yaxis()
        chart.axes.margins(x=0.12)
        chart.axes.set_xlim(left=0)
        chart.legend([(PART_COLOURS[part], part) for part in parts])
    return chart.image


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the stretches (first, one past the last) in which ``flags`` is true."""
    changes = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in changes.reshape(-1, 2)]
