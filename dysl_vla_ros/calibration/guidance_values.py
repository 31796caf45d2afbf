"""Guidance values to start from, measured on full-depth runs at the deployed number of actions an inference.

eta: the 90th percentile of the falls of C closes the longest block. eta1: a stated share of inferences would be
verified. Dead band, for the paper's stride: the median of ``|dC|``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import ActionSpec
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.settings import GuidanceSettings
from dysl_vla_ros.skipping.guidance import PriorPostGuidance, measuring_only
from dysl_vla_ros.skipping.partition import LayerPartition


@dataclass(frozen=True)
class ContinuityTrace:
    """What guidance measured on the runs, all inferences after the other."""

    change: np.ndarray  # dC before each inference
    candidate: np.ndarray  # dC that the full-depth chunk causes
    falls: np.ndarray  # total of each unbroken fall of C, positive


def trace_continuity(
    runs: Sequence[FullDepthRun],
    partition: LayerPartition,
    action: ActionSpec,
    m: int,
    settings: GuidanceSettings | None = None,
) -> ContinuityTrace:
    """Let guidance watch the runs, with the window and the weights of ``settings``.

    Raises:
        DataError: nothing ever fell: too few or too short runs.
    """
    changes, candidates, falls = [], [], []
    for run in runs:
        guidance = PriorPostGuidance(partition.blocks, action)
        guidance.configure(measuring_only(settings or GuidanceSettings()), m)
        played, fall = np.zeros((0, action.dimensions), np.float32), 0.0
        for chunk in run.chunks:
            guidance.observe(played)
            played = chunk[:m]
            changes.append(guidance.continuity_change)
            candidates.append(guidance.candidate_change(played))
            if guidance.continuity_change < 0:
                fall -= guidance.continuity_change
            elif fall:
                falls.append(fall)
                fall = 0.0
        if fall:
            falls.append(fall)
    if not falls:
        raise DataError("continuity never fell in these runs; record more of them, with grasps or turns")
    return ContinuityTrace(np.array(changes), np.array(candidates), np.array(falls))


def prior_step(trace: ContinuityTrace, partition: LayerPartition) -> float:
    """Return eta."""
    longest = max(len(points) for points in partition.points)
    return float(np.percentile(trace.falls, 90)) / longest


def verify_threshold(trace: ContinuityTrace, verify_on: str, share: float) -> float:
    """Return eta1 such that ``share`` of the inferences, or what comes nearest to it, would be verified."""
    levels = np.quantile(-trace.candidate, np.linspace(0.5, 0.999, 250))
    levels = levels[levels > 0]
    if not levels.size:
        raise DataError("no action makes continuity fall in these runs; record more of them")
    shares = np.array([np.mean(_would_verify(trace, verify_on, level)) for level in levels])
    return float(levels[np.argmin(np.abs(shares - share))])


def _would_verify(trace: ContinuityTrace, verify_on: str, level: float) -> np.ndarray:
    dropped = trace.candidate < -level
    return dropped if verify_on == "any" else dropped & (trace.change >= -level)


def starting_points(
    trace: ContinuityTrace,
    partition: LayerPartition,
    stride: str,
    verify_on: str,
    share: float,
    step_factor: float = 1.0,
) -> GuidanceSettings:
    """Return guidance settings measured on the runs, without a warm-up.

    A larger ``step_factor`` lets allow points move less.
    """
    return GuidanceSettings(
        step=step_factor * prior_step(trace, partition),
        verify_threshold=verify_threshold(trace, verify_on, share),
        dead_band=float(np.median(np.abs(trace.change))) if stride == "paper" else 0.0,
        stride=stride,
        warmup=0,
        verify_on=verify_on,
    )
