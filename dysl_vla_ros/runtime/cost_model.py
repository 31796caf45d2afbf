"""What an inference costs on this machine, so that layer calls can be turned into milliseconds.

``ms = base + layer * layer_calls + verification * verified``, fitted to real steps at full depth, at the floor and with
verification, taken in turns so that a change of the machine's load falls on all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import FloatArray, Observation
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import GuidanceSettings, RuntimeSettings, SkippingSettings

STEPS = 50  # observations, each at three depths
KEPT_SHARE = 0.9  # of the steps, those nearest to the first fit: the others met another process
_GUIDANCE = GuidanceSettings(prior=False, verify_threshold=1e-9, verify_on="any", stride="integral", step=1.0, warmup=0)
_DEPTHS = (
    RuntimeSettings(SkippingSettings(rule="full"), _GUIDANCE),
    RuntimeSettings(SkippingSettings(threshold=0.0), _GUIDANCE),  # every fall of continuity is verified: about half
    RuntimeSettings(SkippingSettings(threshold=0.5), _GUIDANCE),
)


@dataclass(frozen=True)
class CostModel:
    """Milliseconds of one inference."""

    base: float  # vision, head, guidance and everything else
    layer: float  # each layer call
    verification: float  # what verifying adds beside its layers
    spread: float  # 95th percentile of measured less estimated

    def milliseconds(self, layer_calls: FloatArray, verified: FloatArray) -> FloatArray:
        """Return the estimate for each inference (n,), from its layer calls (n,) and whether it was verified (n,)."""
        return self.base + self.layer * layer_calls + self.verification * verified


def measure_cost(runtime: Runtime, observations: Sequence[Observation], steps: int = STEPS) -> CostModel:
    """Time real steps on some of the observations and fit the model; the runtime is reset before and after.

    Raises:
        DataError: there are too few observations.
    """
    if len(observations) < 4:
        raise DataError(f"{len(observations)} observations are too few to time; record a longer bag")
    runtime.warm_up()
    runtime.reset()
    chosen = np.linspace(0, len(observations) - 1, min(steps, len(observations))).astype(int)
    played: FloatArray = np.zeros((0, runtime.policy.action.dimensions), np.float32)
    rows, measured = [], []
    for place in chosen:
        for settings in _DEPTHS:
            result = runtime.step(observations[place], played, settings)
            played = result.chunk.actions[:1]
            rows.append((1.0, float(result.trace.layer_calls), float(result.trace.verified)))
            measured.append(result.timings.total)
    runtime.reset()
    return fit_cost(np.array(rows), np.array(measured))


def fit_cost(rows: np.ndarray, measured: np.ndarray) -> CostModel:
    """Fit to steps (n, 3) of 1, layer calls, verified, that took ``measured`` (n,) milliseconds."""
    weights = _fit(rows, measured)
    distance = np.abs(measured - rows @ weights)
    kept = distance <= np.quantile(distance, KEPT_SHARE)
    weights = _fit(rows[kept], measured[kept])
    spread = float(np.quantile(measured - rows @ weights, 0.95))
    base, layer, verification = (float(weight) for weight in weights)
    return CostModel(base, layer, verification, spread)


def _fit(rows: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return least squares with no negative weight: what seems to cost less than nothing is left out."""
    weights, columns = np.zeros(rows.shape[1]), np.arange(rows.shape[1])
    while columns.size:
        fitted = np.linalg.lstsq(rows[:, columns], measured, rcond=None)[0]
        if (fitted >= 0.0).all():
            weights[columns] = fitted
            break
        columns = columns[fitted >= 0.0]
    return weights
