"""Which settings to run a policy with on one machine: searched on recorded full-depth runs, judged on others.

A :mod:`~dysl_vla_ros.calibration.search`, first with thresholds evenly spread and everything else at random, each
point seen on some of the runs and the better third on all; then small changes of the best; then wherever Optuna
expects more. The best few, for the limit and for somewhat less than it, are judged on held-out runs, and the best there
is the choice. The settings before tuning are always among those judged. Searched are the controllers' threshold,
``guidance.step``, window, stride, dead band, the verification's threshold and kind, warm-up, and prior and verification
on or off.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dysl_vla_ros.calibration.remembered_passes import RememberedPasses
from dysl_vla_ros.calibration.search import Point, SearchSpace, Tried, near, search
from dysl_vla_ros.calibration.search import front as front_of
from dysl_vla_ros.interfaces import END_EFFECTOR_POSE, ActionSpec, FloatArray
from dysl_vla_ros.records.deviation import Measure, measures
from dysl_vla_ros.runtime.cost_model import CostModel
from dysl_vla_ros.settings import RuntimeSettings

FINALISTS = 3  # for each slack; judged on the held-out runs: few, or the judgement would be a search of its own
SLACKS = (1.0, 0.9, 0.8)  # of the limit: what just keeps it on some runs may just miss it on others
PARENTS = 5  # the best of which small changes are tried
RUNG_SHARE = 1 / 3  # of the runs to search on, for the first look at a random point


@dataclass(frozen=True)
class Target:
    """What is wanted; one of the two is given."""

    milliseconds: float | None = None  # largest mean of an inference, by the cost model
    deviation: float | None = None  # largest 95th percentile: what `dysl_vla replay --max-deviation` limits
    unit: str = "mm"  # of deviations, see :func:`deviations`

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
        milliseconds, deviation = (None if it is None else share * it for it in (self.milliseconds, self.deviation))
        return dataclasses.replace(self, milliseconds=milliseconds, deviation=deviation)

    def met(self, figures: "Figures") -> bool:
        """Tell whether the limit is kept."""
        return self.score(figures)[0] == 0.0

    def __str__(self) -> str:
        if self.milliseconds is not None:
            return f"at most {self.milliseconds:g} ms an inference in the mean"
        return f"at most {self.deviation:g} {self.unit} from full depth in 95% of the inferences"


@dataclass(frozen=True)
class Figures:
    """What some settings do on some runs, means over inferences where not said otherwise."""

    layers: float  # layer calls, both passes
    milliseconds: float  # by the cost model
    milliseconds_p95: float
    deviation: float  # see :func:`deviations`
    deviation_p95: float
    parts: tuple[tuple[str, float], ...]  # what it is made of, by :func:`part_names`
    verified: float  # share of the inferences
    inferences: int


@dataclass(frozen=True)
class Trial:
    """One point of the search."""

    settings: RuntimeSettings
    figures: Figures
    stage: str  # "before", "start" or "searched"
    whole: bool  # false: on the rung only


@dataclass(frozen=True)
class Tuning:
    """What a search found."""

    choice: Trial  # figures on the held-out runs
    before: Trial  # the settings before tuning, held-out runs
    met: bool  # whether the choice keeps the target on the held-out runs
    trials: tuple[Trial, ...]  # every point, figures on the runs searched on
    finalists: tuple[Trial, ...]  # held-out runs, best first


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
        trials: settings to try, at least 10.
        seed: of the search; the same seed, runs and cost model give the same choice.
    """
    assert trials >= 10
    first = (trials - 1) // 2
    local = (trials - 1 - first) * 3 // 4
    tried = search(
        SearchSpace(searched, before),
        lambda settings, runs: measure(searched, settings, cost, runs),
        target.score,
        trials=trials - 1,
        seed=seed,
        starts=lambda tried: _starts(tried, target, first, local, seed),
        random=first,
        some=range(0, len(searched.runs), max(1, round(1 / RUNG_SHARE))),
        label="tuning",
        best=lambda own: f"best={own.deviation:.2f} {target.unit}, {own.milliseconds:.1f} ms, {own.layers:.1f} layers",
    )
    own = Trial(before, measure(searched, before, cost), "before", True)
    found = [own, *(Trial(t.settings, t.figures, "start" if t.start else "searched", t.whole) for t in tried)]

    whole = [trial for trial in found if trial.whole]
    best_few = {trial.settings: trial for slack in SLACKS for trial in _best(whole, target.scaled(slack), FINALISTS)}
    judged = [
        dataclasses.replace(trial, figures=measure(held_out, trial.settings, cost)) for trial in best_few.values()
    ]
    own = dataclasses.replace(own, figures=measure(held_out, before, cost))
    finalists = sorted([*judged, own], key=lambda trial: target.score(trial.figures))
    choice = finalists[0]
    return Tuning(choice, own, target.met(choice.figures), tuple(found), tuple(finalists))


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
    deviation = parts.pop("deviation")
    return Figures(
        layers=float(calls.mean()),
        milliseconds=float(milliseconds.mean()),
        milliseconds_p95=float(np.quantile(milliseconds, 0.95)),
        deviation=float(deviation.mean()),
        deviation_p95=float(np.quantile(deviation, 0.95)),
        parts=tuple((name, float(part.mean())) for name, part in parts.items()),
        verified=float(verified.mean()),
        inferences=len(steps),
    )


def part_names(action: ActionSpec) -> dict[str, Measure]:
    """Return what a policy's deviations are made of, by name; the first one leads, and its unit is that of all in one.

    Names are those that ``tune.json`` has of an end effector: translation, rotation, gripper.
    """
    return {measure.name if action.moves_joints else measure.words: measure for measure in measures(action)}


def deviations(given: FloatArray, wanted: FloatArray, action: ActionSpec) -> dict[str, np.ndarray]:
    """Return how far actions (n, A) lie from others, by :func:`part_names`, and as ``deviation`` all in one.

    ``deviation`` is what is searched by: the leading part, with the others brought to its unit by the policy's own
    statistics (one scale of the gripper counts as one scale of translation, or of the joint that moves most; of poses a
    radian does so too). It is never less than the leading part.
    """
    parts = part_names(action)
    found = {name: part.apart(given, wanted) for name, part in parts.items()}
    first, *rest = found
    scale = np.asarray(action.scale, np.float64)
    if action.moves_joints:
        spans = {name: float(part.apart(np.zeros_like(scale), scale)) or 1.0 for name, part in parts.items()}
        others = [spans[first] * found[name] / spans[name] for name in rest]
    elif action.kind == END_EFFECTOR_POSE:
        span = 1000.0 * scale[list(action.joint_indices[:3])].mean()
        one = {"rotation": np.degrees(1.0)}
        if "gripper" in parts:
            one["gripper"] = float(parts["gripper"].apart(np.zeros_like(scale), scale))
        others = [span * found[name] / one[name] for name in rest]
    else:
        others = [1000.0 * scale[:3].mean() * np.linalg.norm((given - wanted)[:, 3:] / scale[3:], axis=1)]
    return found | {"deviation": functools.reduce(np.hypot, others, found[first])}


def front(trials: Sequence[Trial], axis: str = "deviation") -> list[Trial]:
    """Return the trials that no other beats in both milliseconds and deviation, quickest first."""
    return front_of(trials, lambda own: own.figures.milliseconds, lambda own: float(getattr(own.figures, axis)))


def _starts(
    tried: Sequence[Tried[Figures]], target: Target, first: int, local: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield ``first`` thresholds, evenly spread, everything else drawn; then ``local`` small changes of the best."""
    random = np.random.default_rng(seed)
    for stratum in random.permutation(first):
        yield {"quantile": (float(stratum) + float(random.uniform())) / first}
    for number in range(local):
        parents: dict[Figures, Point] = {}  # that differ in what they do
        for own in sorted((own for own in tried if own.whole), key=lambda own: target.score(own.figures)):
            parents.setdefault(own.figures, own.point)
        best = list(parents.values())[:PARENTS]
        parent = best[int(random.integers(len(best)))]
        yield dataclasses.asdict(near(parent, 0.4 * (1.0 - number / local) + 0.1, random))


def _best(trials: Sequence[Trial], target: Target, count: int) -> list[Trial]:
    """Return the ``count`` best of those that differ in what they do (a step without a prior changes nothing)."""
    kept: dict[Figures, Trial] = {}
    for trial in sorted(trials, key=lambda own: target.score(own.figures)):
        kept.setdefault(trial.figures, trial)
    return list(kept.values())[:count]
