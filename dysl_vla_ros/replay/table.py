"""What a replay came to, as tables in the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dysl_vla_ros.records.deviation import Measure
from dysl_vla_ros.records.phases import PHASES
from dysl_vla_ros.replay.job import Outcome
from dysl_vla_ros.replay.run import FULL, SKIPPING

# heads of narrow columns
SHORT = {"degrees": "deg", "degrees/s": "deg/s", "rotation": "deg", "gripper": "grip"}
SHORT |= {"sliding joints": "sliding", "joints in shares of their range": "range %"}


def print_outcome(outcome: Outcome, folder: Path, console: Console | None = None) -> None:
    """Print topics, notes, the two sides, the phases, the verdict, and where the report is."""
    console = console or Console()
    about = outcome.about
    bag = about["bag"]
    frames = f"{about['inferences']} of {bag['frames']['seen']} frames used, {len(about['episodes'])} episodes"
    span = f"{bag['seconds']:.1f} s from the first frame that served to the last"
    console.print(f"{bag['path']}: {span}, {frames}", soft_wrap=True, markup=False)
    console.print(_topics(bag))
    for note in about["notes"]:
        console.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
    if about["against"]:
        against = about["against"]
        text = f"other: {against['name']} ({against['kind']}), on the {against['moments']} frames that both have"
        console.print(text, markup=False, soft_wrap=True)
    console.print(_sides(outcome))
    lead = outcome.replay.measures[0]
    rule = f"; rec: recorded, {lead.unit} p95" if about["recorded"] else ""
    console.print(f"skipping against full depth, the action played first{rule}", soft_wrap=True)
    console.print(_phases(outcome))
    if reports := about["recorded_layers"]:
        text = f"skip reports of {reports['frames']} frames: {reports['mean']:.1f} layers ran when it was recorded, "
        text += f"{reports['mean_here']:.1f} here; the very same ones on {reports['same_share']:.0%}"
        console.print(text, soft_wrap=True)
    for criterion in outcome.criteria:
        verdict = "[green]passed[/]" if criterion.passed else "[red]FAILED[/]"
        console.print(f"--{criterion.name}: {verdict}: {escape(criterion.text)}", soft_wrap=True)
    console.print(
        f"report: {folder / 'replay.html'}, figures: {folder / 'replay.json'}", highlight=False, soft_wrap=True
    )


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _topics(bag: Mapping[str, Any]) -> Table:
    table = _table("input", "topic", "messages", "Hz", "found")
    for role, served in bag["topics"].items():
        rate = f"{served['rate']:.3g}" if served["rate"] and role != "instruction" else ""
        table.add_row(role, served["topic"], str(served["count"]), rate, served["how"])
    return table


def _sides(outcome: Outcome) -> Table:
    about, timings, measured = outcome.about, outcome.timings, outcome.replay.measures
    against = about["against"]
    lead, further = measured[0], _further(measured)
    names = [f"{SHORT.get(lead.unit, lead.unit)} p95", "max", *(f"{name} p95" for name in further)]
    table = _table("", "layers", "verified", *names, "ms p50", "p99")
    total = about["layers"]["total"]
    full = timings[FULL]["total"]
    empty = [""] * (1 + len(names))
    table.add_row(FULL, f"{total} / {total}", *empty, f"{full['p50']:.1f}", f"{full['p99']:.1f}")
    own = about["deviation"]["all"]
    table.add_row(SKIPPING, *_side(about["layers"], own, timings[SKIPPING]["total"], measured))
    if against:
        other = against["other"]
        own = timings["against"]["other"]["total"]
        table.add_row("other", *_side(other["layers"], other["deviation"]["all"], own, measured))
    return table


def _further(measured: Sequence[Measure], skipped: Sequence[str] = ("rotation",)) -> dict[str, Measure]:
    """Return the measures behind the leading one by the heads of their columns."""
    return {SHORT.get(own.words, own.words): own for own in measured[1:] if own.words not in skipped}


def _side(
    layers: Mapping[str, Any], deviation: Mapping[str, Any], total: Mapping[str, Any], measured: Sequence[Measure]
) -> tuple[str, ...]:
    moved = deviation[measured[0].name]
    return (
        f"{layers['mean']:.1f} / {layers['total']}",
        f"{layers['verified_share']:.0%}",
        f"{moved['p95']:.2f}",
        f"{moved['max']:.2f}",
        *(f"{deviation[own.name]['p95']:.{own.digits}f}" for own in _further(measured).values()),
        f"{total['p50']:.1f}",
        f"{total['p99']:.1f}",
    )


def _phases(outcome: Outcome) -> Table:
    about, measured = outcome.about, outcome.replay.measures
    recorded, lead, further = about["recorded"], measured[0], _further(measured, ())
    unit = SHORT.get(lead.unit, lead.unit)
    columns = ["phase", "frames", unit, f"{unit} p95", *(f"{name} p95" for name in further)]
    columns += ["rec-full", "rec-skip"] if recorded else []
    table = _table(*columns)
    for name in (*PHASES, "all"):
        row = about["deviation"][name]
        cells = [name, str(row["moments"])]
        moved = row[lead.name]
        cells += [""] * (2 + len(further)) if moved is None else [
            f"{moved['p50']:.2f}",
            f"{moved['p95']:.2f}",
            *(f"{row[own.name]['p95']:.{own.digits}f}" for own in further.values()),
        ]  # fmt: skip
        for side in ("full", "skipping") if recorded else ():
            entry = recorded[side][name][lead.name]
            cells.append("" if entry is None else f"{entry['p95']:.2f}")
        table.add_row(*cells, style="bold" if name == "all" else None)
    return table
