"""Runs at full depth, kept in memory: what calibration measures and replays. From the simulator or from a bag.

Some are searched on and others are kept to judge: by episode, by time where there is only one.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import FloatArray, Observation

SHORTEST_PART = 10  # inferences: a shorter piece of an episode is warm-up more than anything else


@dataclass(frozen=True)
class FullDepthRun:
    """One closed-loop episode at full depth."""

    observations: Sequence[Observation]  # one an inference
    chunks: FloatArray  # (inferences, H, A) physical units; the first m actions of each were played


class Part(NamedTuple):
    """A stretch of an episode."""

    episode: int
    start: int  # first inference
    end: int  # one past the last


def split_episodes(episodes: Sequence[tuple[str, int]], held_out_share: float) -> tuple[list[Part], list[Part]]:
    """Split episodes into those to learn from and those held out.

    Every instruction gives the last ``held_out_share`` of its episodes, at least one, to the second part. One with a
    single episode gives the later part of that, if it is long enough; else it is only learned from.

    Args:
        episodes: (instruction, number of inferences) of each.
        held_out_share: 0 to 1.

    Returns:
        (to learn from, held out), neither empty.

    Raises:
        DataError: there is too little to hold anything out.
    """
    assert 0.0 < held_out_share < 1.0
    by_instruction: dict[str, list[int]] = defaultdict(list)
    for number, (instruction, _) in enumerate(episodes):
        by_instruction[instruction].append(number)
    learned: list[Part] = []
    held_out: list[Part] = []
    for numbers in by_instruction.values():
        whole = [Part(number, 0, episodes[number][1]) for number in numbers]
        if len(whole) > 1:
            kept = max(1, round(held_out_share * len(whole)))
            learned += whole[:-kept]
            held_out += whole[-kept:]
            continue
        number, _, length = whole[0]
        border = length - max(SHORTEST_PART, round(held_out_share * length))
        if border < SHORTEST_PART:
            learned += whole
            continue
        learned.append(Part(number, 0, border))
        held_out.append(Part(number, border, length))
    if not learned or not held_out:
        total = sum(length for _, length in episodes)
        raise DataError(
            f"{len(episodes)} episodes with {total} inferences are too few to hold any out; record at least two "
            f"episodes of an instruction, or one of {2 * SHORTEST_PART} inferences"
        )
    return learned, held_out


def split_runs(
    runs: Sequence[FullDepthRun], held_out_share: float = 1 / 3
) -> tuple[list[FullDepthRun], list[FullDepthRun]]:
    """Split runs as :func:`split_episodes` does."""
    parts = split_episodes([(run.observations[0].instruction, len(run.chunks)) for run in runs], held_out_share)
    searched, held_out = ([_part_of(runs[n], start, end) for n, start, end in side] for side in parts)
    return searched, held_out


def thin_out(runs: Sequence[FullDepthRun], inferences: int) -> list[FullDepthRun]:
    """Return runs with no more than about ``inferences`` in all, taken evenly over the recording; at least two."""
    total = sum(len(run.chunks) for run in runs)
    if total <= inferences:
        return list(runs)
    wanted = max(2, round(len(runs) * inferences / total))
    return [runs[int(place)] for place in (i * len(runs) / wanted for i in range(wanted))]


def _part_of(run: FullDepthRun, start: int, end: int) -> FullDepthRun:
    return FullDepthRun(run.observations[start:end], run.chunks[start:end])
