"""How a :class:`MonitorState` looks: a picture for a terminal, or one plain line."""

import math
import time
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from dysl_vla_ros.monitor.state import LEVELS, MonitorState
from dysl_vla_ros.terminal.strips import Symbols, bar, layers, sparkline, symbols_for

COLOURS = {"OK": "green", "WARN": "yellow", "ERROR": "bold red", "STALE": "magenta"}
BAR = 16  # cells of the longest latency bar
SIDE_BY_SIDE = 104  # columns from which layers and latency stand beside each other
TOPICS = ("skip_report", "action", "transition_event")


def picture(state: MonitorState, now: float, console: Console) -> RenderableType:
    """Draw everything; ``now`` is on the state's clock."""
    symbols = symbols_for(console)
    if not state.heard:
        return Text("\n".join(waiting_lines(state)))
    parts: list[RenderableType] = [_headline(state, now)]
    if state.report is not None:
        left, right = _layers(state, now, symbols), _latency(state, now, symbols)
        if console.width >= SIDE_BY_SIDE:
            beside = Table.grid(padding=(0, 3))
            beside.add_row(left, right)
            parts.append(beside)
        else:
            parts += [left, right]
        parts += _continuity(state, symbols)
    elif not state.silent(now):
        parts.append(Text("no inference heard yet: it needs the state active, an instruction and fresh inputs"))
    parts.append(_stop(state, now))
    parts.append(_diagnostics(state))
    if state.silent(now):
        parts += [Text(line, style="bold red") for line in _silence_lines(state, now)]
    return Group(*parts)


def waiting_lines(state: MonitorState) -> list[str]:
    """Say what is waited for, what else there is, and why nothing may be heard."""
    around = state.surroundings
    topics = ", ".join(f"{state.node}/{name}" for name in TOPICS)
    lines = [f"waiting for {state.node}: nothing heard yet on {topics} and its statuses on /diagnostics"]
    if around.on_graph:
        lines.append(f"  {state.node} is on the graph: it will be heard within a second, or it has just died")
    if around.others:
        lines.append(f"  nodes of this kind on the graph: {', '.join(around.others)} (choose one with --node)")
    elif not around.on_graph:
        lines.append("  no node of this kind is on the graph")
    lines.append(f"  here: ROS_DOMAIN_ID {around.domain}, discovery range {around.discovery}, {around.rmw or 'no RMW'}")
    lines += [f"  {hint}" for hint in discovery_hints(around.discovery)]
    return lines


def discovery_hints(discovery: str) -> list[str]:
    """Say what a discovery range hides."""
    same = "the node must have the same ROS_DOMAIN_ID; under `make demo` it has a random one unless you set it"
    if discovery == "LOCALHOST":
        return [same, "LOCALHOST hides other machines: set ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET on both"]
    if discovery == "OFF":
        return [same, "OFF hides every node that ROS_STATIC_PEERS does not name: set SUBNET, or name the peer"]
    return [same, "another machine must be in this subnet, let multicast through, or be named in ROS_STATIC_PEERS"]


def plain_line(state: MonitorState, now: float, symbols: Symbols) -> str:
    """Say the same in one line, without colours."""
    clock = time.strftime("%H:%M:%S")
    if not state.heard:
        return f"{clock} {'; '.join(line.strip() for line in waiting_lines(state))}"
    if state.silent(now):
        return f"{clock} {'; '.join(_silence_lines(state, now))}"
    pieces = [
        f"{state.node} {state.lifecycle or 'heard'}",
        f"{state.inferences.value(now):.1f} inferences/s, {state.commands.value(now):.1f} commands/s",
    ]
    if (report := state.report) is not None:
        strip = layers(report.executed, symbols).plain
        pieces.append(f"layers {state.mean_layers(now):.1f} of {report.layers_total} [{strip}]")
        if timings := state.timings(now):
            parts = ", ".join(f"{part} {p50:.1f}" for part, (p50, _, _) in timings.items() if part != "total")
            pieces.append(f"{timings['total'][0]:.1f} ms ({parts})")
        pieces.append(f"C {report.continuity:.3f}{', verified' if report.verified else ''}")
        pieces += [to_play] if (to_play := _to_play(report)) else []
        pieces.append(f"image {report.image_age_ms:.0f} ms old")
    pieces.append(f"stopped: {state.stop_now}" if state.stop_now else "no stop" if not state.last_stop else "playing")
    worst = [status for status in state.statuses if status.level > 0]
    pieces += [f"{LEVELS[status.level]} {status.name}: {status.message}" for status in worst] or ["diagnostics OK"]
    return f"{clock} {' | '.join(pieces)}"


def _to_play(report: Any) -> str:
    """Say how many actions of the chunk are played; "" in a recording from before the message had it."""
    number = int(getattr(report, "actions_to_play", 0))
    return f"{number} action{'' if number == 1 else 's'} of the chunk" if number else ""


def _headline(state: MonitorState, now: float) -> Text:
    silent = state.silent(now)
    headline = Text()
    headline.append(state.node, style="bold")
    headline.append(f"  {state.lifecycle or 'state not told yet'}", style="dim" if silent else "green")
    headline.append(f"  {state.inferences.value(now):.1f} inferences/s  {state.commands.value(now):.1f} commands/s")
    if state.report is not None:
        report = state.report
        headline.append(f"  image age {report.image_age_ms:.0f} ms")
        counted = [f"\nepisode {state.episode}", f"inference {report.inference}", *filter(None, [_to_play(report)])]
        headline.append(", ".join(counted), style="dim")
    if state.gaps:
        headline.append(f"  fell silent {state.gaps} times", style="yellow")
    return headline


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 2 else "right", no_wrap=True, overflow="crop")
    return table


def _layers(state: MonitorState, now: float, symbols: Symbols) -> Table:
    """One bar a block, the allow point marked; then the static layers."""
    report = state.report
    title = f"layers: {report.layer_calls} of {report.layers_total}, mean {state.mean_layers(now):.1f}"
    if report.full_depth_reason:
        title += f" (full depth: {report.full_depth_reason})"
    if report.verified:
        title += f" (verified: {report.verify_reason})"
    table = _table(title, "block", f"ran ({symbols.allow_point} allow point)", "layers", "controller")
    executed = list(report.executed)
    dynamic = set()
    for block, (first, end) in enumerate(zip(report.block_first, report.block_end, strict=True)):
        cells, point = executed[first:end], int(report.allow_points[block])
        dynamic |= set(range(first, end))
        output = report.controller_outputs[block]
        table.add_row(
            f"{first}-{end - 1}",
            layers(cells, symbols, verified=report.verified, first=first, allow_point=point),
            f"{sum(cells)} of {end - first}",
            f"{output:.2f}" if math.isfinite(output) else "-",
        )
    static = [ran for layer, ran in enumerate(executed) if layer not in dynamic]
    ran = f"{sum(static)} of {len(static)}"
    table.add_row("static", layers(static, symbols, verified=report.verified), ran, "")
    return table


def _latency(state: MonitorState, now: float, symbols: Symbols) -> Table:
    timings = state.timings(now)
    table = _table("milliseconds", "part", "p50", "p95", "max", "")
    table.columns[1].justify, table.columns[-1].justify = "right", "left"
    longest = max((p50 for part, (p50, _, _) in timings.items()), default=0.0)
    for part, (p50, p95, largest) in timings.items():
        figures = [f"{value:.1f}" for value in (p50, p95, largest)]
        cells = Text.assemble(bar(p50, longest, BAR, symbols))
        cells.pad_right(BAR - len(cells))  # no jumping while figures change
        table.add_row(part, *figures, cells, style="bold" if part == "total" else "")
    return table


def _continuity(state: MonitorState, symbols: Symbols) -> list[Text]:
    values, marked = state.line()
    line, marks = sparkline(values, marked, symbols)
    report = state.report
    said = f"continuity {report.continuity:.4f}, change {report.continuity_change:+.4f} ({symbols.mark} verified)"
    return [Text(said), line, marks]


def _stop(state: MonitorState, now: float) -> Text:
    if state.stop_now:
        return Text(f"stopped: {state.stop_now}", style="bold red")
    if state.last_stop:
        return Text(f"playing; last stop {now - state.last_stop_at:.0f} s ago: {state.last_stop}", style="yellow")
    return Text("no stop heard", style="dim")


def _diagnostics(state: MonitorState) -> RenderableType:
    if not state.statuses:
        return Text(f"no status of {state.node} heard on /diagnostics yet", style="dim")
    grid = Table.grid(padding=(0, 2))
    for status in sorted(state.statuses, key=lambda status: -status.level):  # the worst first
        level = LEVELS[status.level]
        grid.add_row(Text(level, style=COLOURS[level]), Text(status.name), Text(status.message))
    return grid


def _silence_lines(state: MonitorState, now: float) -> list[str]:
    where = "still on the graph (a dead node stays there for 20 s)" if state.surroundings.on_graph else "off the graph"
    last = f", last state {state.lifecycle}" if state.lifecycle else ""
    return [
        f"{state.node} has been silent for {now - state.last_heard:.0f} s{last}: it ended, or the network lost it",
        f"it is {where}; waiting for it to come back",
    ]
