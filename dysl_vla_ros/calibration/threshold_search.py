"""Which thresholds give the least action error at which depth: tried on held-out full-depth runs, the front is kept.

The runs are replayed as the deployed :class:`~dysl_vla_ros.runtime.step.Runtime` would, each way through the layers
computed once (:mod:`~dysl_vla_ros.calibration.remembered_passes`). First the tolerated error of the controllers, then
stride and step of the prior, then which drops are verified and how many, then the tolerated errors once more where
little is verified, then a warm-up; each goes on from the best so far. What each signal knows of the floor's error is
measured on the same runs.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from dysl_vla_ros.calibration.guidance_values import prior_step, starting_points, trace_continuity
from dysl_vla_ros.calibration.remembered_passes import RememberedPasses, RememberedStep
from dysl_vla_ros.calibration.signals import ERROR_FLOOR, Signal, measure_signals
from dysl_vla_ros.interfaces import FloatArray
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.runtime.folder import CALIBRATED
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import AT_FLOOR, WARMUP, GuidanceSettings, RuntimeSettings, SkippingSettings
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition

REMEMBERED_AT = 0.05  # action L1, normalised: the tolerated error that controllers are at while passes are remembered
TOLERATED_QUANTILES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
"""Of the floor's errors; and the share that skips, of what controllers say at the floor."""
STEP_FACTORS = (1.0, 2.0, 4.0, 8.0)
FIRST_FACTOR, FIRST_SHARE = 4.0, 0.05  # while other values are tried
VERIFIED_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)
LITTLE = (0.002, 0.01)  # of the inferences, verified while controllers spend what the target leaves them
WARMUPS = (1, WARMUP)  # tried at the end; the search goes without
TRIALS = 2 * ((1 + len(LITTLE)) * len(TOLERATED_QUANTILES) + len(STEP_FACTORS) + len(VERIFIED_SHARES)) + len(WARMUPS)
STILL, EVEN = 0.05, 0.95  # evenness of allow points below and above which the prior decides nothing
LARGEST_LOGIT = 15.0  # what a probability in float32 can tell


@dataclass(frozen=True)
class Trial:
    """One set of thresholds and what it did on the held-out runs."""

    tolerated_error: float  # action L1, normalised, below which a controller that foresees it skips at 0.5
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
        return figures | {"guidance": {k: v for k, v in asdict(self.guidance).items() if k in CALIBRATED}}


@dataclass(frozen=True)
class Search:
    """What a search found."""

    best: Trial
    front: list[Trial]
    signals: dict[str, Signal]  # what each knows of the floor's error, on the same runs


def set_tolerated_error(modules: DyslModules, error: float) -> None:
    """Shift every controller so that its probability is one half where it foresees exactly ``error``."""
    offset = float(np.log(error + ERROR_FLOOR))
    for controller in modules.controllers.values():
        controller.offset.fill_(offset)  # type: ignore[operator]  # ModuleDict forgets what it holds


def search(runtime: Runtime, runs: Sequence[FullDepthRun], m: int, target: float) -> Search:
    """Try thresholds; the best is the one of the front of least error at no more than ``target`` mean layer calls.

    Leaves the controllers of ``runtime`` set to the choice. Where none comes down to the target, the shallowest.
    """
    assert runtime.dysl is not None, "there is nothing to search without adapters"
    partition, modules = runtime.dysl.partition, runtime.dysl.modules
    trace = trace_continuity(runs, partition, runtime.policy.action, m)
    set_tolerated_error(modules, REMEMBERED_AT)
    passes = RememberedPasses(runtime, runs)
    candidates = tolerated_errors(passes, m)
    trials: list[Trial] = []
    progress = tqdm(desc="thresholds", unit="trial", total=TRIALS)

    def attempt(tolerated: float, guidance: GuidanceSettings) -> None:
        progress.update()
        if any(trial.tolerated_error == tolerated and trial.guidance == guidance for trial in trials):
            return  # a later search passes through what an earlier one has tried
        trials.append(replay(passes, m, tolerated, guidance))
        progress.set_postfix(layers=f"{trials[-1].layers:.1f}", error=f"{trials[-1].error:.4f}")

    for tolerated in candidates:
        attempt(tolerated, starting_points(trace, partition, "integral", "any", FIRST_SHARE, FIRST_FACTOR))
    best = choose(trials, target)
    for stride in ("paper", "integral"):
        for factor in STEP_FACTORS:
            attempt(best.tolerated_error, starting_points(trace, partition, stride, "any", FIRST_SHARE, factor))
    best = choose(trials, target)
    factor = best.guidance.step / prior_step(trace, partition)
    for verify_on in ("first", "any"):
        for share in VERIFIED_SHARES:
            own = starting_points(trace, partition, best.guidance.stride, verify_on, share, factor)
            attempt(best.tolerated_error, own)
    best = choose(trials, target)
    # At a low target verification alone may have spent it all by now, and so have shut out the controllers.
    for share in LITTLE:
        own = starting_points(trace, partition, best.guidance.stride, best.guidance.verify_on, share, factor)
        for tolerated in candidates:
            attempt(tolerated, own)
    best = choose(trials, target)
    for warmup in WARMUPS:
        attempt(best.tolerated_error, replace(best.guidance, warmup=warmup))
    progress.close()
    signals = measure_signals(passes, m)
    best = choose(trials, target)
    set_tolerated_error(modules, best.tolerated_error)
    return Search(best, front(trials), signals)


def choose(trials: Sequence[Trial], target: float) -> Trial:
    """Return the trial of the front of least error within ``target`` layers; the shallowest where none is."""
    kept = front(trials)
    within = [trial for trial in kept if trial.layers <= target]
    return within[-1] if within else kept[0]


def front(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that no other beats in both layers and error, shallowest first."""
    kept: list[Trial] = []
    for trial in sorted(trials, key=lambda t: (t.layers, t.error)):
        if not kept or trial.error < kept[-1].error:
            kept.append(trial)
    return kept


def tolerated_errors(passes: RememberedPasses, m: int) -> list[float]:
    """Return the errors to tolerate that are tried first.

    Quantiles of the floor's own errors, for controllers that foresee them; and what lets a share of the controllers'
    decisions at the floor skip, whatever scale they speak in (the mixture teaches none).

    Args:
        passes: with controllers at :data:`REMEMBERED_AT`.
        m: actions played of each chunk.
    """
    errors = _errors(passes, list(passes.replay(replace(AT_FLOOR, actions_per_inference=m))), m)
    says = np.concatenate([probabilities for _, probabilities in passes.at_floor(m)]).astype(np.float64)
    with np.errstate(divide="ignore"):
        logits = np.clip(np.log(says) - np.log1p(-says), -LARGEST_LOGIT, LARGEST_LOGIT)
    own = logits - np.log(REMEMBERED_AT + ERROR_FLOOR)  # without the offset
    shares = [float(np.exp(-np.quantile(own, 1.0 - share)) - ERROR_FLOOR) for share in TOLERATED_QUANTILES]
    return [float(np.quantile(errors, quantile)) for quantile in TOLERATED_QUANTILES] + shares


def replay(passes: RememberedPasses, m: int, tolerated: float, guidance: GuidanceSettings) -> Trial:
    """Replay the runs under one set of thresholds.

    Args:
        passes: with controllers at :data:`REMEMBERED_AT`.
        m: actions played of each chunk.
        tolerated: action L1, normalised, below which a controller is to skip.
        guidance: every value resolved.
    """
    # Controllers stay as they are; the threshold moves as far as their offset would.
    moved = np.log(REMEMBERED_AT + ERROR_FLOOR) - np.log(tolerated + ERROR_FLOOR)
    settings = RuntimeSettings(SkippingSettings(threshold=float(1.0 / (1.0 + np.exp(-moved)))), guidance, m)
    steps = list(passes.replay(settings))
    errors, layers = _errors(passes, steps, m), np.array([step.layer_calls for step in steps])
    borders = np.cumsum([len(run.chunks) for run in passes.runs])[:-1]
    return Trial(
        tolerated_error=tolerated,
        guidance=guidance,
        layers=float(layers.mean()),
        layers_std_within=float(np.mean([np.std(own) for own in np.split(layers, borders)])),
        error=float(errors.mean()),
        worst_error=float(np.quantile(errors, 0.99)),
        verified_share=float(np.mean([step.verified for step in steps])),
        evenness=evenness([step.allow_points for step in steps if not step.warming_up], passes.partition),
    )


def _errors(passes: RememberedPasses, steps: Sequence[RememberedStep], m: int) -> FloatArray:
    """Return the L1 of the played actions of each step to full depth's, normalised (n,)."""
    given = passes.action.normalise(np.stack([step.actions[:m] for step in steps]))
    wanted = passes.action.normalise(np.concatenate([run.chunks[:, :m] for run in passes.runs]))
    return np.abs(given - wanted).mean(axis=(1, 2))


def prior_verdict(evenness: float) -> str:
    """Return what is to be said of a prior whose allow points are spread like this; "" where it decides something."""
    if evenness > EVEN:
        return "allow points are spread evenly over their blocks: the prior decides nothing"
    return "allow points hardly move: the prior decides nothing" if evenness < STILL else ""


def evenness(points: Sequence[tuple[int, ...]], partition: LayerPartition) -> float:
    """Return the mean entropy of each block's allow points, as a share of the largest possible."""
    shares = []
    for block, places in enumerate(partition.places):  # at the last one, its end, a block is closed
        share = np.array([sum(own[block] == place for own in points) for place in places]) / max(1, len(points))
        entropy = -float(np.sum(share * np.log(np.maximum(share, 1e-12))))
        shares.append(entropy / np.log(len(places)))
    return float(np.mean(shares)) if shares else 0.0
