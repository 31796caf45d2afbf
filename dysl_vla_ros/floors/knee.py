"""The knee of the front: the smallest floor that does as well as full depth, and how sure that is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dysl_vla_ros.comparison.floor_records import OfSet, comparable, of_set
from dysl_vla_ros.records.intervals import difference, paired_difference

MARGIN = 1  # points below full depth that count as none


@dataclass(frozen=True)
class Knee:
    """The smallest floor within ``MARGIN`` of full depth, or the best one where none is."""

    floor: Mapping[str, Any]
    own: OfSet
    full: OfSet
    reached: bool
    resolvable: float  # share of success: a difference below it is within what chance does at so many scenes


def knee(floors: Mapping[str, Mapping[str, Any]], full_depth: Mapping[str, Any] | None, name: str) -> Knee | None:
    """Find the knee of a set of tasks.

    Args:
        floors: the records of ``floors.json``; those that full depth's scenes were not played with do not count.
        full_depth: its closed-loop record.
        name: of the set.

    Returns:
        None where full depth, or no floor, was played on the set. Of floors of equal layers the better one is taken.
    """
    full = of_set(full_depth, name)
    played = [(floor, own) for floor in comparable(floors, full_depth) if (own := of_set(floor["closed_loop"], name))]
    if full is None or not played:
        return None
    within = [pair for pair in played if 100 * (full.successes - pair[1].successes) <= MARGIN * full.episodes]
    if within:
        floor, own = min(within, key=lambda pair: (pair[0]["layers"], -pair[1].successes))
    else:
        floor, own = max(played, key=lambda pair: (pair[1].successes, -pair[0]["layers"]))
    return Knee(floor, own, full, bool(within), resolvable(own, full))


def resolvable(own: OfSet, full: OfSet) -> float:
    """Return half the width of the difference's 95% interval: paired where both kept how each scene ended."""
    if own.outcomes is not None and full.outcomes is not None:
        _, low, high = paired_difference(own.outcomes, full.outcomes)
    else:
        _, low, high = difference(own.successes, own.episodes, full.successes, full.episodes)
    return (high - low) / 2


def sentence(name: str, found: Knee, layers: int) -> str:
    """Say it for a policy of so many layers."""
    floor, full = found.floor, f"{found.full.successes}/{found.full.episodes}"
    kind = f"{' or '.join(floor['choices'])}, {floor['adapter']}"
    which = f"{floor['layers']} of {layers} layers ({kind}): {found.own.successes}/{found.own.episodes}"
    if found.reached:
        said = f"{which}, full depth {full}"
    else:
        said = f"no floor comes within {_points(MARGIN)} of full depth's {full}; the best is {which}"
    points = 100 * found.resolvable
    least = _points(round(points)) if points >= 1 else f"{points:.1f} points"
    sure = f"at {found.full.episodes} scenes a difference below about {least} cannot be told from chance"
    return f"knee, {name}: {said}; {sure}"


def _points(count: int) -> str:
    return f"{count} point{'' if count == 1 else 's'}"
