"""``floors.json`` in the terminal: a row a floor, full depth below them, and a sentence a set about the knee."""

from collections.abc import Mapping, Sequence
from typing import Any

from dysl_vla_ros.comparison.floor_records import comparable, of_set, sets_played
from dysl_vla_ros.floors.knee import knee, sentence

HEADS = ("floor", "layers", "parameters", "steps", "seconds", "action L1")
WIDTHS = (30, 10, 12, 8, 9, 11)
SUCCESS_WIDTH, NOT_PLAYED = 13, "not played"


def print_floors(floors: Mapping[str, Mapping[str, Any]], full_depth: Mapping[str, Any] | None, layers: int) -> None:
    """Print every floor, in the order of its layers; success has a column for each set of tasks that was played."""
    sets = sets_played([full_depth, *(own.get("closed_loop") for own in floors.values())])
    widths = (*WIDTHS, *(SUCCESS_WIDTH for _ in sets or ("none",)))
    for label, *cells in _rows(floors, full_depth, layers, sets):
        line = f"{label:<{widths[0]}}" + "".join(f"{cell:>{w}}" for cell, w in zip(cells, widths[1:], strict=True))
        print(line)
    played = [own for own in floors.values() if own.get("closed_loop")]
    if full_depth is None:
        if played:
            print("knee: full depth was not played in these scenes; --evaluate N plays it")
        return
    if others := len(played) - len(comparable(floors, full_depth)):
        print(f"{others} of the floors were played in other scenes than full depth and do not count below")
    for name in sets:
        if found := knee(floors, full_depth, name):
            print(sentence(name, found, layers))


def _rows(
    floors: Mapping[str, Mapping[str, Any]], full_depth: Mapping[str, Any] | None, layers: int, sets: Sequence[str]
) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [(*HEADS, *(sets or ("closed loop",)))]
    for name, own in sorted(floors.items(), key=lambda item: (item[1]["layers"], item[1]["floor_error"])):
        label = name if len(own["choices"]) == 1 else f"{name} (both)"
        rows.append(
            (
                label, f"{own['layers']}/{layers}", f"{own['trainable_parameters']:,}", str(own["training_steps"]),
                f"{own['training_seconds']:.0f}", f"{own['floor_error']:.4f}",
                *_successes(own.get("closed_loop"), sets),
            )
        )  # fmt: skip
    if full_depth:
        rows.append(("full depth", f"{layers}/{layers}", "", "", "", "", *_successes(full_depth, sets)))
    return rows


def _successes(record: Mapping[str, Any] | None, sets: Sequence[str]) -> list[str]:
    if not sets:
        return [NOT_PLAYED]
    found = [of_set(record, name) for name in sets]
    return [f"{own.successes}/{own.episodes}" if own else NOT_PLAYED for own in found]
