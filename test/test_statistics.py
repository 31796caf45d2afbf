"""What an inference is expected to take: no cold start and no outlier in it. Seams over the window."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy")

from dysl_vla_ros.interfaces import ActionChunk, SkipTrace, StepResult, Timings  # noqa: E402
from dysl_vla_ros.nodes.outputs import InferenceRecord  # noqa: E402
from dysl_vla_ros.nodes.statistics import Statistics  # noqa: E402

TRACE = SkipTrace((True,), 1, (), (), (), 0.0, 0.0, 0.0, False, "", "no DySL folder")
RESULT = StepResult(SimpleNamespace(spec=ActionChunk, actions_to_play=1), TRACE, Timings())


def told(statistics: Statistics, *latencies: float, first: int = 1, seam: float = math.nan) -> Statistics:
    """Count inferences of these seconds, the first of them the episode's number ``first``."""
    for number, latency in enumerate(latencies, first):
        statistics.inferred(InferenceRecord(RESULT, 1, number, "", None, 0, 0.0, 0.0, 1e3 * latency, 0.0, False, seam))
    return statistics


def test_a_cold_start_enters_no_estimate():
    statistics = told(Statistics(), 9.0, 0.1, 0.1, 0.1)
    assert statistics.typical_latency() == pytest.approx(0.1)
    for _ in range(4):  # short episodes, each with a slow first inference
        told(statistics, 9.0, 0.1)
    assert statistics.typical_latency() == pytest.approx(0.1)


def test_nothing_is_expected_before_there_are_enough_to_leave_one_out():
    assert told(Statistics(), 9.0, 1.0, 0.1).typical_latency() == 0.0


@given(st.floats(0.001, 1.0), st.integers(3, 20), st.data())
def test_one_latency_ten_times_the_mean_changes_the_estimate_no_further_than_to_a_neighbour(usual, count, data):
    latencies = data.draw(st.lists(st.floats(0.8 * usual, 1.2 * usual), min_size=count, max_size=count))
    place = data.draw(st.integers(0, count - 1))
    statistics = told(Statistics(), usual)
    for number, latency in enumerate(latencies):
        told(statistics, 10 * usual if number == place else latency, first=2 + number)
        assert statistics.typical_latency() <= 1.2 * usual + 1e-9
    assert statistics.typical_latency() >= 0.8 * usual - 1e-9


def test_the_estimate_follows_a_model_that_becomes_slower_within_three_inferences():
    statistics = told(Statistics(), *[0.1] * 10)
    assert told(statistics, 0.3, 0.3, 0.3, first=11).typical_latency() == pytest.approx(0.3)


@given(st.integers(3, 60), st.data())
def test_one_outlier_is_never_taken_for_a_latency_to_reckon_with_and_slower_answers_are_within_three(count, data):
    place = data.draw(st.integers(0, count - 1))
    statistics = told(Statistics(), 9.0)  # a cold start
    told(statistics, *[2.0 if number == place else 0.1 for number in range(count)], first=2)
    assert statistics.long_latency() == pytest.approx(0.1)
    told(statistics, 0.3, 0.3, 0.3, first=2)
    assert statistics.long_latency() >= 0.3 - 1e-9
    assert told(Statistics(), 9.0, 0.1, 0.1).long_latency() == 0.0, "too few to tell"


def test_seams_are_those_of_the_window_and_none_is_not_zero():
    statistics = told(Statistics(), 0.1, 0.1)
    assert statistics.seams(100) is None
    for seam in (9.0, 1.0, math.nan, 2.0):
        told(statistics, 0.1, seam=seam)
    assert statistics.seams(100) == (pytest.approx(8.3), 9.0)
    assert statistics.seams(3) == (pytest.approx(1.95), 2.0)
