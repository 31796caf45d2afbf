"""What calibration and distillation take from bags: full-depth runs, and observations drawn from all of it."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.control.chunk_time import require_actions
from dysl_vla_ros.errors import NonFiniteActionError, ObservationError
from dysl_vla_ros.interfaces import FloatArray, Observation, PolicyDescription
from dysl_vla_ros.recordings.playback import Player
from dysl_vla_ros.recordings.source import Choice, instruction_judge, open_source, reading_notes, require_moments
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import FULL_DEPTH, SafetySettings

SHORTEST_RUN = 5  # inferences; fewer have no continuity worth measuring


def full_depth_runs(
    bags: Sequence[Path],
    runtime: Runtime,
    m: int = 1,
    *,
    choice: Choice | None = None,
    safety: SafetySettings | None = None,
    limit: int = 20_000,
    notes: list[str] | None = None,
) -> list[FullDepthRun]:
    """Run every layer on recordings, an inference each ``m`` action time steps, an episode a run.

    Pictures stay in memory, those of 640x480 pixels with 0.9 MB each: hence the limit.

    Args:
        bags: recordings.
        runtime: of the policy; its episode is forgotten. Adapters do not matter.
        m: actions played of each chunk, as deployed.
        choice: topics and instruction; ``actions_between`` is set here.
        safety: the ages that end an episode; None: the node's defaults.
        limit: inferences in all.
        notes: taken here is what is to be said of the recordings, in sentences.

    Raises:
        BagError: a bag cannot serve.
        SettingError: the policy's chunks have fewer than ``m`` actions.
    """
    require_actions(m, runtime.description.action.horizon)
    choice = choice or Choice()
    spaced = dataclasses.replace(choice, actions_between=m, unreadable=instruction_judge(runtime.policy))
    settings = dataclasses.replace(FULL_DEPTH, actions_per_inference=m)
    runs: list[FullDepthRun] = []
    bar = tqdm(desc="full depth", unit="frame", total=limit)
    for path in bags:
        with BagReader(path) as reader:
            source = open_source(reader, runtime.description, safety or SafetySettings(), spaced)
            player = Player(runtime, settings)
            observations: list[Observation] = []
            chunks: list[FloatArray] = []
            count = short = 0
            for moment in source.moments:
                if bar.n >= limit:
                    break
                if moment.begins:
                    short += _end_run(runs, observations, chunks)
                    player.begin(moment.clock)
                try:
                    chunk = player.step(moment)[0].chunk.actions
                except (NonFiniteActionError, ObservationError) as error:
                    source.moments.refuse(f"inference failed: {error}")
                    continue
                observations.append(moment.observation)
                chunks.append(chunk)
                count += 1
                bar.update()
            short += _end_run(runs, observations, chunks)
            if notes is not None:
                notes += [f"{path}: {text}" for text in reading_notes(reader, source)]
                if short:
                    notes.append(f"{path}: {short} episodes of fewer than {SHORTEST_RUN} inferences are left out.")
            if bar.n < limit:
                require_moments(count, source.moments, path)
    bar.close()
    return runs


def observations(
    bags: Sequence[Path],
    description: PolicyDescription,
    count: int,
    seed: int = 0,
    *,
    choice: Choice | None = None,
    safety: SafetySettings | None = None,
) -> Iterator[Observation]:
    """Yield about ``count`` observations, drawn evenly at random from all frames of the bags, in their order.

    Fewer come where frames cannot serve. Pictures of frames that were not drawn are not converted.

    Args:
        bags: recordings.
        description: of the policy that is to see them.
        count: how many to draw; all, where there are fewer.
        seed: of the draw.
        choice: topics and instruction.
        safety: the ages that end an episode; None: the node's defaults.

    Raises:
        BagError: a bag cannot serve.
    """
    choice = choice or Choice()
    frames = [_count_frames(path, description, choice) for path in bags]
    drawn = np.random.default_rng(seed).permutation(sum(frames))[:count]
    before = 0
    for path, own in zip(bags, frames, strict=True):
        numbers = frozenset((drawn[(drawn >= before) & (drawn < before + own)] - before).tolist())
        before += own
        with BagReader(path) as reader:
            among = dataclasses.replace(choice, chosen=numbers.__contains__)
            source = open_source(reader, description, safety or SafetySettings(), among, history=False)
            served = 0
            for moment in source.moments:
                served += 1
                yield moment.observation
            if numbers:
                require_moments(served, source.moments, path)


def _count_frames(path: Path, description: PolicyDescription, choice: Choice) -> int:
    with BagReader(path) as reader:
        source = open_source(reader, description, SafetySettings(), choice, history=False)
        return source.topics.inputs[description.cameras[0]].count


def _end_run(runs: list[FullDepthRun], observations: list[Observation], chunks: list[FloatArray]) -> int:
    """Keep a run, or, where it is too short, return 1."""
    short = 0 < len(chunks) < SHORTEST_RUN
    if chunks and not short:
        runs.append(FullDepthRun(tuple(observations), np.stack(chunks)))
    observations.clear()
    chunks.clear()
    return int(short)
