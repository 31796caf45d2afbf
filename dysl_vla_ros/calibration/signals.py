"""Which signal knows when depth is needed: rank correlation of each with the error that the floor makes.

Everything is known before the floor's action would be played. Each signal is turned so that more of it should mean a
larger error, by the paper's reasoning: falling continuity, a candidate that breaks off the motion, slow and exact
motion, a gripper that opens or closes, a controller that foresees an error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dysl_vla_ros.calibration.remembered_passes import Passes, RememberedPasses
from dysl_vla_ros.interfaces import FloatArray
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import GuidanceSettings
from dysl_vla_ros.skipping.guidance import PriorPostGuidance, measuring_only

ERROR_FLOOR = 0.01  # added before the logarithm of an action error: smaller ones do not matter and are noise
WORST, TOP = 0.1, 0.3  # the worst tenth of the steps, looked for among the top 30% by a signal; by chance 0.30 of it


@dataclass(frozen=True)
class Signal:
    """What a signal knows of the floor's action error."""

    rank_correlation: float | None  # Spearman's; None: the signal never changes
    worst_tenth_caught: float | None  # share of the worst tenth of the steps among the top 30% by the signal


def measure_signals(passes: Passes, m: int) -> dict[str, Signal]:
    """Hold every signal against the floor's error, over all inferences of the runs.

    Guidance observes what was played at full depth; the candidate is the floor's action.

    Args:
        passes: of full-depth runs.
        m: actions played of each chunk.
    """
    action = passes.action
    rows: list[tuple[float, ...]] = []
    errors: list[float] = []
    for run, (candidates, skips) in zip(passes.runs, passes.at_floor(m), strict=True):
        guidance = PriorPostGuidance(passes.partition.blocks, action)
        guidance.configure(measuring_only(GuidanceSettings()), m)
        played: FloatArray = np.zeros((0, action.dimensions), np.float32)
        for chunk, candidate, probabilities in zip(run.chunks, candidates, skips, strict=True):
            guidance.observe(played)
            given = action.normalise(candidate[:m])
            gripper = float(action.normalise(played)[-1, -1]) if len(played) else float(given[0, -1])
            rows.append(
                (
                    -guidance.continuity,
                    -guidance.continuity_change,
                    -guidance.candidate_change(candidate[:m]),
                    -float(np.linalg.norm(given[:, :-1], axis=1).mean()),
                    float(np.abs(given[:, -1] - gripper).max()),
                    1.0 - float(probabilities.min()),
                )
            )
            errors.append(action.distance(candidate[:m], chunk[:m]))
            played = chunk[:m]
    names = ("-C", "-dC", "drop of C by the candidate", "slowness", "gripper change", "controllers")
    columns = np.array(rows)
    known = np.isfinite(columns).all(axis=1)  # C is undefined at an episode's beginning
    error = np.array(errors)[known]
    return {name: judge_signal(column, error) for name, column in zip(names, columns[known].T, strict=True)}


def signals_of_runs(runtime: Runtime, runs: Sequence[FullDepthRun], m: int) -> dict[str, dict[str, float | None]]:
    """Return :func:`measure_signals` of these runs as plain values, for a runtime with a DySL folder."""
    return to_json(measure_signals(RememberedPasses(runtime, runs), m))


def judge_signal(signal: ArrayLike, error: ArrayLike) -> Signal:
    """Hold one signal (n,) against the error (n,)."""
    values, errors = np.asarray(signal, np.float64), np.asarray(error, np.float64)
    related = rank_correlation(values, errors)
    if related is None:
        return Signal(None, None)
    worst = np.argsort(-errors, kind="stable")[: max(1, round(WORST * len(errors)))]
    top = np.argsort(-values, kind="stable")[: max(1, round(TOP * len(values)))]
    return Signal(round(related, 4), round(float(np.isin(worst, top).mean()), 4))


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """Return Spearman's rank correlation of two series (n,); equal values have their mean rank; None: one is flat."""
    first, second = _ranks(one), _ranks(other)
    spread = float(first.std() * second.std())
    if spread == 0.0:
        return None
    return float(np.mean((first - first.mean()) * (second - second.mean())) / spread)


def to_json(signals: Mapping[str, Signal]) -> dict[str, dict[str, float | None]]:
    """Return plain values."""
    return {name: asdict(signal) for name, signal in signals.items()}


def table(signals: Mapping[str, Signal]) -> list[str]:
    """Return the lines of a small table, best first."""
    lines = [f"{'signal':<28}{'rank correlation':>18}{'worst tenth caught':>20}"]
    for name, signal in sorted(signals.items(), key=lambda item: -(item[1].rank_correlation or 0.0)):
        known = signal.rank_correlation is not None
        figures = f"{signal.rank_correlation:18.2f}{signal.worst_tenth_caught:20.2f}" if known else f"{'flat':>18}"
        lines.append(f"{name:<28}{figures}")
    return lines


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, places, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2.0)[places]  # the mean rank of equal values, from 1
