"""Levels of /diagnostics rise at once and fall late, so that a status does not flicker."""

from dysl_vla_ros.nodes.levels import FALL_AFTER, SteadyLevels, Threshold

OK, WARN, ERROR = b"\x00", b"\x01", b"\x02"


def test_a_level_rises_at_once_and_falls_after_some_better_messages() -> None:
    levels = SteadyLevels()
    assert levels.steady("inputs", OK, "fresh") == (OK, "fresh")
    assert levels.steady("inputs", ERROR, "stopped") == (ERROR, "stopped")
    kept = [levels.steady("inputs", OK, "fresh") for _ in range(FALL_AFTER)]
    assert kept[:-1] == [(ERROR, "fresh (just before: stopped)")] * (FALL_AFTER - 1)
    assert kept[-1] == (OK, "fresh")


def test_one_bad_message_among_good_ones_begins_the_count_anew() -> None:
    levels = SteadyLevels()
    seen = [levels.steady("inputs", level, "")[0] for level in (WARN, *([OK] * (FALL_AFTER - 1)), WARN, OK)]
    assert seen == [WARN] * len(seen)


def test_statuses_do_not_hold_each_other() -> None:
    levels = SteadyLevels()
    levels.steady("inputs", ERROR, "stopped")
    assert levels.steady("worker", OK, "loaded") == (OK, "loaded")


def test_a_threshold_is_left_lower_than_it_is_entered() -> None:
    threshold = Threshold(rise=0.5, fall=0.25)
    assert [threshold.exceeded(value) for value in (0.4, 0.5, 0.4, 0.25, 0.24, 0.4)] == [
        False, True, True, True, False, False,
    ]  # fmt: skip
