"""One seeded search for threshold and guidance, with whatever target: Optuna's TPE over what recorded runs would do.

A point is in units that mean the same for every policy and robot: the threshold as a quantile of what controllers say,
scales as shares and multiples of what was measured on the runs themselves (guidance_values). The figures of a point
come from remembered passes; a target scores them by how much its limit is missed and by what is to be least within it.
The same seed, runs and target give the same points, bit for bit.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from tqdm import tqdm

from dysl_vla_ros.calibration.guidance_values import (
    ContinuityTrace,
    prior_step,
    trace_continuity,
    verify_threshold,
)
from dysl_vla_ros.calibration.remembered_passes import Passes
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.settings import GuidanceSettings, RuntimeSettings, SkippingSettings

if TYPE_CHECKING:
    import optuna

NO_DEAD_BAND = -1.0  # 0.0 would stand for "as calibrated"
EVERYTHING: Mapping[str, Any] = {
    "quantile": (0.0, 1.0),
    "factor": (0.25, 64.0),
    "stride": ("paper", "integral"),
    "band": (0.0, 0.5, 1.0, 2.0),
    "window": (1, 2, 3, 5, 8, 12),
    "prior": (True, False),
    "verify": (True, False),
    "verify_on": ("first", "any"),
    "share": (0.005, 0.5),
    "warmup": (1, 2, 3),
}
"""What may be searched: name of a coordinate -> its choices, or the ends of its range (LINEAR and LOGARITHMIC)."""
LINEAR, LOGARITHMIC = ("quantile",), ("factor", "share")
FOREMOST = 1e6  # weight of a missed limit, where one number has to say how good a point is
CHANGED = 0.35  # of the coordinates, from a point to one near it
LOOKED_AT = 1 / 3  # of the points that are seen on some runs first, the share that is seen on all

F = TypeVar("F")


@dataclass(frozen=True)
class Point:
    """A place in the search space."""

    quantile: float  # of all controllers' outputs, 0 to 1: the threshold
    factor: float = 4.0  # of the starting point of eta
    stride: str = "integral"
    band: float = 0.0  # of the median |dC|
    window: int = GuidanceSettings.window
    prior: bool = True
    verify: bool = True
    verify_on: str = "any"
    share: float = 0.1  # of the inferences that would be verified at full depth
    warmup: int = 2


class SearchSpace:
    """Points, and the settings they stand for on these runs.

    Attributes:
        outputs: of the controllers, along the deepest and the shallowest way, rising, and what none goes beyond.
    """

    def __init__(self, passes: Passes, before: RuntimeSettings, no_band: float = NO_DEAD_BAND) -> None:
        """Measure the scales: controllers' outputs, continuity.

        m and the weights of rotation and gripper are those of ``before``; ``no_band`` is written for no dead band.
        """
        self._passes, self._before, self._m = passes, before.guidance, before.actions_per_inference
        self._no_band = no_band
        self._traces: dict[int, ContinuityTrace] = {}
        self.outputs = np.sort(np.concatenate([(0.0, 1.0), passes.outputs()]))

    def settings(self, point: Point) -> RuntimeSettings:
        """Return the settings that ``point`` stands for, every value resolved."""
        trace = self._trace(point.window)
        guidance = dataclasses.replace(
            self._before,
            window=point.window,
            step=min(100.0, point.factor * prior_step(trace, self._passes.partition)),
            verify_threshold=verify_threshold(trace, point.verify_on, point.share),
            dead_band=point.band * float(np.median(np.abs(trace.change))) or self._no_band,
            stride=point.stride,
            warmup=point.warmup,
            verify_on=point.verify_on,
            prior=point.prior,
            verify=point.verify,
        )
        threshold = round(float(np.quantile(self.outputs, point.quantile)), 6)
        return RuntimeSettings(SkippingSettings(threshold=threshold), _rounded(guidance), self._m)

    def quantile_of(self, threshold: float) -> float:
        """Return the quantile that stands for a threshold, or for what comes nearest to it."""
        return float(np.interp(threshold, self.outputs, np.linspace(0.0, 1.0, len(self.outputs))))

    def _trace(self, window: int) -> ContinuityTrace:
        if window not in self._traces:
            passes, settings = self._passes, dataclasses.replace(self._before, window=window)
            trace = trace_continuity(passes.runs, passes.partition, passes.action, self._m, settings)
            self._traces[window] = trace
        return self._traces[window]


@dataclass(frozen=True)
class Tried(Generic[F]):
    """A point that was tried."""

    point: Point
    settings: RuntimeSettings
    figures: F
    whole: bool  # false: on some of the runs only
    start: bool  # it was told to begin with


def search(
    space: SearchSpace,
    figures_of: Callable[[RuntimeSettings, Sequence[int] | None], F],
    score: Callable[[F], tuple[float, float]],
    *,
    trials: int,
    seed: int,
    starts: Callable[[Sequence[Tried[F]]], Iterable[Mapping[str, Any]]] = lambda tried: (),
    random: int = 10,
    free: Mapping[str, Any] = EVERYTHING,
    some: Sequence[int] | None = None,
    label: str = "searching",
    best: Callable[[F], str] = str,
) -> list[Tried[F]]:
    """Try points, each where those before it have done well.

    Args:
        space: what points stand for.
        figures_of: what settings do on the runs of these indices; None: on all.
        score: (by how much the limit is missed, what is to be least), of figures.
        trials: how many.
        seed: of the search.
        starts: yields coordinates to begin with, and sees what was tried so far; what one leaves out is drawn.
        random: until so many are tried, everything that is drawn is drawn at random.
        free: the coordinates that are searched, see :data:`EVERYTHING`; others stay as in :class:`Point`.
        some: runs on which the first ``random`` points are seen; only the better ones are then seen on all. None: all.
        label: of the progress bar.
        best: says in some words what the best so far does.

    Raises:
        DataError: Optuna is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise DataError("thresholds are searched with optuna, which is not installed: pip install optuna") from error

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=random)
    pruner = optuna.pruners.PercentilePruner(100.0 * LOOKED_AT, n_startup_trials=5)
    study = optuna.create_study(sampler=sampler, pruner=pruner)
    tried: list[Tried[F]] = []
    told = iter(starts(tried))
    bar = tqdm(total=trials, desc=label, unit="trial", disable=None)
    for number in range(trials):
        if (start := next(told, None)) is not None:
            study.enqueue_trial(dict(start))
        trial = study.ask()
        point = Point(**dict(_suggested(trial, free)))
        settings, look = space.settings(point), some if number < random else None
        figures, whole = figures_of(settings, look), look is None
        missed, value = score(figures)
        if not whole:
            trial.report(FOREMOST * missed + value, 0)
            if number < 5 or not trial.should_prune():
                figures, whole = figures_of(settings, None), True
                missed, value = score(figures)
        trial.set_constraint("limit", missed)
        tried.append(Tried(point, settings, figures, whole, start is not None))
        if whole:
            study.tell(trial, FOREMOST * missed + value)
        else:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        bar.update()
        if seen := [own.figures for own in tried if own.whole]:
            bar.set_postfix_str(best(min(seen, key=score)))
    bar.close()
    return tried


def near(point: Point, size: float, random: np.random.Generator) -> Point:
    """Change a few coordinates of ``point`` by about ``size`` (1: as far as drawing anew)."""
    changes: dict[str, Any] = {
        "quantile": float(np.clip(point.quantile + size * random.normal() * 0.2, *EVERYTHING["quantile"])),
        **{
            name: float(np.clip(getattr(point, name) * np.exp(size * random.normal()), *EVERYTHING[name]))
            for name in LOGARITHMIC
        },
    }
    for name, choices in EVERYTHING.items():
        if name not in changes:
            changes[name] = choices[int(random.integers(len(choices)))]
    kept = {name: value for name, value in changes.items() if random.random() < CHANGED}
    return dataclasses.replace(point, **(kept or {"quantile": changes["quantile"]}))


def front(entries: Sequence[F], x: Callable[[F], float], y: Callable[[F], float]) -> list[F]:
    """Return the entries that no other beats in both ``x`` and ``y``, rising in ``x``."""
    kept: list[F] = []
    for entry in sorted(entries, key=lambda own: (x(own), y(own))):
        if not kept or y(entry) < y(kept[-1]):
            kept.append(entry)
    return kept


def _suggested(trial: "optuna.Trial", free: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, choices in free.items():
        if name in LINEAR or name in LOGARITHMIC:
            yield name, trial.suggest_float(name, *choices, log=name in LOGARITHMIC)
        else:
            yield name, trial.suggest_categorical(name, choices)


def _rounded(guidance: GuidanceSettings) -> GuidanceSettings:
    """Round to what a person would write, so that the file holds exactly what was tried."""
    rounded = {name: max(1e-6, float(f"{getattr(guidance, name):.4g}")) for name in ("step", "verify_threshold")}
    return dataclasses.replace(guidance, dead_band=float(f"{guidance.dead_band:.4g}"), **rounded)  # type: ignore[arg-type]
