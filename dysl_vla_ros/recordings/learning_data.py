"""Bags as ground to learn from: which frames are learned from, which are held out, and whether that is enough.

Only what the policy sees is read; the targets are the policy's own at full depth, so that neither labels nor a
simulator are needed. A bag is gone through once to find its episodes, then once for each thing taken from it; pictures
of frames that are not wanted do not stay in memory.
"""

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.interfaces import Observation, PolicyDescription
from dysl_vla_ros.recordings.full_depth import full_depth_runs
from dysl_vla_ros.recordings.source import Choice, open_source, reading_notes, require_moments
from dysl_vla_ros.runs.full_depth import FullDepthRun, split_episodes
from dysl_vla_ros.runs.training_data import HELD_OUT_SHARE, draw_evenly
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import SafetySettings

ENOUGH_MINUTES = 2.0  # docs/your-robot.md has what was measured
ENOUGH_EPISODES = 4  # of each instruction


LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stretch:
    """An episode of a bag, or a part of one."""

    bag: Path
    instruction: str
    frames: tuple[int, ...]  # numbers of the first camera's frames that can serve
    times: tuple[float, ...]  # s of bag time of each

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.times[-1] - self.times[0]


class RecordedData:
    """Some bags, split into episodes to learn from and episodes held out."""

    def __init__(self, bags: Sequence[Path], description: PolicyDescription, choice: Choice | None = None) -> None:
        """Go through the bags once.

        Raises:
            BagError: a bag cannot serve the policy.
            DataError: there is too little to hold anything out.
        """
        self._bags, self._choice = tuple(bags), choice or Choice()
        self._description = description
        self._notes: list[str] = []
        self.episodes = [stretch for bag in bags for stretch in self._scan(bag)]
        parts = split_episodes([(own.instruction, len(own.frames)) for own in self.episodes], HELD_OUT_SHARE)
        self.learned, self.held_out = (
            [
                dataclasses.replace(
                    self.episodes[number],
                    frames=self.episodes[number].frames[start:end],
                    times=self.episodes[number].times[start:end],
                )
                for number, start, end in side
            ]
            for side in parts
        )

    @property
    def minutes(self) -> float:
        """How much was recorded that can serve."""
        return sum(own.seconds for own in self.episodes) / 60.0

    def learned_count(self, count: int) -> int:
        """Return how many observations :meth:`observations` yields of ``count``."""
        return min(count, sum(len(own.frames) for own in self.learned))

    def observations(self, count: int, seed: int = 0) -> Iterator[Observation]:
        """Yield up to ``count`` observations to learn from, as many of each instruction while they last."""
        yield from self._drawn(self.learned, count, seed)

    def held_out_observations(self, count: int, seed: int = 0) -> Iterator[Observation]:
        """Yield up to ``count`` held-out observations, as many of each instruction while they last."""
        yield from self._drawn(self.held_out, count, seed)

    def in_order(self, count: int, *, held_out: bool = False) -> tuple[Iterator[Observation], tuple[bool, ...]]:
        """Return about ``count`` observations of whole episodes in their order, and whether each begins one."""
        side = self.held_out if held_out else self.learned
        sizes = np.cumsum([len(own.frames) for own in side])
        stretches = side[: int(np.searchsorted(sizes, count)) + 1]
        places = sorted((own.bag, frame) for own in stretches for frame in own.frames)
        firsts = {(own.bag, own.frames[0]) for own in stretches}
        return self._read(places), tuple(place in firsts for place in places)

    def _drawn(self, stretches: Sequence[Stretch], count: int, seed: int) -> Iterator[Observation]:
        places = [(own.bag, frame) for own in stretches for frame in own.frames]
        said = [own.instruction for own in stretches for _ in own.frames]
        drawn = draw_evenly(np.array(said), count, seed)
        yield from self._read(places[int(number)] for number in drawn)

    def _read(self, places: Iterable[tuple[Path, int]]) -> Iterator[Observation]:
        for bag, frames in _by_bag(places).items():
            with BagReader(bag) as reader:
                chosen = dataclasses.replace(self._choice, chosen=frozenset(frames).__contains__)
                for moment in open_source(reader, self._description, SafetySettings(), chosen, history=False).moments:
                    yield moment.observation

    def told(self) -> dict[str, Any]:
        """Return the bags and what the user said of them, as plain values for result files."""
        return {"bags": [str(bag) for bag in self._bags], **self._choice.told()}

    def held_out_runs(self, runtime: Runtime, m: int, limit: int = 2000) -> list[FullDepthRun]:
        """Run every layer on what is held out: about ``limit`` inferences, whole episodes from all over the bags."""
        runs: list[FullDepthRun] = []
        for bag, frames in self._evenly_held_out(m, limit).items():
            chosen = dataclasses.replace(self._choice, chosen=frozenset(frames).__contains__)
            runs += full_depth_runs([bag], runtime, m, choice=chosen, limit=len(frames))
        return runs

    def held_out_episodes(self, m: int, limit: int = 2000) -> Iterator[tuple[Observation, bool]]:
        """Yield what is held out, ``m`` action time steps apart, and whether each observation begins an episode.

        About ``limit`` of them, whole episodes from all over the bags.
        """
        for bag, frames in self._evenly_held_out(m, limit).items():
            chosen = dataclasses.replace(self._choice, chosen=frozenset(frames).__contains__, actions_between=m)
            with BagReader(bag) as reader:
                for moment in open_source(reader, self._description, SafetySettings(), chosen, history=False).moments:
                    yield moment.observation, bool(moment.begins)

    def _evenly_held_out(self, m: int, limit: int) -> dict[Path, list[int]]:
        """Return the frames of whole episodes that are held out, for about ``limit`` inferences, by bag."""
        total = sum(len(own.frames) for own in self.held_out)
        wanted = len(self.held_out) if total <= limit * m else max(1, round(len(self.held_out) * limit * m / total))
        kept = [self.held_out[number * len(self.held_out) // wanted] for number in range(wanted)]
        return _by_bag((own.bag, frame) for own in kept for frame in own.frames)

    def summary(self) -> str:
        """Return how much there is, in one line."""
        instructions = {own.instruction for own in self.episodes}
        seconds = sum(own.seconds for own in self.held_out)
        return (
            f"{_length(60.0 * self.minutes)} in {len(self.episodes)} episodes of {len(instructions)} instructions, "
            f"{sum(len(own.frames) for own in self.episodes)} frames; "
            f"held out: {len(self.held_out)} episodes or parts, {_length(seconds)}"
        )

    def warnings(self) -> list[str]:
        """Say what was left out or changed, and what there is too little of."""
        found = list(self._notes)
        if self.minutes < ENOUGH_MINUTES:
            found.append(
                f"{_length(60.0 * self.minutes)} are little: below {ENOUGH_MINUTES:g} minutes the held-out figures say "
                "little of the robot; record more, and let `dysl_vla replay` judge on another recording"
            )
        episodes: dict[str, int] = defaultdict(int)
        for own in self.episodes:
            episodes[own.instruction] += 1
        few = [repr(text) for text, number in episodes.items() if number < ENOUGH_EPISODES]
        if few:
            those = ", ".join(few[:4]) + (" and others" if len(few) > 4 else "")
            found.append(
                f"fewer than {ENOUGH_EPISODES} episodes of {those}: record each instruction from several starts"
            )
        unknown = sorted({own.instruction for own in self.episodes} - set(self._description.instructions))
        if unknown and self._description.instructions:
            known = ", ".join(repr(text) for text in self._description.instructions[:3])
            found.append(
                f"the policy was not trained on {', '.join(map(repr, unknown[:3]))} (but on {known} and others)"
            )
        return found

    def _scan(self, bag: Path) -> list[Stretch]:
        found: list[Stretch] = []
        frames: list[int] = []
        times: list[float] = []
        instruction, single = "", [0]

        def end() -> None:
            if len(frames) > 1:
                found.append(Stretch(bag, instruction, tuple(frames), tuple(times)))
            single[0] += len(frames) == 1
            frames.clear()
            times.clear()

        with BagReader(bag) as reader:
            source = open_source(reader, self._description, SafetySettings(), self._choice)
            served = 0
            for moment in tqdm(source.moments, desc=f"looking through {bag.name}", unit="frame", delay=1.0):
                if moment.begins:
                    end()
                instruction = moment.observation.instruction
                frames.append(moment.frame)
                times.append(moment.time)
                served += 1
            end()
            require_moments(served, source.moments, bag)
            self._notes += [f"{bag}: {text}" for text in reading_notes(reader, source)]
            if single[0]:
                self._notes.append(f"{bag}: {single[0]} episodes of a single frame are left out.")
        return found


def open_recordings(
    bags: Sequence[Path],
    description: PolicyDescription,
    unreadable: Callable[[str], str],
    choice: Choice | None = None,
) -> RecordedData:
    """Go through bags once for a policy, and say how much there is.

    Args:
        bags: recordings.
        description: of the policy.
        unreadable: says why it cannot read an instruction, "" where it can.
        choice: how they are read; what the policy cannot read of their instructions is left out in any case.

    Raises:
        BagError: a bag cannot serve the policy.
        DataError: there is too little to hold anything out.
    """
    judged = dataclasses.replace(choice or Choice(), unreadable=unreadable)
    data = RecordedData(bags, description, judged)
    LOG.info(data.summary())
    for warning in data.warnings():
        LOG.warning(warning)
    return data


def _length(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60.0 else f"{seconds / 60.0:.1f} minutes"


def _by_bag(places: Iterable[tuple[Path, int]]) -> dict[Path, list[int]]:
    found: dict[Path, list[int]] = defaultdict(list)
    for bag, frame in places:
        found[bag].append(frame)
    return found
