"""One episode of one method as it is kept on the disk: what tables need, without pictures.

Layer calls and milliseconds count both passes of a verified inference. Everything but milliseconds is the same bit for
bit when the episode is played again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dysl_vla_ros.interfaces import FloatArray
from dysl_vla_ros.records.phases import phases
from dysl_vla_ros.records.trace import EpisodeRecord

MILLISECONDS = ("stack_ms", "step_ms")  # the only fields that differ when an episode is played again


@dataclass(frozen=True)
class EpisodeFigures:
    """One value an inference where it is a list, unless it says otherwise."""

    method: str  # with its m: "dysl", "dysl@4"
    task: str
    seed: int
    success: bool
    ticks: int
    layers_total: int
    blocks: list[list[int]]  # first dynamic layer and one past the last, of each block
    layer_calls: list[int]
    verified: list[int]  # 0 or 1
    corrections: list[float]  # of each verified inference: L1 to the first pass's action, normalised
    ruled: int  # inferences whose depth was up to the method: neither warm-up nor skipping disabled
    held_back: int  # those of them in which the prior kept a controller from being asked
    allow_points: list[list[int]]  # a block: how often each layer from its first to its end was the allow point
    phases: list[int]  # places in PHASES
    stack_ms: list[float]  # both passes, decoding of the second included
    step_ms: list[float]
    fetching: int = -1  # inferences before the task's object was moved; -1: an earlier release played it

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "EpisodeFigures":
        """Read what :meth:`to_json` gave.

        Raises:
            TypeError: a field is missing or unknown.
        """
        return EpisodeFigures(**values)


def figures_of(method: str, record: EpisodeRecord, first_actions: Sequence[FloatArray]) -> EpisodeFigures:
    """Take the figures from an episode.

    Args:
        method: as the table names it.
        record: what was played.
        first_actions: the first action (A,) of each inference's chunk, physical units; phases are read off them.
    """
    traces = [inference.trace for inference in record.inferences]
    times = np.array([inference.time for inference in record.inferences])
    actions = np.stack(first_actions[: len(traces)]) if traces else np.zeros((0, 4), np.float32)
    ruled = [trace for trace in traces if not trace.full_depth_reason]
    firsts = tuple(first for first, _ in record.blocks)
    speed = np.linalg.norm(actions[:, :3].astype(np.float64), axis=1)  # only its ratios count
    phase = phases(speed, actions[:, -1], times, np.zeros(len(actions), int))
    points = [[trace.allow_points[block] for trace in traces] for block in range(len(record.blocks))]
    return EpisodeFigures(
        method=method,
        task=record.task,
        seed=record.seed,
        success=bool(record.success),
        ticks=record.ticks,
        layers_total=record.layers_total,
        blocks=[list(block) for block in record.blocks],
        layer_calls=[trace.layer_calls for trace in traces],
        verified=[int(trace.verified) for trace in traces],
        corrections=[trace.correction for trace in traces if trace.verified and math.isfinite(trace.correction)],
        ruled=len(ruled),
        held_back=sum(trace.allow_points != firsts for trace in ruled),
        allow_points=[
            [own.count(layer) for layer in range(first, end + 1)]
            for own, (first, end) in zip(points, record.blocks, strict=True)
        ],
        phases=[int(place) for place in phase],
        stack_ms=[round(own.timings.stack + own.timings.verify, 4) for own in record.inferences],
        step_ms=[round(own.timings.total, 4) for own in record.inferences],
        fetching=record.fetching,
    )
