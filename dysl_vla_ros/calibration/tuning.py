"""Which settings to run a policy with: a seeded search over recorded full-depth runs, judged on runs held out of it.

Random points first, on a part of the runs (the rung); the better third of them on all; then small changes of the best
so far; the best few, for the limit and for somewhat less and more than it, are judged on held-out runs, and the best
there is the choice. The settings before tuning are always among those judged. Searched are the controllers' threshold,
``guidance.step``, window, stride, dead band, the verification's threshold and kind, warm-up, and prior and verification
on or off; the scales come from the runs themselves (guidance_calibration), so that one search serves any robot.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from dysl_vla_ros.calibration.cost_model import CostModel
from dysl_vla_ros.calibration.guidance_values import (
    ContinuityTrace,
    prior_step,
    trace_continuity,
    verify_threshold,
)
from dysl_vla_ros.calibration.remembered_passes import RememberedPasses
from dysl_vla_ros.interfaces import ActionSpec, FloatArray
from dysl_vla_ros.records.deviation import gripper_opening, rotation_degrees, translation_mm
from dysl_vla_ros.settings import GuidanceSettings, RuntimeSettings, SkippingSettings

WINDOWS = (1, 2, 3, 5, 8, 12)
WARMUPS = (1, 2, 3)
FINALISTS = 3  # for each slack; judged on the held-out runs: few, or the judgement would be a search of its own
SLACKS = (1.0, 0.9, 1.1)  # of the limit: what just keeps it on some runs may just miss it on others
RUNG_SHARE = 1 / 3  # of the runs to search on, for the first look at a random point
NO_DEAD_BAND = -1.0  # 0.0 would stand for "as calibrated"


@dataclass(frozen=True)
class Target:
    """What is wanted; one of the two is given."""

    milliseconds: float | None = None  # largest mean of an inference, by the cost model
    deviation: float | None = None  # mm, largest 95th percentile: what `dysl_vla replay --max-deviation` limits

    @property
    def axis(self) -> str:
        """Name of the figure of deviation that counts: the 95th percentile where it is limited, else the mean."""
        return "deviation" if self.deviation is None else "deviation_p95"

    def score(self, figures: "Figures") -> tuple[float, float]:
        """Return what is to be least: first by how much the limit is missed, then what is not limited."""
        if self.milliseconds is not None:
            return max(0.0, figures.milliseconds - self.milliseconds), figures.deviation
        assert self.deviation is not None
        return max(0.0, figures.deviation_p95 - self.deviation), figures.milliseconds

    def scaled(self, share: float) -> "Target":
        """Return the same target with ``share`` of its limit."""
        limits = {"milliseconds": self.milliseconds, "deviation": self.deviation}
        return Target(**{name: None if limit is None else share * limit for name, limit in limits.items()})

    def met(self, figures: "Figures") -> bool:
        """Tell whether the limit is kept."""
        return self.score(figures)[0] == 0.0

    def __str__(self) -> str:
        if self.milliseconds is not None:
            return f"at most {self.milliseconds:g} ms an inference in the mean"
        return f"at most {self.deviation:g} mm from full depth in 95% of the inferences"


@dataclass(frozen=True)
class Figures:
    """What some settings do on some runs, means over inferences where not said otherwise."""

    layers: float  # layer calls, both passes
    milliseconds: float  # by the cost model
    milliseconds_p95: float
    deviation: float  # mm, see :func:`deviations`
    deviation_p95: float
    translation: float  # mm
    rotation: float  # degrees
    gripper: float  # opening, 0 to 1
    verified: float  # share of the inferences
    inferences: int


@dataclass(frozen=True)
class Trial:
    """One point of the search."""

    settings: RuntimeSettings
    figures: Figures
    stage: str  # "before", "random", "refined" or "local"
    whole: bool  # false: on the rung only


@dataclass(frozen=True)
class Tuning:
    """What a search found."""

    choice: Trial  # figures on the held-out runs
    before: Trial  # the settings before tuning, held-out runs
    met: bool  # whether the choice keeps the target on the held-out runs
    trials: tuple[Trial, ...]  # every point, figures on the runs searched on
    finalists: tuple[Trial, ...]  # held-out runs, best first


@dataclass(frozen=True)
class Point:
    """A place in the search space, in units that mean the same for every policy and robot."""

    quantile: float  # of all controllers' outputs, 0 to 1: the threshold
    factor: float = 4.0  # of the starting point of eta
    stride: str = "integral"
    band: float = 0.0  # of the median |dC|
    window: int = 5
    prior: bool = True
    verify: bool = True
    verify_on: str = "any"
    share: float = 0.1  # of the inferences that would be verified at full depth
    warmup: int = 2


class SearchSpace:
    """Points, and the settings they stand for on these runs."""

    def __init__(self, passes: RememberedPasses, before: RuntimeSettings) -> None:
        """Measure the scales: controllers' outputs along the deepest and the shallowest way, continuity.

        m and the weights of rotation and gripper are those of ``before``.
        """
        self._passes, self._before, self._m = passes, before.guidance, before.actions_per_inference
        self._traces: dict[int, ContinuityTrace] = {}
        self._outputs = passes.outputs()

    def settings(self, point: Point) -> RuntimeSettings:
        """Return the settings that ``point`` stands for, every value resolved."""
        trace = self._trace(point.window)
        guidance = dataclasses.replace(
            self._before,
            window=point.window,
            step=min(100.0, point.factor * prior_step(trace, self._passes.partition)),
            verify_threshold=verify_threshold(trace, point.verify_on, point.share),
            dead_band=point.band * float(np.median(np.abs(trace.change))) or NO_DEAD_BAND,
            stride=point.stride,
            warmup=point.warmup,
            verify_on=point.verify_on,
            prior=point.prior,
            verify=point.verify,
        )
        threshold = round(float(np.quantile(self._outputs, point.quantile)), 6)
        return RuntimeSettings(SkippingSettings(threshold=threshold), _rounded(guidance), self._m)

    def draw(self, random: np.random.Generator) -> Point:
        """Draw a point from the whole space."""
        return Point(
            quantile=float(random.uniform(0.0, 1.0)),
            factor=float(np.exp(random.uniform(np.log(0.5), np.log(32.0)))),
            stride=str(random.choice(("paper", "integral"))),
            band=float(random.choice((0.0, 0.5, 1.0, 2.0))),
            window=int(random.choice(WINDOWS)),
            prior=bool(random.random() < 0.75),
            verify=bool(random.random() < 0.8),
            verify_on=str(random.choice(("first", "any"))),
            share=float(np.exp(random.uniform(np.log(0.01), np.log(0.4)))),
            warmup=int(random.choice(WARMUPS)),
        )

    def near(self, point: Point, size: float, random: np.random.Generator) -> Point:
        """Change a few coordinates of ``point`` by about ``size`` (1: as far as drawing anew)."""
        other = self.draw(random)
        changes: dict[str, object] = {
            "quantile": float(np.clip(point.quantile + size * random.normal() * 0.2, 0.0, 1.0)),
            "factor": float(np.clip(point.factor * np.exp(size * random.normal()), 0.25, 64.0)),
            "share": float(np.clip(point.share * np.exp(size * random.normal()), 0.005, 0.5)),
        }
        for name in ("stride", "band", "window", "prior", "verify", "verify_on", "warmup"):
            changes[name] = getattr(other, name)
        kept = {name: value for name, value in changes.items() if random.random() < 0.35}
        return dataclasses.replace(point, **(kept or {"quantile": changes["quantile"]}))  # type: ignore[arg-type]

    def _trace(self, window: int) -> ContinuityTrace:
        if window not in self._traces:
            passes, settings = self._passes, dataclasses.replace(self._before, window=window)
            trace = trace_continuity(passes.runs, passes.partition, passes.action, self._m, settings)
            self._traces[window] = trace
        return self._traces[window]


def tune(
    searched: RememberedPasses,
    held_out: RememberedPasses,
    before: RuntimeSettings,
    target: Target,
    cost: CostModel,
    *,
    trials: int = 160,
    seed: int = 0,
) -> Tuning:
    """Search for settings that keep ``target`` and are best in what it does not limit.

    Args:
        searched: runs that are searched on.
        held_out: runs that the best few are judged on.
        before: the settings so far, every value resolved; they compete too. Their m is kept.
        target: the limit.
        cost: of this machine.
        trials: points to try, at least 10.
        seed: of the search; the same seed, runs and cost model give the same choice.
    """
    assert trials >= 10
    random, space = np.random.default_rng(seed), SearchSpace(searched, before)
    rung = list(range(0, len(searched.runs), max(1, round(1 / RUNG_SHARE))))
    found: list[tuple[Point | None, Trial]] = []
    progress = tqdm(total=trials, desc="tuning", unit="trial", disable=None)

    def attempt(point: Point | None, stage: str, runs: list[int] | None = None) -> None:
        settings = before if point is None else space.settings(point)
        trial = Trial(settings, measure(searched, settings, cost, runs), stage, runs is None)
        found.append((point, trial))
        progress.update()
        whole = [own.figures for _, own in found if own.whole]
        if whole:
            best = min(whole, key=target.score)
            progress.set_postfix(best=f"{best.deviation:.2f} mm, {best.milliseconds:.1f} ms, {best.layers:.1f} layers")

    attempt(None, "before")
    first = (trials - 1) * 5 // 10
    for stratum in random.permutation(first):  # thresholds evenly spread, everything else at random
        quantile = (float(stratum) + float(random.uniform())) / first
        attempt(dataclasses.replace(space.draw(random), quantile=quantile), "random", rung)
    promoted = _best([entry for entry in found if not entry[1].whole], target, max(1, first // 3))
    for point, _ in promoted:
        attempt(point, "refined")
    left = trials - len(found)
    for number in range(left):
        best = _best([e for e in found if e[1].whole and e[0] is not None], target, 5)
        parent = best[int(random.integers(len(best)))][0]
        assert parent is not None
        attempt(space.near(parent, 0.4 * (1.0 - number / left) + 0.1, random), "local")
    progress.close()

    whole = [entry for entry in found if entry[1].whole]
    best_few = {trial.settings: trial for slack in SLACKS for _, trial in _best(whole, target.scaled(slack), FINALISTS)}
    judged = [
        dataclasses.replace(trial, figures=measure(held_out, trial.settings, cost)) for trial in best_few.values()
    ]
    own = dataclasses.replace(found[0][1], figures=measure(held_out, before, cost))
    finalists = sorted([*judged, own], key=lambda trial: target.score(trial.figures))
    choice = finalists[0]
    return Tuning(choice, own, target.met(choice.figures), tuple(t for _, t in found), tuple(finalists))


def measure(
    passes: RememberedPasses, settings: RuntimeSettings, cost: CostModel, runs: Sequence[int] | None = None
) -> Figures:
    """Replay runs under ``settings`` and say what that does."""
    m = settings.actions_per_inference
    indices = range(len(passes.runs)) if runs is None else runs
    steps = list(passes.replay(settings, list(indices)))
    given = np.concatenate([step.actions[:m] for step in steps])
    wanted = np.concatenate([passes.runs[index].chunks[:, :m].reshape(-1, given.shape[1]) for index in indices])
    calls = np.array([step.layer_calls for step in steps], np.float32)
    verified = np.array([step.verified for step in steps], np.float32)
    milliseconds = cost.milliseconds(calls, verified)
    parts = deviations(given, wanted, passes.action)
    return Figures(
        layers=float(calls.mean()),
        milliseconds=float(milliseconds.mean()),
        milliseconds_p95=float(np.quantile(milliseconds, 0.95)),
        deviation=float(parts["deviation"].mean()),
        deviation_p95=float(np.quantile(parts["deviation"], 0.95)),
        translation=float(parts["translation"].mean()),
        rotation=float(parts["rotation"].mean()),
        gripper=float(parts["gripper"].mean()),
        verified=float(verified.mean()),
        inferences=len(steps),
    )


def deviations(given: FloatArray, wanted: FloatArray, action: ActionSpec) -> dict[str, np.ndarray]:
    """Return how far actions (n, A) lie from others: translation mm, rotation degrees, gripper, and all in one.

    ``deviation``, in mm, is what is searched by: the translation's distance, with rotation and gripper brought to mm by
    the policy's own statistics (one scale of the gripper counts as one scale of translation). It is never less than the
    translation's.
    """
    scale = np.asarray(action.scale, np.float64)
    translation = translation_mm(given, wanted)
    others = 1000.0 * scale[:3].mean() * np.linalg.norm((given - wanted)[:, 3:] / scale[3:], axis=1)
    return {
        "translation": translation,
        "rotation": rotation_degrees(given, wanted),
        "gripper": gripper_opening(given, wanted),
        "deviation": np.hypot(translation, others),
    }


def front(trials: Sequence[Trial], axis: str = "deviation") -> list[Trial]:
    """Return the trials that no other beats in both milliseconds and deviation, quickest first."""
    kept: list[Trial] = []
    for trial in sorted(trials, key=lambda t: (t.figures.milliseconds, getattr(t.figures, axis))):
        if not kept or getattr(trial.figures, axis) < getattr(kept[-1].figures, axis):
            kept.append(trial)
    return kept


def _best(
    entries: Sequence[tuple[Point | None, Trial]], target: Target, count: int
) -> list[tuple[Point | None, Trial]]:
    """Return the ``count`` best of those that differ in what they do (a step without a prior changes nothing)."""
    kept: dict[Figures, tuple[Point | None, Trial]] = {}
    for entry in sorted(entries, key=lambda entry: target.score(entry[1].figures)):
        kept.setdefault(entry[1].figures, entry)
    return list(kept.values())[:count]


def _rounded(guidance: GuidanceSettings) -> GuidanceSettings:
    """Round to what a person would write, so that the file holds exactly what was tried."""
    rounded = {name: max(1e-6, float(f"{getattr(guidance, name):.4g}")) for name in ("step", "verify_threshold")}
    return dataclasses.replace(guidance, dead_band=float(f"{guidance.dead_band:.4g}"), **rounded)  # type: ignore[arg-type]
