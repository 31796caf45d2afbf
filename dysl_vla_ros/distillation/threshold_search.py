"""Which thresholds give the least action error at which depth: tried on held-out full-depth runs, the front is kept.

The runs are replayed through the same :class:`~dysl_vla_ros.runtime.step.Runtime` that is deployed; the actions that
guidance observes are those of the run. First the tolerated error of the controllers, then stride and step of the
prior, then which drops are verified and how many; each goes on from the best so far.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from dysl_vla_ros.distillation.guidance_calibration import prior_step, starting_points, trace_continuity
from dysl_vla_ros.distillation.stages import ERROR_FLOOR
from dysl_vla_ros.interfaces import FloatArray
from dysl_vla_ros.runtime.recording import FullDepthRun
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import GuidanceSettings, RuntimeSettings
from dysl_vla_ros.skipping.depth_rules import StaticOnly
from dysl_vla_ros.skipping.modules import DyslModules

TOLERATED_QUANTILES = (0.5, 0.8, 0.95)  # of the floor's errors
STEP_FACTORS = (1.0, 2.0, 4.0, 8.0)
VERIFIED_SHARES = (0.05, 0.1, 0.2)
TRIALS = len(TOLERATED_QUANTILES) + 2 * len(STEP_FACTORS) + 2 * len(VERIFIED_SHARES)
RULE_ALONE = GuidanceSettings(prior=False, verify=False, warmup=0, stride="paper", verify_on="first")


@dataclass(frozen=True)
class Trial:
    """One set of thresholds and what it did on the held-out runs."""

    tolerated_error: float  # action L1, normalised, below which a controller skips at a threshold of 0.5
    guidance: GuidanceSettings
    layers: float  # mean layer calls
    layers_std_within: float  # mean over runs of the standard deviation within a run
    error: float  # mean L1 of the played actions to full depth's, normalised
    worst_error: float  # its 99th percentile
    verified_share: float
    evenness: float  # of the allow points: 1 is spread evenly over a block, which decides nothing

    def to_json(self) -> dict[str, Any]:
        """Return plain values, figures rounded."""
        figures = {name: round(value, 5) for name, value in vars(self).items() if isinstance(value, float)}
        kept = ("step", "verify_threshold", "dead_band", "stride", "verify_on")
        return figures | {"guidance": {k: v for k, v in asdict(self.guidance).items() if k in kept}}


def set_tolerated_error(modules: DyslModules, error: float) -> None:
    """Shift every controller so that its probability is one half where it foresees exactly ``error``."""
    offset = float(np.log(error + ERROR_FLOOR))
    for controller in modules.controllers.values():
        controller.offset.fill_(offset)  # type: ignore[operator]  # ModuleDict forgets what it holds


def search(runtime: Runtime, runs: Sequence[FullDepthRun], m: int, target: float) -> tuple[Trial, list[Trial]]:
    """Try thresholds; return the one of least error at no more than ``target`` mean layer calls, and the front.

    Leaves the controllers of ``runtime`` set to the choice. Where none comes down to the target, the shallowest.
    """
    assert runtime.dysl is not None, "there is nothing to search without adapters"
    blocks, modules = runtime.dysl.partition.blocks, runtime.dysl.modules
    trace = trace_continuity(runs, blocks, runtime.policy.action, m)
    floor = floor_errors(runtime, runs, m)
    trials: list[Trial] = []
    progress = tqdm(desc="thresholds", unit="trial", total=TRIALS)

    def attempt(tolerated: float, stride: str, factor: float, verify_on: str, share: float) -> None:
        guidance = starting_points(trace, blocks, stride, verify_on, share, factor)
        progress.update()
        if any(trial.tolerated_error == tolerated and trial.guidance == guidance for trial in trials):
            return  # a later search passes through what an earlier one has tried
        set_tolerated_error(modules, tolerated)
        trials.append(replay(runtime, runs, m, tolerated, guidance))
        progress.set_postfix(layers=f"{trials[-1].layers:.1f}", error=f"{trials[-1].error:.4f}")

    for quantile in TOLERATED_QUANTILES:
        attempt(float(np.quantile(floor, quantile)), "integral", 4.0, "any", 0.1)
    best = choose(trials, target)
    steps = [(stride, factor) for stride in ("paper", "integral") for factor in STEP_FACTORS]
    for stride, factor in steps:
        attempt(best.tolerated_error, stride, factor, "any", 0.1)
    best = choose(trials, target)
    factor = best.guidance.step / prior_step(trace, blocks)
    for verify_on in ("first", "any"):
        for share in VERIFIED_SHARES:
            attempt(best.tolerated_error, best.guidance.stride, factor, verify_on, share)
    progress.close()
    best = choose(trials, target)
    set_tolerated_error(modules, best.tolerated_error)
    return best, front(trials)


def choose(trials: Sequence[Trial], target: float) -> Trial:
    """Return the trial of least error within ``target`` layers; the shallowest where none is."""
    within = [trial for trial in trials if trial.layers <= target]
    return min(within, key=lambda t: (t.error, t.layers)) if within else min(trials, key=lambda t: t.layers)


def front(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that no other beats in both layers and error, shallowest first."""
    kept: list[Trial] = []
    for trial in sorted(trials, key=lambda t: (t.layers, t.error)):
        if not kept or trial.error < kept[-1].error:
            kept.append(trial)
    return kept


def floor_errors(runtime: Runtime, runs: Sequence[FullDepthRun], m: int) -> FloatArray:
    """Return the floor's action error at every inference of the runs."""
    assert runtime.dysl is not None
    dysl = runtime.dysl
    runtime.rule_override = lambda points: StaticOnly(dysl.partition, dysl.modules)
    try:
        settings = RuntimeSettings(guidance=RULE_ALONE, actions_per_inference=m)
        return np.array([error for run in runs for error, _ in _steps(runtime, run, settings)], dtype=np.float32)
    finally:
        runtime.rule_override = None


def replay(
    runtime: Runtime, runs: Sequence[FullDepthRun], m: int, tolerated: float, guidance: GuidanceSettings
) -> Trial:
    """Replay the runs under one set of thresholds."""
    settings = RuntimeSettings(guidance=guidance, actions_per_inference=m)
    errors, layers, within, verified = [], [], [], []
    points: list[tuple[int, ...]] = []
    for run in runs:
        own = []
        for error, trace in _steps(runtime, run, settings):
            errors.append(error)
            own.append(trace.layer_calls)
            verified.append(trace.verified)
            if not trace.full_depth_reason:
                points.append(trace.allow_points)
        layers += own
        within.append(np.std(own))
    assert runtime.dysl is not None
    return Trial(
        tolerated_error=tolerated,
        guidance=guidance,
        layers=float(np.mean(layers)),
        layers_std_within=float(np.mean(within)),
        error=float(np.mean(errors)),
        worst_error=float(np.quantile(errors, 0.99)),
        verified_share=float(np.mean(verified)),
        evenness=evenness(points, runtime.dysl.partition.blocks),
    )


def evenness(points: Sequence[tuple[int, ...]], blocks: tuple[tuple[int, int], ...]) -> float:
    """Return the mean entropy of each block's allow points, as a share of the largest possible."""
    shares = []
    for block, (first, end) in enumerate(blocks):
        places = np.array([own[block] - first for own in points], dtype=np.int64)
        probability = np.bincount(places, minlength=end - first + 1) / max(1, len(points))
        entropy = -float(np.sum(probability * np.log(np.maximum(probability, 1e-12))))
        shares.append(entropy / np.log(end - first + 1))
    return float(np.mean(shares)) if shares else 0.0


def _steps(runtime: Runtime, run: FullDepthRun, settings: RuntimeSettings) -> Iterator[tuple[float, Any]]:
    m = settings.actions_per_inference
    action = runtime.policy.action
    runtime.reset()
    played = np.zeros((0, action.dimensions), np.float32)
    for observation, chunk in zip(run.observations, run.chunks, strict=True):
        result = runtime.step(observation, played, settings)
        played = chunk[:m]
        difference = action.normalise(result.chunk.actions[:m]) - action.normalise(played)
        yield float(np.abs(difference).mean()), result.trace
