"""Intervals of success against published ones, and their laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.records.intervals import difference, paired_difference, wilson

outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)

# Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998), 857-872,
# table I, method 3.
PUBLISHED_WILSON = {
    (81, 263): (0.2553, 0.3662),
    (15, 148): (0.0624, 0.1605),
    (0, 20): (0.0000, 0.1611),
    (1, 29): (0.0061, 0.1718),
}
# The source that the module names, table III, method 10: pairs (both, first alone, second alone, neither).
PUBLISHED_PAIRED = {
    (36, 12, 2, 0): (0.0569, 0.3404),
    (20, 12, 2, 16): (0.0562, 0.3292),
    (18, 12, 2, 18): (0.0562, 0.3290),
    (36, 14, 0, 0): (0.1528, 0.4167),
    (35, 14, 0, 1): (0.1461, 0.4175),
    (18, 14, 0, 18): (0.1441, 0.3963),
    (2, 97, 1, 0): (0.8721, 0.9854),
    (0, 29, 1, 0): (0.6666, 0.9882),
    (2, 98, 0, 0): (0.9178, 0.9945),
    (0, 30, 0, 0): (0.8395, 1.0),
    (54, 0, 0, 0): (-0.0664, 0.0664),
    (53, 0, 0, 1): (-0.0729, 0.0729),
    (30, 0, 0, 24): (-0.0358, 0.0358),
    (27, 0, 0, 27): (-0.0351, 0.0351),
}


def pairs(both, first, second, neither):
    one = [True] * both + [True] * first + [False] * second + [False] * neither
    other = [True] * both + [False] * first + [True] * second + [False] * neither
    return one, other


@pytest.mark.parametrize(("counts", "published"), PUBLISHED_WILSON.items())
def test_wilson_is_as_published(counts, published):
    assert wilson(*counts) == pytest.approx(published, abs=5.1e-5)


@pytest.mark.parametrize(("counts", "published"), PUBLISHED_PAIRED.items())
def test_the_paired_difference_is_as_published(counts, published):
    difference, low, high = paired_difference(*pairs(*counts))
    assert (low, high) == pytest.approx(published, abs=1e-4)
    assert difference == pytest.approx((counts[1] - counts[2]) / sum(counts))


@given(outcomes)
def test_a_paired_difference_turns_its_sign_with_the_sides_and_stays_within_its_bounds(drawn):
    one, other = zip(*drawn, strict=True)
    difference, low, high = paired_difference(one, other)
    back, back_low, back_high = paired_difference(other, one)
    assert (back, back_low, back_high) == pytest.approx((-difference, -high, -low))
    assert -1.0 <= low <= difference <= high <= 1.0
    assert high - low > 1e-6, "there is always a width"


@given(st.integers(1, 300), st.data())
def test_wilson_holds_the_share_and_mirrors(episodes, data):
    successes = data.draw(st.integers(0, episodes))
    low, high = wilson(successes, episodes)
    assert 0.0 <= low <= successes / episodes <= high <= 1.0
    mirrored = wilson(episodes - successes, episodes)
    assert (1 - high, 1 - low) == pytest.approx(mirrored)


def test_nothing_tried_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)
    assert paired_difference([], []) == (0.0, -1.0, 1.0)


@pytest.mark.parametrize(
    ("counts", "published"),  # Newcombe, Statistics in Medicine 17 (1998), 873-890, table II, method 10
    [
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
    ],
)
def test_the_difference_without_pairs_is_as_published(counts, published):
    apart, low, high = difference(*counts)
    assert apart == counts[0] / counts[1] - counts[2] / counts[3]
    assert (low, high) == pytest.approx(published, abs=5e-5)


def test_without_episodes_a_difference_is_unknown():
    assert difference(0, 0, 1, 2) == difference(1, 2, 0, 0) == (0.0, -1.0, 1.0)
