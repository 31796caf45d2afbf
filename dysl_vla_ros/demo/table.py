"""What the demo shows while it runs: a table that lives, or a plain line an episode."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dysl_vla_ros.records.summary import layer_medians, summarise
from dysl_vla_ros.records.trace import EpisodeRecord
from dysl_vla_ros.terminal.strips import layers, symbols_for

REFRESH = 4.0  # Hz: the table costs the nodes' cores time
RECENT = 20  # inferences that the live figures are taken over: one second


class View(Protocol):
    """Something that shows the demo; a ``with`` block around the run."""

    def __enter__(self) -> "View": ...

    def __exit__(self, *details: object) -> None: ...

    def say(self, text: str) -> None:
        """Show what is going on."""

    def begin(self, record: EpisodeRecord) -> None:
        """Show an episode that fills from now on."""

    def end(self, record: EpisodeRecord) -> None:
        """Show how it ended."""


class PlainLines:
    """One line an episode, for logs and for terminals that cannot do more."""

    def __enter__(self) -> "PlainLines":
        return self

    def __exit__(self, *details: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)

    def begin(self, record: EpisodeRecord) -> None:
        """Say nothing before the end."""

    def end(self, record: EpisodeRecord) -> None:
        """Print the episode's line."""
        print(episode_line(record), flush=True)


class LiveTable:
    """A row an instruction, the running one with figures of the last second, and the layers of the last inference."""

    def __init__(self, instructions: Sequence[str], episodes: int, console: Console | None = None) -> None:
        """Show a row for each instruction; ``episodes`` are played of each."""
        self._console = console or Console()
        self._instructions, self._episodes = list(dict.fromkeys(instructions)), episodes
        self._ended: list[EpisodeRecord] = []
        self._running: EpisodeRecord | None = None
        self._status = ""
        self._live = Live(
            get_renderable=self.render, console=self._console, refresh_per_second=REFRESH, transient=False
        )

    def __enter__(self) -> "LiveTable":
        self._live.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._running = None
        self._live.__exit__(None, None, None)

    def say(self, text: str) -> None:
        """Show a line under the table."""
        self._status = text

    def begin(self, record: EpisodeRecord) -> None:
        """Show a running episode."""
        self._running = record
        self._status = f"playing seed {record.seed}"

    def end(self, record: EpisodeRecord) -> None:
        """Count the episode."""
        self._ended.append(record)
        self._running = None

    def render(self) -> Group:
        """Draw the present state; called from the table's own thread."""
        running = self._running
        table = Table(title="DySL-VLA demo", title_justify="left", expand=False)
        table.add_column("instruction")
        for name, width in (("success", 8), ("layers", 10), ("ms", 6), ("Hz", 5), ("verified", 8)):
            table.add_column(name, justify="right", no_wrap=True, min_width=width)  # no jumping while figures change
        for instruction in self._instructions:
            ended = [record for record in self._ended if record.instruction == instruction]
            live = running if running is not None and running.instruction == instruction else None
            table.add_row(*self._cells(instruction, ended, live), style="bold" if live else ("" if ended else "dim"))
        return Group(table, *self._lines(running))

    def _cells(self, instruction: str, ended: Sequence[EpisodeRecord], live: EpisodeRecord | None) -> list[str]:
        success = f"{sum(record.success for record in ended)} of {len(ended)}" if ended else "-"
        shown = [live] if live is not None and live.inferences else list(ended)
        return [("> " if live else "  ") + instruction, success, *figures(shown, RECENT if live else None)]

    def _lines(self, running: EpisodeRecord | None) -> list[Text]:
        lines = [Text(self._status)]
        if running is not None and running.inferences:
            trace = running.inferences[-1].trace
            strip = Text("layers  ")
            strip.append_text(layers(trace.executed, symbols_for(self._console), verified=trace.verified))
            strip.append(f"  {trace.layer_calls} of {trace.layers_total}")
            strip.append("  verified" if trace.verified else "")
            lines.append(strip)
        return lines


def figures(records: Sequence[EpisodeRecord], recent: int | None = None) -> list[str]:
    """Return layers, milliseconds (p50), rate and verified share as texts, over the ``recent`` inferences or all."""
    inferences = [inference for record in records for inference in list(record.inferences)[-(recent or 0) :]]
    if not inferences:
        return ["-"] * 4
    if recent:
        span = inferences[-1].time - inferences[0].time
        rate = (len(inferences) - 1) / span if span > 0 else 0.0
    else:
        rate = len(inferences) / sum(record.seconds for record in records)
    calls = np.mean([inference.trace.layer_calls for inference in inferences])
    milliseconds = np.median([inference.timings.total for inference in inferences])
    verified = np.mean([inference.trace.verified for inference in inferences])
    total = inferences[-1].trace.layers_total
    return [f"{calls:.1f} of {total}", f"{milliseconds:.1f}", f"{rate:.1f}", f"{100 * verified:.0f} %"]


def episode_line(record: EpisodeRecord) -> str:
    """Return an episode as one line."""
    layers, milliseconds, rate, verified = figures([record])
    outcome = "success" if record.success else "no success"
    parts = layer_medians([(list(record.layer_calls), record.fetching)])
    if None not in (before := parts["layers_median_fetching"], after := parts["layers_median_moving"]):
        layers += f" (median {before:g} until the object moved, {after:g} then)"
    return (
        f"{record.instruction}, seed {record.seed}: {outcome} after {record.ticks} ticks; layers {layers}, "
        f"{milliseconds} ms, {rate} Hz, verified {verified}"
    )


def closing_lines(records: Sequence[EpisodeRecord]) -> list[str]:
    """Return what all episodes came to, in two or three lines."""
    overall = summarise(records)["overall"]
    lines = [f"success {overall['successes']} of {overall['episodes']} episodes"]
    if overall["layers_mean"] is not None:
        total, age = overall["timings"]["total"], overall["timings"]["image_age"]
        lines.append(
            f"layers {overall['layers_mean']:.1f} of {overall['layers_total']} on average "
            f"(standard deviation within an episode {overall['layers_std_within']:.1f}), "
            f"verified {100 * overall['verified_share']:.0f} %"
        )
        lines.append(f"inference p50 {total['p50']:.1f} ms, p99 {total['p99']:.1f} ms, {overall['rate']:.1f} Hz")
        if age["p50"] is not None:
            lines[-1] += f"; image to action p50 {age['p50']:.0f} ms, p99 {age['p99']:.0f} ms"
    return lines
