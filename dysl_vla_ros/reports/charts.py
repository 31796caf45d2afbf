"""The report's charts, each a small SVG that stays readable at the width of a phone.

A chart answers one question about one episode (or all of them) and shares its colours with the others: blue is what
ran, grey what did not, orange what verification did.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dysl_vla_ros.records.trace import EpisodeRecord, InferenceRecord

RAN, SKIPPED, VERIFIED, INK, FAINT = "#1f5fa8", "#e9edf2", "#d9730d", "#1c2530", "#8a94a0"
BLOCK_COLOURS = ("#1f5fa8", "#2a8f6d", "#8a4fb0", "#b0473d", "#7a6a1d", "#3d7f96")
PART_COLOURS = {"vision": "#9db8d6", "stack": "#1f5fa8", "head": "#5d6b7a", "verify": "#d9730d", "transfer": "#c9ced6"}
_WIDTH, _HEIGHT = 4.7, 2.15  # inches: at 360 pixels across, 8.5 pt text is still about 6 pt
STYLE = {
    "font.family": "sans-serif",
    "font.size": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "dysl_vla_ros",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 7.5,
}


def executed_layers(episode: EpisodeRecord, title: str = "Layers executed") -> str:
    """Draw which layers each inference ran: time across, layers up, verified inferences in orange."""
    grid = np.array([inference.trace.executed for inference in episode.inferences], dtype=int).T  # (L, inferences)
    verified = np.array([inference.trace.verified for inference in episode.inferences])
    grid = grid * np.where(verified, 2, 1)
    with chart_of(title, "layer") as chart:
        chart.axes.pcolormesh(
            _edges(episode),
            np.arange(grid.shape[0] + 1) - 0.5,
            grid,
            cmap=ListedColormap([SKIPPED, RAN, VERIFIED]),
            vmin=0,
            vmax=2,
            rasterized=True,
        )
        for block in episode.blocks:
            for edge in block:
                chart.axes.axhline(edge - 0.5, color="white", linewidth=0.8)
        chart.legend([(RAN, "ran"), (SKIPPED, "skipped"), (VERIFIED, "ran, verified")])
    return chart.image


def layer_calls(episode: EpisodeRecord) -> str:
    """Draw how many layers each inference ran, the second pass of a verification on top, and when the object moved."""
    times, calls = _times(episode), episode.layer_calls
    with chart_of("Layer calls per inference", "layers") as chart:
        chart.axes.step(times, calls, where="post", color=RAN, linewidth=1.3)
        _mark_verified(chart.axes, episode, calls)
        chart.axes.axhline(episode.layers_total, color=FAINT, linestyle="--", linewidth=0.9)
        chart.axes.axhline(float(np.mean(calls)), color=RAN, linestyle=":", linewidth=0.9)
        chart.axes.set_ylim(0, max(episode.layers_total, int(calls.max())) * 1.08)
        moved = [(INK, "object moved")] if np.isfinite(episode.object_moved) else []
        for _ in moved:
            chart.axes.axvline(episode.object_moved, color=INK, linewidth=0.9)
        full, mean = f"full depth {episode.layers_total}", f"mean {np.mean(calls):.1f}"
        chart.legend([(FAINT, full), (RAN, mean), (VERIFIED, "verified"), *moved])
    return chart.image


def continuity(episode: EpisodeRecord) -> str:
    """Draw the trajectory's continuity C, and where its fall was verified."""
    values = np.array([inference.trace.continuity for inference in episode.inferences])
    with chart_of("Continuity C (higher: smoother)", "C") as chart:
        chart.axes.plot(_times(episode), values, color=RAN, linewidth=1.3)
        _mark_verified(chart.axes, episode, values)
        chart.legend([(RAN, "C"), (VERIFIED, "verified")])
    return chart.image


def allow_points(episode: EpisodeRecord) -> str:
    """Draw each block's allow point: at its band's lower edge all may be skipped, at its upper edge nothing."""
    points = np.array([inference.trace.allow_points for inference in episode.inferences])  # (inferences, blocks)
    with chart_of("Allow points (top of a band: block closed)", "layer") as chart:
        for number, (first, end) in enumerate(episode.blocks):
            colour = BLOCK_COLOURS[number % len(BLOCK_COLOURS)]
            chart.axes.axhspan(first, end, color=colour, alpha=0.09, linewidth=0)
            chart.axes.step(_times(episode), points[:, number], where="post", color=colour, linewidth=1.3)
        chart.axes.set_ylim(0, episode.layers_total)
        colours = [BLOCK_COLOURS[number % len(BLOCK_COLOURS)] for number in range(len(episode.blocks))]
        names = [f"block {first}-{end - 1}" for first, end in episode.blocks]
        chart.legend(list(zip(colours, names, strict=True)))
    return chart.image


def allow_point_shares(histograms: Sequence[Mapping[str, Any]]) -> str:
    """Draw how often each layer was its block's allow point; the last, hatched bar of a block is "closed"."""
    with chart_of("Allow points, all episodes", "% of inferences", "layer") as chart:
        for number, block in enumerate(histograms):
            counts = np.array(block["counts"], dtype=float)
            layers = np.arange(block["first"], block["end"] + 1) - 0.38 * (np.arange(counts.size) == counts.size - 1)
            shares = 100.0 * counts / max(counts.sum(), 1.0)
            colour = BLOCK_COLOURS[number % len(BLOCK_COLOURS)]
            chart.axes.bar(layers[:-1], shares[:-1], width=0.7, color=colour)
            chart.axes.bar(layers[-1:], shares[-1:], width=0.7, color="white", edgecolor=colour, hatch="////")
        colours = [BLOCK_COLOURS[number % len(BLOCK_COLOURS)] for number in range(len(histograms))]
        names = [f"block {block['first']}-{block['end'] - 1}" for block in histograms]
        chart.legend([*zip(colours, names, strict=True), ("white", "hatched: closed")])
    return chart.image


def latency(episode: EpisodeRecord) -> str:
    """Draw the milliseconds of each inference by part, and the age that its image had reached."""
    times = _times(episode)
    with chart_of("Milliseconds per inference", "ms") as chart:
        parts = np.array([[getattr(record.timings, part) for record in episode.inferences] for part in PART_COLOURS])
        chart.axes.stackplot(times, parts, colors=list(PART_COLOURS.values()), step="post", linewidth=0)
        legend = [(colour, part) for part, colour in PART_COLOURS.items()]
        ages = np.array([inference.image_age for inference in episode.inferences])
        if np.isfinite(ages).any():
            chart.axes.plot(times, ages, color=INK, linewidth=0.9)
            legend.append((INK, "image age"))
        chart.axes.set_ylim(bottom=0)
        chart.legend(legend)
    return chart.image


def latency_histogram(inferences: Sequence[InferenceRecord]) -> str:
    """Draw how the total milliseconds of all inferences are spread, verified ones apart."""
    total = np.array([inference.timings.total for inference in inferences])
    verified = np.array([inference.trace.verified for inference in inferences], dtype=bool)
    limit = float(np.percentile(total, 99.5)) * 1.05 or 1.0
    with chart_of("Total milliseconds, all inferences", "inferences", "ms") as chart:
        values = [np.minimum(total[~verified], limit), np.minimum(total[verified], limit)]
        chart.axes.hist(values, bins=40, range=(0, limit), stacked=True, color=[RAN, VERIFIED])
        for share, style in ((50, "-"), (99, "--")):
            chart.axes.axvline(float(np.percentile(total, share)), color=INK, linewidth=0.9, linestyle=style)
        chart.legend([(RAN, "not verified"), (VERIFIED, "verified"), (INK, "p50, p99 (dashed)")])
    return chart.image


def age_histogram(inferences: Sequence[InferenceRecord]) -> str:
    """Draw how old images were when their actions were ready; an empty text where no age was measured."""
    ages = np.array([inference.image_age for inference in inferences])
    ages = ages[np.isfinite(ages)]
    if not ages.size:
        return ""
    limit = float(np.percentile(ages, 99.5)) * 1.05 or 1.0
    with chart_of("Age of the image when its action was ready", "inferences", "ms") as chart:
        chart.axes.hist(np.minimum(ages, limit), bins=40, range=(0, limit), color=RAN)
        for share, style in ((50, "-"), (99, "--")):
            chart.axes.axvline(float(np.percentile(ages, share)), color=INK, linewidth=0.9, linestyle=style)
        chart.legend([(INK, "p50, p99 (dashed)")])
    return chart.image


def layers_histogram(inferences: Sequence[InferenceRecord]) -> str:
    """Draw how many layers inferences ran, over all episodes."""
    calls = np.array([inference.trace.layer_calls for inference in inferences])
    verified = np.array([inference.trace.verified for inference in inferences], dtype=bool)
    with chart_of("Layer calls, all inferences", "inferences", "layers") as chart:
        bins = [count - 0.5 for count in range(int(calls.max()) + 2)]
        chart.axes.hist([calls[~verified], calls[verified]], bins=bins, stacked=True, color=[RAN, VERIFIED])
        total = inferences[0].trace.layers_total
        chart.axes.axvline(total, color=FAINT, linestyle="--", linewidth=0.9)
        chart.legend([(RAN, "not verified"), (VERIFIED, "verified"), (FAINT, f"full depth {total}")])
    return chart.image


class chart_of:
    """A figure of the common size; on leaving the block it becomes an image for an ``src`` attribute."""

    def __init__(self, title: str, y_label: str, x_label: str = "s") -> None:
        self.image = ""
        self._labels = (title, y_label, x_label)
        self._style = matplotlib.rc_context(STYLE)

    def __enter__(self) -> "chart_of":
        self._style.__enter__()
        self._figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained", dpi=150)
        self.axes: Axes = self._figure.add_subplot()
        self.axes.margins(x=0.0)
        title, y_label, x_label = self._labels
        if x_label in ("layer", "layers"):
            self.axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        self.axes.set_title(title)
        self.axes.set_ylabel(y_label)
        self.axes.set_xlabel(x_label, loc="right", labelpad=-2)
        return self

    def legend(self, entries: Sequence[tuple[str, str]]) -> None:
        """Put a row of coloured squares with names under the axes."""
        handles = [matplotlib.patches.Patch(facecolor=colour, label=name) for colour, name in entries]
        self._figure.legend(
            handles=handles,
            loc="outside lower left",
            ncols=len(handles),
            handlelength=0.8,
            handleheight=0.8,
            columnspacing=1.0,
        )

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                target = io.StringIO()
                FigureCanvasSVG(self._figure).print_svg(target, metadata={"Date": None})
                self.image = "data:image/svg+xml;base64," + base64.b64encode(target.getvalue().encode()).decode()
        finally:
            self._style.__exit__(None, None, None)


def _times(episode: EpisodeRecord) -> NDArray[np.float64]:
    """Return the times of an episode's inferences: (inferences,), in seconds."""
    return np.array([inference.time for inference in episode.inferences])


def _edges(episode: EpisodeRecord) -> NDArray[np.float64]:
    """Return the borders between inferences, one more than there are inferences; the last is as wide as the median."""
    times = _times(episode)
    widths = [later - earlier for earlier, later in pairwise(times)]
    return np.append(times, times[-1] + (float(np.median(widths)) if widths else 0.05))


def _mark_verified(axes: Axes, episode: EpisodeRecord, heights: NDArray[Any]) -> None:
    """Put an orange point on every verified inference."""
    marked = [number for number, inference in enumerate(episode.inferences) if inference.trace.verified]
    axes.plot(_times(episode)[marked], heights[marked], "o", color=VERIFIED, markersize=3.2, linestyle="none")
