"""A stop is logged once a cause and again when it ends; a flood of stops is not a flood of lines."""

from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.nodes.stop_log import PERIOD, StopLog

SILENT = "no image on /image for {:.2f} s (safety.max_arrival_age is 0.3 s)"


def test_a_stop_is_one_line_and_its_end_another_whatever_the_age_in_it() -> None:
    log = StopLog()
    assert log.tick("", 0.0) == ""
    said = [log.tick(SILENT.format(0.3 + tick / 20), 1.0 + tick / 20) for tick in range(100)]
    assert said == [f"stopped: {SILENT.format(0.3)}", *[""] * 99]
    assert log.tick("waiting for the policy", 6.0, waits=True) == ""
    assert log.tick("", 6.5) == f"moving again after 5.5 s: {SILENT.format(0.3)}"
    assert log.tick("", 6.6) == ""


def test_another_cause_in_the_same_stop_is_said_and_ends_with_its_own_name() -> None:
    log = StopLog()
    assert log.tick("a camera is silent", 1.0) == "stopped: a camera is silent"
    assert log.tick("held by ~/hold", 2.0) == "stopped: held by ~/hold"
    assert log.tick("", 4.0) == "moving again after 3.0 s: held by ~/hold"


def test_a_chunk_that_runs_dry_is_no_stop() -> None:
    log = StopLog()
    assert [log.tick("waiting for the policy", now, waits=True) or log.tick("", now) for now in range(20)] == [""] * 20


@given(st.lists(st.tuples(st.sampled_from(("", "camera", "joints")), st.floats(0.001, 3.0)), max_size=200))
def test_a_flood_of_stops_is_at_most_two_lines_a_cause_and_period(ticks: list[tuple[str, float]]) -> None:
    log, now, stops = StopLog(), 0.0, dict[str, list[float]]()
    stopped, ended = 0, 0
    for reason, step in ticks:
        now += step
        said = log.tick(reason, now)
        if said.startswith("stopped"):
            stopped += 1
            stops.setdefault(reason, []).append(now)
        elif said:
            ended += 1
            assert reason == ""
    assert ended <= stopped
    for times in stops.values():
        assert all(after - before >= PERIOD for before, after in zip(times[:-1], times[1:], strict=True))


def test_what_was_not_said_in_a_flood_is_counted_in_the_next_line() -> None:
    log = StopLog()
    for number in range(9):
        log.tick("camera", float(number))
        log.tick("", number + 0.5)
    assert log.tick("camera", 11.0) == "stopped: camera (8 stops of causes logged before were not repeated)"
