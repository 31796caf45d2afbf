"""The search for thresholds and guidance: a seed gives its points again, what it is told to begin with comes first."""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.calibration.search import EVERYTHING, Point, SearchSpace, front, search
from dysl_vla_ros.calibration.threshold_search import threshold_for, tolerated_at
from dysl_vla_ros.settings import GuidanceSettings, RuntimeSettings, SkippingSettings


class Space(SearchSpace):
    """Points without runs: a threshold is its quantile."""

    def __init__(self) -> None:
        self.outputs = np.linspace(0.0, 1.0, 11)

    def settings(self, point: Point) -> RuntimeSettings:
        guidance = dataclasses.replace(GuidanceSettings(), window=point.window, stride=point.stride)
        return RuntimeSettings(SkippingSettings(threshold=point.quantile), guidance)


class Figures(NamedTuple):
    """What a point gives: least at 0.7, which must not be above 0.6."""

    quantile: float
    whole: bool


def figures_of(settings: RuntimeSettings, runs: object) -> Figures:
    return Figures(settings.skipping.threshold, runs is None)


def score(figures: Figures) -> tuple[float, float]:
    return max(0.0, figures.quantile - 0.6), abs(figures.quantile - 0.7)


@pytest.mark.parametrize("some", [None, [0]])
def test_the_same_seed_tries_the_same_and_another_one_others(some) -> None:
    def tried(seed: int):
        starts = [{"quantile": number / 10} for number in range(10)]
        return search(Space(), figures_of, score, trials=40, seed=seed, starts=lambda tried: iter(starts), some=some)

    first = tried(0)
    assert first == tried(0) != tried(1) and len(first) == 40
    assert [own.settings.skipping.threshold for own in first[:10]] == [number / 10 for number in range(10)]
    assert [own.start for own in first] == [True] * 10 + [False] * 30 and all(own.whole for own in first[10:])
    assert all(own.figures.whole == own.whole for own in first)
    assert {own.whole for own in first} == ({True} if some is None else {True, False})
    best = min((own.figures for own in first if own.whole), key=score)
    assert 0.5 < best.quantile <= 0.6, "near the limit and within it"


def test_what_is_not_free_stays_as_it_is() -> None:
    tried = search(Space(), figures_of, score, trials=12, seed=0, free={"quantile": EVERYTHING["quantile"]})
    assert {own.settings.guidance for own in tried} == {Space().settings(Point(0.0)).guidance}


@given(st.floats(0.0, 1.0))
def test_a_quantile_stands_for_its_threshold(threshold: float) -> None:
    assert Space().quantile_of(threshold) == pytest.approx(threshold, abs=1e-9)


@given(st.floats(1e-4, 2.0))
def test_a_threshold_stands_for_a_tolerated_error(error: float) -> None:
    assert tolerated_at(threshold_for(error)) == pytest.approx(error, rel=1e-6)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_the_front_is_what_nothing_beats(entries) -> None:
    kept = front(entries, lambda own: own[0], lambda own: own[1])
    for one in entries:
        beaten = any(o[0] <= one[0] and o[1] <= one[1] and o != one for o in entries)
        assert (one in kept) == (not beaten)
