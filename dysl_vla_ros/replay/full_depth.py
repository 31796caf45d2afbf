"""What calibration and distillation take from bags: full-depth runs, and observations drawn from all of it."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.control.chunk_time import require_actions
from dysl_vla_ros.interfaces import FloatArray, Observation, PolicyDescription
from dysl_vla_ros.replay.run import FULL, Side
from dysl_vla_ros.replay.source import Choice, open_source, require_moments
from dysl_vla_ros.runtime.recording import FullDepthRun
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

    Raises:
        BagError: a bag cannot serve.
        SettingError: the policy's chunks have fewer than ``m`` actions.
    """
    require_actions(m, runtime.description.action.horizon)
    choice = choice or Choice()
    spaced = dataclasses.replace(choice, actions_between=m)
    settings = dataclasses.replace(FULL_DEPTH, actions_per_inference=m)
    runs: list[FullDepthRun] = []
    bar = tqdm(desc="full depth", unit="frame", total=limit)
    for path in bags:
        with BagReader(path) as reader:
            source = open_source(reader, runtime.description, safety or SafetySettings(), spaced)
            side = Side(FULL, runtime, settings)
            observations: list[Observation] = []
            chunks: list[FloatArray] = []
            count = 0
            for moment in source.moments:
                if bar.n >= limit:
                    break
                if moment.begins:
                    _end_run(runs, observations, chunks)
                    side.begin(moment.clock)
                observations.append(moment.observation)
                chunks.append(side.step(moment)[0].chunk.actions)
                count += 1
                bar.update()
            _end_run(runs, observations, chunks)
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


def _end_run(runs: list[FullDepthRun], observations: list[Observation], chunks: list[FloatArray]) -> None:
    if len(chunks) >= SHORTEST_RUN:
        runs.append(FullDepthRun(tuple(observations), np.stack(chunks)))
    observations.clear()
    chunks.clear()
