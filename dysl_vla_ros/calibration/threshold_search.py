"""Which thresholds give the least action error at which depth: searched on held-out full-depth runs, the front is kept.

A :mod:`~dysl_vla_ros.calibration.search` whose target is a depth. It begins with points that were measured on the runs,
one thing after the other, and goes on from what did best. What each signal knows of the floor's error is measured on
the same runs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dysl_vla_ros.calibration.remembered_passes import Passes, RememberedPasses, RememberedStep
from dysl_vla_ros.calibration.search import SearchSpace
from dysl_vla_ros.calibration.search import front as front_of
from dysl_vla_ros.calibration.search import search as search_for
from dysl_vla_ros.calibration.signals import ERROR_FLOOR, Signal, measure_signals
from dysl_vla_ros.calibration.tolerated import REMEMBERED_AT, set_tolerated_error
from dysl_vla_ros.interfaces import FloatArray
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.runtime.folder import CALIBRATED
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import AT_FLOOR, WARMUP, GuidanceSettings, RuntimeSettings, SkippingSettings
from dysl_vla_ros.skipping.partition import LayerPartition

TOLERATED_QUANTILES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
"""Of the floor's errors; and the share that skips, of what controllers say at the floor."""
PLAIN = {"factor": 4.0, "stride": "integral", "band": 0.0, "verify_on": "any", "share": 0.05, "warmup": 0}
STEP_FACTORS = (1.0, 2.0, 4.0, 8.0)
VERIFIED_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)
LITTLE = (0.002, 0.01)  # of the inferences, verified while controllers spend what the target leaves them
WARMUPS = (1, WARMUP)
STARTS = 2 * ((1 + len(LITTLE)) * len(TOLERATED_QUANTILES) + len(STEP_FACTORS) + len(VERIFIED_SHARES)) + len(WARMUPS)
TRIALS = STARTS + 30
FREE = {
    "quantile": (0.0, 1.0),
    "factor": (0.5, 16.0),
    "stride": ("paper", "integral"),
    "band": (0.0, 1.0),
    "verify_on": ("first", "any"),
    "share": (0.001, 0.3),
    "warmup": (0, 1, WARMUP),
}
"""What a DySL folder keeps, see CALIBRATED; all else has the settings' defaults."""
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


def search(runtime: Runtime, runs: Sequence[FullDepthRun], m: int, target: float, seed: int = 0) -> Search:
    """Try thresholds (:func:`search_passes`) and leave the controllers of ``runtime`` set to the choice."""
    assert runtime.dysl is not None, "there is nothing to search without adapters"
    modules = runtime.dysl.modules
    set_tolerated_error(modules, REMEMBERED_AT)
    found = search_passes(RememberedPasses(runtime, runs), m, target, seed)
    set_tolerated_error(modules, found.best.tolerated_error)
    return found


def search_passes(passes: Passes, m: int, target: float, seed: int = 0) -> Search:
    """Try thresholds; the best is the one of the front of least error at no more than ``target`` mean layer calls.

    Where none comes down to the target, the shallowest.

    Args:
        passes: with controllers at :data:`REMEMBERED_AT`.
        m: actions played of each chunk.
        target: mean layer calls that are wanted.
        seed: of the search.
    """
    space = SearchSpace(passes, RuntimeSettings(actions_per_inference=m), no_band=0.0)
    trials: list[Trial] = []

    def attempt(settings: RuntimeSettings, _: object) -> Trial:
        trials.append(replay(passes, m, tolerated_at(settings.skipping.threshold), settings.guidance))
        return trials[-1]

    quantiles = [space.quantile_of(threshold_for(error)) for error in tolerated_errors(passes, m)]
    search_for(
        space,
        attempt,
        lambda trial: (max(0.0, trial.layers - target), trial.error),
        trials=TRIALS,
        seed=seed,
        starts=lambda _: _starts(quantiles, trials, target),
        free=FREE,
        label="thresholds",
        best=lambda trial: f"layers={trial.layers:.1f}, error={trial.error:.4f}",
    )
    signals = measure_signals(passes, m)
    return Search(choose(trials, target), front(trials), signals)


def _starts(quantiles: Sequence[float], trials: Sequence[Trial], target: float) -> Iterator[dict[str, Any]]:
    """Yield where a search begins, one thing after the other, each from the best so far.

    First what controllers may do, then stride and step of the prior, then which drops are verified and how many, then
    controllers once more where little is verified (at a low target verification alone may have spent it all by now, and
    so have shut them out), then a warm-up.

    Args:
        quantiles: thresholds to begin with.
        trials: what was tried, filled as this goes on.
        target: mean layer calls that are wanted.
    """
    points: list[dict[str, Any]] = []

    def best() -> dict[str, Any]:
        return points[trials.index(choose(trials, target))]

    def told(new: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for point in list(new):
            points.append(point)
            yield point

    yield from told(PLAIN | {"quantile": own} for own in quantiles)
    strides = {"paper": 1.0, "integral": 0.0}  # with the dead band that goes with each
    so_far = best()
    yield from told(
        so_far | {"stride": stride, "band": band, "factor": factor}
        for stride, band in strides.items()
        for factor in STEP_FACTORS
    )
    so_far = best()
    yield from told(
        so_far | {"verify_on": which, "share": share} for which in ("first", "any") for share in VERIFIED_SHARES
    )
    so_far = best()
    yield from told(so_far | {"share": share, "quantile": own} for share in LITTLE for own in quantiles)
    so_far = best()
    yield from told(so_far | {"warmup": warmup} for warmup in WARMUPS)


def choose(trials: Sequence[Trial], target: float) -> Trial:
    """Return the trial of the front of least error within ``target`` layers; the shallowest where none is."""
    kept = front(trials)
    within = [trial for trial in kept if trial.layers <= target]
    return within[-1] if within else kept[0]


def front(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that no other beats in both layers and error, shallowest first."""
    return front_of(trials, lambda trial: trial.layers, lambda trial: trial.error)


def tolerated_errors(passes: Passes, m: int) -> list[float]:
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


def threshold_for(tolerated: float) -> float:
    """Return the threshold that does with controllers at :data:`REMEMBERED_AT` what 0.5 does with them at another.

    Controllers stay as they are; the threshold moves as far as their offset would.
    """
    moved = np.log(REMEMBERED_AT + ERROR_FLOOR) - np.log(tolerated + ERROR_FLOOR)
    return float(1.0 / (1.0 + np.exp(-moved)))


def tolerated_at(threshold: float) -> float:
    """Return the tolerated error that :func:`threshold_for` turns into ``threshold``."""
    with np.errstate(divide="ignore"):
        moved = np.clip(np.log(threshold) - np.log1p(-threshold), -LARGEST_LOGIT, LARGEST_LOGIT)
    return float((REMEMBERED_AT + ERROR_FLOOR) * np.exp(-moved) - ERROR_FLOOR)


def replay(passes: Passes, m: int, tolerated: float, guidance: GuidanceSettings) -> Trial:
    """Replay the runs under one set of thresholds.

    Args:
        passes: with controllers at :data:`REMEMBERED_AT`.
        m: actions played of each chunk.
        tolerated: action L1, normalised, below which a controller is to skip.
        guidance: every value resolved.
    """
    settings = RuntimeSettings(SkippingSettings(threshold=threshold_for(tolerated)), guidance, m)
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


def _errors(passes: Passes, steps: Sequence[RememberedStep], m: int) -> FloatArray:
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
