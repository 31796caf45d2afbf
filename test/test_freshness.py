import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.control.clock_watch import ClockWatch
from dysl_vla_ros.control.freshness import Freshness
from dysl_vla_ros.settings import SafetySettings

SAFETY = SafetySettings()  # arrival 0.3 s, stamp 0.5 s, clock skew 0.05 s, camera skew 0.1 s
ROS = 1000.0  # s, the ROS clock at steady 0


def one_camera(**topics: str) -> Freshness:
    freshness = Freshness(["image"], topics=topics)
    freshness.start(0.0)
    return freshness


def camera_and_pose() -> Freshness:
    freshness = Freshness(["image"], ["ee_pose"])
    freshness.start(0.0)
    return freshness


def test_fresh_inputs_stop_nothing() -> None:
    freshness = camera_and_pose()
    freshness.received("image", 0.1, ROS + 0.09, ROS + 0.1)
    freshness.received("ee_pose", 0.1)
    assert freshness.stop_reason(0.2, ROS + 0.2, SAFETY) == ""


def test_a_source_that_never_appeared_is_named_by_its_topic_with_a_hint() -> None:
    freshness = one_camera(image="/camera/color/image_raw")
    assert freshness.stop_reason(2.5, ROS, SAFETY) == (
        "/camera/color/image_raw: no message yet for 2.5 s; is it published, and the name remapped to the right topic?"
    )


def test_every_missing_source_is_named_at_once() -> None:
    reason = camera_and_pose().stop_reason(1.0, ROS, SAFETY)
    assert "image: no message yet" in reason
    assert "ee_pose: no message yet" in reason


@pytest.mark.parametrize("source", ["image", "ee_pose"])
def test_a_silent_source_stops_by_the_steady_clock_while_the_ros_clock_stands_still(source: str) -> None:
    freshness = camera_and_pose()
    for name in ("image", "ee_pose"):
        freshness.received(name, 1.0, ROS if name == "image" else None, ROS)
    (other,) = {"image", "ee_pose"} - {source}
    freshness.received(other, 1.29, ROS + 0.001 if other == "image" else None, ROS)
    assert freshness.stop_reason(1.299, ROS, SAFETY) == ""
    reason = freshness.stop_reason(1.31, ROS, SAFETY)
    assert reason.startswith(f"{source} has stopped: newest message 0.31 s ago, limit 0.3 s (safety.max_arrival_age)")
    assert ";" in reason and other not in reason
    freshness.received(source, 1.32, ROS + 0.002 if source == "image" else None, ROS)
    assert freshness.stop_reason(1.33, ROS, SAFETY) == ""


def test_a_frozen_camera_is_stopped_like_a_silent_one_and_called_frozen() -> None:
    freshness = one_camera()
    assert freshness.received("image", 0.0, ROS, ROS) == ""
    for tick in range(1, 8):
        assert "does not advance" in freshness.received("image", tick * 0.05, ROS, ROS + tick * 0.05)
    reason = freshness.stop_reason(0.36, ROS + 0.36, SAFETY)
    assert reason.startswith("image: messages are refused: its stamp 1000.000 does not advance: the source is frozen")
    assert freshness.received("image", 0.37, ROS + 0.37, ROS + 0.37) == ""
    assert freshness.stop_reason(0.38, ROS + 0.38, SAFETY) == ""


def test_a_message_out_of_order_is_refused_and_renews_nothing() -> None:
    freshness = one_camera()
    freshness.received("image", 0.0, ROS, ROS)
    assert "older than 1000.000" in freshness.received("image", 0.2, ROS - 0.05, ROS + 0.2)
    assert freshness.stop_reason(0.29, ROS + 0.29, SAFETY) == ""
    assert freshness.stop_reason(0.31, ROS + 0.31, SAFETY) != ""


def test_a_stamp_from_the_future_is_refused_with_both_times_and_a_fix() -> None:
    freshness = one_camera(image="/front")
    why = freshness.received("image", 0.0, ROS + 10.0, ROS)
    for part in ("1010.000", "10 s ahead", "1000.000", "0.05 s (safety.max_clock_skew)", "NTP", "use_sim_time"):
        assert part in why
    assert freshness.stop_reason(0.1, ROS + 0.1, SAFETY) == f"/front: messages are refused: {why}"


def test_one_stamp_from_the_future_does_not_make_the_right_ones_look_old() -> None:
    freshness = one_camera()
    freshness.received("image", 0.0, ROS, ROS)
    assert freshness.received("image", 0.05, ROS + 3600.0, ROS + 0.05) != ""
    assert freshness.received("image", 0.1, ROS + 0.1, ROS + 0.1) == ""
    assert freshness.stop_reason(0.15, ROS + 0.15, SAFETY) == ""


def test_a_stamp_within_the_clock_skew_is_accepted() -> None:
    freshness = one_camera()
    assert freshness.received("image", 0.0, ROS + 0.04, ROS) == ""
    assert freshness.stop_reason(0.0, ROS, SAFETY) == ""
    assert freshness.received("image", 0.1, ROS + 0.3, ROS + 0.1, max_clock_skew=0.2) == ""


@pytest.mark.parametrize("stamp", [0.0, -1.0, math.nan, math.inf])
def test_a_stamp_that_is_none_is_refused(stamp: float) -> None:
    assert "stamp" in one_camera().received("image", 0.0, stamp, ROS)


def test_an_old_stamp_stops_although_messages_arrive() -> None:
    freshness = one_camera()
    assert freshness.received("image", 0.0, ROS - 2.0, ROS) == ""
    reason = freshness.stop_reason(0.01, ROS + 0.01, SAFETY)
    assert reason.startswith("image: the newest image was 2.01 s old by its stamp, limit 0.5 s (safety.max_stamp_age)")
    assert "NTP" in reason


def test_a_negative_arrival_age_is_stale() -> None:
    freshness = one_camera()
    freshness.received("image", 10.0, ROS, ROS)
    assert "has stopped" in freshness.stop_reason(9.0, ROS, SAFETY)


def test_a_clock_that_jumps_back_stops_and_new_stamps_are_accepted_at_once() -> None:
    freshness = one_camera()
    freshness.received("image", 0.0, ROS, ROS)
    assert "ahead of the node's clock" in freshness.stop_reason(0.05, ROS - 50.0, SAFETY)
    assert freshness.received("image", 0.1, ROS - 49.9, ROS - 49.9) == ""
    assert freshness.stop_reason(0.1, ROS - 49.9, SAFETY) == ""


def test_after_a_jump_every_source_must_send_anew_also_one_without_stamps() -> None:
    freshness = camera_and_pose()
    freshness.received("image", 0.0, ROS, ROS)
    freshness.received("ee_pose", 0.0)
    freshness.clock_jumped()
    reason = freshness.stop_reason(0.01, ROS, SAFETY)
    assert "image: " in reason and "ee_pose: " in reason and "from before the clock jumped" in reason
    freshness.received("image", 0.02, ROS, ROS)
    assert "ee_pose: " in freshness.stop_reason(0.03, ROS, SAFETY)
    freshness.received("ee_pose", 0.02)
    assert freshness.stop_reason(0.03, ROS, SAFETY) == ""


def test_refused_pictures_become_a_stop_that_says_why() -> None:
    freshness = one_camera()
    freshness.received("image", 0.0, ROS, ROS)
    freshness.refused("image", 0.2, "encoding 'yuv999' is not supported")
    assert freshness.stop_reason(0.25, ROS + 0.25, SAFETY) == ""
    freshness.refused("image", 0.31, "encoding 'yuv999' is not supported")
    assert freshness.stop_reason(0.32, ROS + 0.32, SAFETY) == (
        "image: messages are refused: encoding 'yuv999' is not supported"
    )


def test_what_turns_out_unusable_renews_nothing_until_a_later_message_is_proved() -> None:
    freshness = one_camera()
    for arrival in (0.0, 0.1, 0.2):
        assert freshness.received("image", arrival, ROS + arrival) == ""
    freshness.unusable("image", 0.1, "damaged")
    assert freshness.in_doubt("image")
    assert freshness.stop_reason(0.29, ROS + 0.29, SAFETY) == "", "as old as the message before the damaged one"
    freshness.received("image", 0.3, ROS + 0.3)
    assert freshness.stop_reason(0.31, ROS + 0.31, SAFETY) == "image: messages are refused: damaged"
    freshness.proved("image", 0.3)
    assert freshness.stop_reason(0.31, ROS + 0.31, SAFETY) == "" and not freshness.in_doubt("image")
    assert freshness.statistics("image", 0.31).refused == 1


def test_proof_of_a_source_that_nobody_doubts_changes_nothing() -> None:
    freshness = one_camera()
    freshness.received("image", 0.2, ROS + 0.2)
    freshness.proved("image", 0.1)
    assert freshness.statistics("image", 0.2).age == 0.0


def test_a_slow_simulated_clock_stretches_the_arrival_limit_and_only_tenfold() -> None:
    freshness = one_camera()
    freshness.received("image", 0.0, ROS, ROS)
    assert freshness.stop_reason(0.5, ROS + 0.25, SAFETY) != ""
    assert freshness.stop_reason(0.5, ROS + 0.25, SAFETY, clock_rate=0.5) == ""
    assert freshness.stop_reason(0.61, ROS + 0.3, SAFETY, clock_rate=0.5) != ""
    assert freshness.stop_reason(3.1, ROS, SAFETY, clock_rate=0.0) != ""
    assert freshness.stop_reason(0.29, ROS, SAFETY, clock_rate=10.0) == ""


def test_an_action_is_stopped_by_the_age_of_the_image_it_answers() -> None:
    freshness = one_camera()
    assert freshness.action_stop_reason(0.5, SAFETY) == ""
    assert freshness.action_stop_reason(-0.05, SAFETY) == ""
    assert "0.6 s old, limit 0.5 s (safety.max_stamp_age)" in freshness.action_stop_reason(0.6, SAFETY)
    assert "jumped back" in freshness.action_stop_reason(-1.0, SAFETY)
    assert freshness.action_stop_reason(math.nan, SAFETY) != ""


def test_a_new_start_forgets_old_arrivals_and_keeps_counts() -> None:
    freshness = one_camera()
    freshness.received("image", 0.0, ROS, ROS)
    freshness.start(0.1)
    assert "no message yet for 0.0 s" in freshness.stop_reason(0.1, ROS, SAFETY)
    assert freshness.statistics("image", 0.1).received == 1


def test_statistics_count_what_happened_to_every_message() -> None:
    freshness = one_camera(image="/front")
    for tick in range(40):
        freshness.received("image", tick * 0.05, ROS + tick * 0.05, ROS + tick * 0.05)
    freshness.refused("image", 1.96, "truncated")
    freshness.dropped("image", 3)
    statistics = freshness.statistics("image", 2.0)
    assert (statistics.topic, statistics.received, statistics.refused, statistics.dropped) == ("/front", 41, 1, 3)
    assert statistics.rate == pytest.approx(20.0, rel=0.03)
    assert statistics.age == pytest.approx(0.05)
    assert statistics.last_refusal == "truncated"
    assert freshness.statistics("image", 10.0).rate == 0.0


def test_identical_pictures_are_counted_in_a_row_and_stop_nothing() -> None:
    freshness = one_camera()
    freshness.received("image", 0.0, ROS, ROS)
    assert [freshness.note_identical("image", same) for same in (False, True, True, False, True)] == [0, 1, 2, 0, 1]
    assert freshness.statistics("image", 0.0).identical == 1
    assert freshness.stop_reason(0.0, ROS, SAFETY) == ""


@given(
    st.lists(
        st.tuples(st.floats(0.0, 0.4), st.floats(-3.0, 3.0), st.sampled_from([0.0, 0.0, 0.0, -5.0, 5.0])), max_size=20
    )
)
def test_motion_is_never_allowed_on_an_old_silent_or_future_image(events: list[tuple[float, float, float]]) -> None:
    freshness = one_camera()
    steady, ros, newest = 0.0, ROS, None  # newest: arrival and stamp of the last accepted image
    for wait, offset, jump in events:
        steady, ros = steady + wait, ros + wait + jump
        for now, clock in ((steady, ros), (steady + 0.2, ros + 0.2)):
            if freshness.stop_reason(now, clock, SAFETY) == "":
                assert newest is not None
                assert now - newest[0] <= SAFETY.max_arrival_age
                assert -SAFETY.max_clock_skew <= clock - newest[1] <= SAFETY.max_stamp_age
        if freshness.received("image", steady, ros + offset, ros) == "":
            assert offset <= SAFETY.max_clock_skew + 1e-9
            newest = (steady, ros + offset)


# The clock itself


def run(watch: ClockWatch, steady: float, ros: float, rate: float, seconds: float) -> tuple[float, float]:
    """Update a watch at 20 Hz and assert that nothing jumps."""
    for _ in range(round(seconds * 20)):
        steady, ros = steady + 0.05, ros + 0.05 * rate
        assert watch.update(steady, ros) == ""
    return steady, ros


@pytest.mark.parametrize("rate", [0.2, 1.0, 10.0])
def test_the_rate_of_a_simulated_clock_is_measured(rate: float) -> None:
    watch = ClockWatch()
    run(watch, 0.0, ROS, rate, 3.0)
    assert watch.rate == pytest.approx(rate)


def test_a_paused_clock_keeps_its_rate() -> None:
    watch = ClockWatch()
    steady, ros = run(watch, 0.0, ROS, 0.5, 3.0)
    steady, ros = run(watch, steady, ros, 0.0, 20.0)
    assert watch.rate == pytest.approx(0.5)
    run(watch, steady, ros, 0.5, 3.0)
    assert watch.rate == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("jump", "text"),
    [(-50.0, "jumped back by 49.950"), (-0.1, "jumped back by 0.050"), (1000.0, "jumped ahead by 1000.050")],
)
def test_a_jump_is_told_once(jump: float, text: str) -> None:
    watch = ClockWatch()
    steady, ros = run(watch, 0.0, ROS, 1.0, 1.0)
    assert text in watch.update(steady + 0.05, ros + 0.05 + jump)
    run(watch, steady + 0.05, ros + 0.05 + jump, 1.0, 1.0)


def test_a_clock_that_stands_still_is_told_by_how_long_and_after_a_restart_nothing_is_a_jump() -> None:
    watch = ClockWatch()
    assert watch.standing(5.0) == 0.0
    steady, ros = run(watch, 0.0, ROS, 1.0, 1.0)
    assert watch.standing(steady) == 0.0
    assert watch.update(steady + 0.4, ros) == "" and watch.standing(steady + 0.4) == pytest.approx(0.4)
    watch.restart()
    assert watch.update(steady + 60.0, ROS - 500.0) == "" and watch.jumps == 0
