"""The one way to draw layers, continuity and time in a terminal, with blocks where it can do that, else in ASCII."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

RAN, VERIFIED, SKIPPED, MARK = "dodger_blue2", "dark_orange", "grey50", "bold magenta"


class Symbols(NamedTuple):
    """Characters for one kind of terminal."""

    ran: str
    skipped: str
    allow_point: str
    mark: str
    levels: str  # of a sparkline, lowest first


BLOCKS = Symbols("█", "·", "│", "▲", "▁▂▃▄▅▆▇█")
ASCII = Symbols("#", ".", "|", "^", "_.-=+*#")


def symbols_for(console: Console) -> Symbols:
    """Return the characters that a console can show."""
    return BLOCKS if (console.encoding or "").lower().startswith("utf") else ASCII


def layers(
    executed: Sequence[bool],
    symbols: Symbols,
    *,
    verified: bool = False,
    first: int = 0,
    allow_point: int | None = None,
) -> Text:
    """Draw one cell a layer.

    Args:
        executed: a flag a layer: it ran.
        symbols: of the terminal.
        verified: some of them ran again at full depth; another colour.
        first: number of the first layer drawn.
        allow_point: marked in front of the layer of this number; one past the last layer: the block is closed.
    """
    strip = Text()
    for layer, ran in enumerate(executed, start=first):
        if layer == allow_point:
            strip.append(symbols.allow_point, style=MARK)
        style = (VERIFIED if verified else RAN) if ran else SKIPPED
        strip.append(symbols.ran if ran else symbols.skipped, style=style)
    if allow_point == first + len(executed):
        strip.append(symbols.allow_point, style=MARK)
    return strip


def sparkline(values: Sequence[float], marked: Sequence[bool], symbols: Symbols) -> tuple[Text, Text]:
    """Draw values between their smallest and their largest, and below them a mark where ``marked`` says so.

    NaN leaves a gap; equal values are drawn at the lowest level.
    """
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    line, marks = Text(), Text()
    for value, mark in zip(values, marked, strict=True):
        cell = " "
        if math.isfinite(value):
            place = (value - low) / (high - low) if high > low else 0.0
            cell = symbols.levels[round(place * (len(symbols.levels) - 1))]
        line.append(cell, style=VERIFIED if mark else RAN)
        marks.append(symbols.mark if mark else " ", style=VERIFIED)
    return line, marks


def bar(value: float, longest: float, width: int, symbols: Symbols) -> Text:
    """Draw a value as a bar of at most ``width`` cells, which ``longest`` fills."""
    share = value / longest if longest > 0.0 and math.isfinite(value) else 0.0
    return Text(symbols.ran * round(width * min(max(share, 0.0), 1.0)), style=RAN)
