"""Random episodes go as METHOD's formulas say, written a second time here, from the text.

The second writing computes everything anew from the whole episode at each inference; see test_guidance.py for the
formulas and for cases by hand.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dysl_vla_ros.interfaces import ActionSpec, FloatArray
from dysl_vla_ros.settings import GuidanceSettings
from dysl_vla_ros.skipping.guidance import PriorPostGuidance

PLAIN = ActionSpec(8, 0.05, False, (0.0,) * 4, (1.0,) * 4)  # normalised = physical
SCALED = ActionSpec(8, 0.05, False, (0.5, -1.0, 0.25, 0.5), (0.5, 2.0, 0.25, 0.5))
TURNING = ActionSpec(8, 0.05, True, (0.0, 0.5, 0.0, 0.1, 0.0, -0.1, 0.5), (0.5, 1.0, 0.5, 0.2, 0.4, 0.2, 0.5))


class FromTheText:
    """Plain Python over the list of everything that was played."""

    def __init__(self, blocks: tuple[tuple[int, int], ...], spec: ActionSpec, chosen: GuidanceSettings, m: int) -> None:
        self.blocks, self.spec, self.chosen, self.m = blocks, spec, chosen, m
        self.reset()

    def reset(self) -> None:
        self.played: list[tuple[list[float], bool]] = []  # normalised action, an underrun lay before it
        self.values: list[float] = []  # C at each inference at which it was defined
        self.inferences = 0
        self.change = 0.0
        self.verifications: list[tuple[int, float]] = []  # inference, correction
        self.pending_gap = False
        self.later = [0.0 for _ in self.blocks]  # how much later than the first layer each point is

    def with_actions(self, actions: FloatArray, gaps: tuple[int, ...]) -> list[tuple[list[float], bool]]:
        added = []
        for number, action in enumerate(actions):
            values = [(float(a) - c) / s for a, c, s in zip(action, self.spec.center, self.spec.scale, strict=True)]
            added.append((values, number in gaps or (number == 0 and self.pending_gap)))
        return self.played + added

    def difference(self, one: list[float], two: list[float]) -> float:
        total = math.dist(one[:3], two[:3]) + self.chosen.gripper_weight * abs(one[-1] - two[-1])
        return total + (self.chosen.rotation_weight * math.dist(one[3:6], two[3:6]) if self.spec.has_rotation else 0.0)

    def continuity(self, played: list[tuple[list[float], bool]]) -> float | None:
        differences = []
        for number in range(1, len(played)):
            if not played[number][1]:
                differences.append(self.difference(played[number - 1][0], played[number][0]))
        n = min(self.chosen.window * self.m, len(differences))
        return -sum(differences[len(differences) - n :]) / n if n else None

    def inference(self, actions: FloatArray, gaps: tuple[int, ...]) -> None:
        self.inferences += 1
        self.played = self.with_actions(actions, gaps)
        self.pending_gap = len(actions) in gaps or (self.pending_gap and len(actions) == 0)
        now = self.continuity(self.played)
        if now is not None:
            self.values.append(now)
        self.change = self.values[-1] - self.values[-2] if len(self.values) > 1 else 0.0
        if not self.chosen.prior or abs(self.change) < 1e-12:
            return
        assume(abs(abs(self.change) - self.chosen.dead_band) > 1e-5)
        if abs(self.change) < self.chosen.dead_band:
            return
        layers = abs(self.change) / self.chosen.step
        if self.chosen.stride == "paper":
            assume(abs(layers - round(layers)) > 1e-4)
            layers = math.ceil(layers)
        for block, (first, end) in enumerate(self.blocks):
            moved = self.later[block] + (layers if self.change < 0 else -layers)
            self.later[block] = max(0.0, min(float(end - first), moved))
            assume(abs(self.later[block] % 1 - 0.5) > 1e-4)

    def allow_points(self) -> list[int]:
        if self.inferences <= self.chosen.warmup:
            return [end for _, end in self.blocks]
        return [first + round(later) for (first, _), later in zip(self.blocks, self.later, strict=True)]

    def candidate_change(self, candidate: FloatArray) -> float:
        now = self.continuity(self.played)
        if now is None:
            return 0.0
        then = self.continuity(self.with_actions(candidate, ()))
        return then - now

    def verdict(self, candidate: FloatArray) -> str:
        drop = self.candidate_change(candidate)
        assume(abs(drop + self.chosen.verify_threshold) > 1e-5)
        assume(abs(self.change + self.chosen.verify_threshold) > 1e-5)
        if not self.chosen.verify:
            return ""
        if drop < -self.chosen.verify_threshold:
            if self.chosen.verify_on == "any":
                return "any drop"
            if self.change >= -self.chosen.verify_threshold:
                return "first drop"
        last = self.verifications[-1] if self.verifications else None  # (inference, correction)
        if self.chosen.verify_while > 0 and last and last[1] > self.chosen.verify_while:
            return "still apart"
        unverified = self.inferences - 1 - (last[0] if last else 0)  # before this one
        return "in turn" if self.chosen.verify_every and unverified >= self.chosen.verify_every else ""


@dataclass
class Episode:
    """What happens: per inference a reset before it or not, actions played, an underrun, the candidate after it."""

    resets: list[bool]
    played: list[FloatArray]
    gaps: list[tuple[int, ...]]
    candidates: list[FloatArray]


def episode(seed: int, spec: ActionSpec, m: int, inferences: int, smoothness: float) -> Episode:
    """Make a random motion of which a few steps are jerky, with the odd reset, underrun, late or early inference."""
    random = np.random.default_rng(seed)
    action = np.zeros(spec.dimensions)

    def play(count: int) -> FloatArray:
        nonlocal action
        rows = []
        for _ in range(count):
            size = 1.0 if random.random() < 0.2 else smoothness
            action = 0.7 * action + size * random.normal(size=spec.dimensions)
            rows.append(spec.denormalise(action.astype(np.float32)))
        return np.array(rows, dtype=np.float32).reshape(count, spec.dimensions)

    resets = [number > 0 and random.random() < 0.1 for number in range(inferences)]
    counts = [
        0 if number == 0 or resets[number] else int(random.choice([m, m, m, m, 0, m + 1, max(m - 1, 0)]))
        for number in range(inferences)
    ]
    played = [play(count) for count in counts]
    gaps = [
        tuple(place for place in range(counts[number] + 1) if number and not resets[number] and random.random() < 0.1)
        for number in range(inferences)
    ]
    return Episode(resets, played, gaps, [play(m) for _ in range(inferences)])


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    spec=st.sampled_from([PLAIN, SCALED, TURNING]),
    blocks=st.sampled_from([(), ((1, 6),), ((1, 6), (7, 9)), ((1, 2), (3, 10), (11, 15))]),
    smoothness=st.sampled_from([0.02, 0.3]),
    window=st.sampled_from([1, 2, 5, 9]),
    eta=st.sampled_from([0.013, 0.11, 0.7]),
    eta1=st.sampled_from([0.01, 0.2]),
    dead_band=st.sampled_from([-1.0, 0.0, 0.05]),
    weights=st.sampled_from([(1.0, 1.0), (0.3, 2.0), (0.0, 0.0)]),
    warmup=st.integers(0, 3),
    verify_on=st.sampled_from(["first", "any"]),
    prior=st.booleans(),
    verify_every=st.sampled_from([0, 1, 4]),
    verify_while=st.sampled_from([0.0, 0.3]),
)
@pytest.mark.parametrize("m", [1, 4])
@pytest.mark.parametrize("stride", ["paper", "integral"])
def test_a_random_episode_goes_as_the_formulas_say(
    m,
    stride,
    seed,
    spec,
    blocks,
    smoothness,
    window,
    eta,
    eta1,
    dead_band,
    weights,
    warmup,
    verify_on,
    prior,
    verify_every,
    verify_while,
) -> None:
    chosen = GuidanceSettings(
        window=window, step=eta, verify_threshold=eta1, dead_band=dead_band, stride=stride, rotation_weight=weights[0],
        gripper_weight=weights[1], warmup=warmup, verify_on=verify_on, prior=prior,
        verify_every=verify_every, verify_while=verify_while,
    )  # fmt: skip
    made, text = PriorPostGuidance(blocks, spec), FromTheText(blocks, spec, chosen, m)
    made.configure(chosen, m)
    happens = episode(seed, spec, m, 25, smoothness)
    steps = zip(happens.resets, happens.played, happens.gaps, happens.candidates, strict=True)
    for reset, played, gaps, candidate in steps:
        if reset:
            made.reset()
            text.reset()
        made.observe(played, gaps)
        text.inference(played, gaps)
        value = text.continuity(text.played)
        assert made.continuity == pytest.approx(math.nan if value is None else value, rel=1e-5, abs=1e-6, nan_ok=True)
        assert made.continuity_change == pytest.approx(text.change, rel=1e-5, abs=1e-6)
        assert list(made.allow_points()) == text.allow_points()
        assert all(first <= at <= end for at, (first, end) in zip(made.allow_points(), blocks, strict=True))
        assert made.candidate_change(candidate) == pytest.approx(text.candidate_change(candidate), rel=1e-5, abs=1e-6)
        reason = made.needs_verification(candidate)
        assert reason == text.verdict(candidate)
        if reason and len(candidate):
            correction = float(abs(candidate).sum() % 1.0)
            made.verified(correction)
            text.verifications.append((text.inferences, correction))
