import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.control.chunk_time import latency_fault, ticks_per_action
from dysl_vla_ros.control.commander import Command, Commander
from dysl_vla_ros.errors import NonFiniteActionError, SettingError
from dysl_vla_ros.interfaces import ActionChunk, ActionSpec
from dysl_vla_ros.settings import ControlSettings, SafetySettings

SPEC = ActionSpec(4, 0.05, False, (0.0, 0.0, 0.0, 0.5), (0.01, 0.01, 0.01, 0.5))
SAFETY = SafetySettings()


def chunk(*numbers: float, verified: bool = False) -> ActionChunk:
    """A chunk whose actions can be told apart by their number: x is ``number`` micrometres."""
    return ActionChunk(np.array([[n * 1e-6, 0, 0, 0.5] for n in numbers], np.float32), 0.05, verified)


def number(action: np.ndarray) -> int:
    return round(float(action[0]) * 1e6)


def numbers(actions: np.ndarray) -> list[int]:
    return [number(action) for action in actions]


def commander(**control: float) -> Commander:
    return Commander(SPEC, control_settings(**control), SAFETY)


def control_settings(**changed: float) -> ControlSettings:
    """Chunks joined as they come, for tests of something else; see test_seam.py."""
    return ControlSettings(**({"max_linear_seam": 0.0, "max_angular_seam": 0.0} | changed))


def played(ours: Commander, ticks: int) -> list[int | None]:
    """Which action each of the next ticks plays."""
    commands = [ours.tick() for _ in range(ticks)]
    return [None if command is None or command.action is None else number(command.action) for command in commands]


# Joining chunks


def test_a_chunk_is_played_in_order_and_then_nothing() -> None:
    ours = commander()
    assert math.isnan(ours.offer(chunk(1, 2, 3), 0, 7, "stamp"))
    first = ours.tick()
    assert first is not None
    assert (first.index, first.chunk_length, first.inference, first.first_tick, first.verified) == (
        0,
        3,
        7,
        True,
        False,
    )
    assert first.reason == ""
    assert ours.image_stamp == "stamp"
    assert played(ours, 3) == [2, 3, None]
    assert ours.image_stamp is None
    assert ours.actions_played == 3


@pytest.mark.parametrize("late", range(4))
def test_the_new_chunk_begins_at_the_number_of_actions_played_since_its_observation(late: int) -> None:
    ours = commander()
    ours.offer(chunk(1, 2, 3, 4), 0, 0, None)
    played(ours, late)
    ours.offer(chunk(11, 12, 13, 14), 0, 1, None)
    assert played(ours, 5) == [11, 12, 13, 14][late:] + [None] * (late + 1)


def test_a_chunk_that_comes_too_late_is_not_taken_and_counted() -> None:
    ours = commander()
    ours.offer(chunk(1, 2, 3, 4), 0, 0, "old")
    played(ours, 2)
    assert math.isnan(ours.offer(chunk(11, 12), 0, 1, "late"))
    assert ours.late_chunks == 1
    assert ours.next_image_stamp == "old"
    assert played(ours, 3) == [3, 4, None]


def test_ticks_without_an_action_do_not_count_as_played() -> None:
    ours = commander()
    ours.offer(chunk(1), 0, 0, None)
    assert played(ours, 4) == [1, None, None, None]
    ours.offer(chunk(11, 12, 13), 0, 1, None)
    assert played(ours, 3) == [12, 13, None]


def test_the_seam_is_measured_in_normalised_units_from_the_last_played_action() -> None:
    ours = commander()
    first = ActionChunk(np.array([[0.01, 0, 0, 0.5], [0, 0, 0, 0]], np.float32), 0.05)
    second = ActionChunk(np.array([[9, 9, 9, 9], [0.04, 0.04, 0, 0.5]], np.float32), 0.05)
    assert math.isnan(ours.offer(first, 0, 0, None))
    played(ours, 1)
    assert ours.offer(second, 0, 1, None) == pytest.approx(5.0)  # 3 and 4 hundredths of a metre, scale 0.01


def test_after_a_stop_there_is_no_seam() -> None:
    ours = commander()
    ours.offer(chunk(1), 0, 0, None)
    played(ours, 1)
    ours.stop("test")
    assert math.isnan(ours.offer(chunk(2), 1, 1, None))


def test_the_stamp_of_the_coming_action_is_known_before_it_is_played() -> None:
    ours = commander(rate=40.0)
    assert ours.next_image_stamp is None
    ours.offer(chunk(1, 2), 0, 0, "a")
    assert ours.next_image_stamp == "a"
    assert ours.actions_played == 0
    played(ours, 1)
    ours.offer(chunk(11, 12), 0, 1, "b")
    assert ours.next_image_stamp == "a"  # the second tick of the action at hand
    played(ours, 1)
    assert (ours.image_stamp, ours.next_image_stamp) == ("a", "b")


def test_a_chunk_with_nan_is_refused_and_the_one_before_stays() -> None:
    ours = commander()
    ours.offer(chunk(1, 2), 0, 0, None)
    bad = chunk(11, 12)
    bad.actions[1, 2] = np.nan
    with pytest.raises(NonFiniteActionError, match="inference 1 .*not played"):
        ours.offer(bad, 0, 1, None)
    assert played(ours, 3) == [1, 2, None]


def test_a_chunk_changed_after_it_was_offered_changes_nothing() -> None:
    ours = commander()
    offered = chunk(1, 2)
    ours.offer(offered, 0, 0, None)
    offered.actions[:] = np.nan
    assert played(ours, 2) == [1, 2]


# Rate


@pytest.mark.parametrize(
    ("rate", "time_step", "ticks"), [(20.0, 0.05, 1), (100.0, 0.05, 5), (30.0, 0.1, 3), (10.0, 0.1, 1)]
)
def test_an_action_lasts_rate_times_time_step_ticks(rate: float, time_step: float, ticks: int) -> None:
    assert ticks_per_action(rate, time_step) == ticks


@pytest.mark.parametrize("rate", [10.0, 30.0, 21.0, 1.0])
def test_a_rate_that_is_no_whole_multiple_is_refused_and_changes_nothing(rate: float) -> None:
    ours = commander(rate=40.0)
    ours.offer(chunk(1, 2), 0, 0, None)
    with pytest.raises(SettingError, match=rf"control.rate is {rate:g} Hz.*each 0.05 s.*such as 20, 40 or 60"):
        ours.configure(ControlSettings(rate=rate, action_scale=0.0), SAFETY)
    command = ours.tick()
    assert command is not None and command.limits == ()
    assert played(ours, 3) == [1, 2, 2]


def test_everything_that_contradicts_the_policy_is_refused_together_and_changes_nothing() -> None:
    ours = commander()
    with pytest.raises(SettingError) as refused:
        ours.configure(ControlSettings(rate=30.0, actions_per_inference=64), SAFETY)
    text = str(refused.value)
    assert "for 30 Hz the policy's time_step would have to be 0.0666666667 s" in text
    assert "control.actions_per_inference is 64, but the policy's chunks have 4 actions: it must be from 1 to 4" in text
    ours.offer(chunk(1, 2, 3, 4), 0, 0, None)
    assert played(ours, 2) == [1, 2]


def test_a_repeated_action_counts_once_at_its_first_tick() -> None:
    ours = commander(rate=60.0)
    ours.offer(chunk(1, 2), 0, 0, None)
    commands = [ours.tick() for _ in range(6)]
    assert [command.first_tick for command in commands if command] == [True, False, False] * 2
    assert [number(c.action) for c in commands if c is not None and c.action is not None] == [1, 1, 1, 2, 2, 2]
    assert numbers(ours.take_played()[0]) == [1, 2]


def test_a_chunk_offered_in_the_middle_of_an_action_lets_it_end() -> None:
    ours = commander(rate=60.0)
    ours.offer(chunk(1, 2), 0, 0, None)
    played(ours, 1)
    ours.offer(chunk(11, 12, 13), 0, 1, None)
    assert played(ours, 5) == [1, 1, 12, 12, 12]


def test_translation_spans_the_time_step_whatever_the_rate() -> None:
    ours = commander(rate=40.0)
    ours.offer(ActionChunk(np.array([[0.01, 0, 0, 1]], np.float32), 0.05), 0, 0, None)
    ours.tick()
    command = ours.tick()
    assert command is not None
    np.testing.assert_allclose(command.linear, [0.2, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(command.translation, [0.01, 0, 0], rtol=1e-6)


# When inference is due


def test_inference_is_due_once_m_actions_of_the_chunk_were_played() -> None:
    ours = commander(actions_per_inference=2)
    assert ours.due
    ours.offer(chunk(1, 2, 3, 4), 0, 0, None)
    assert not ours.due
    played(ours, 1)
    assert not ours.due
    played(ours, 1)
    assert ours.due
    ours.offer(chunk(11, 12, 13, 14), 2, 1, None)
    assert not ours.due


def test_inference_is_due_when_fewer_than_m_actions_are_left() -> None:
    ours = commander(actions_per_inference=4)
    ours.offer(chunk(1), 0, 0, None)
    assert not ours.due
    played(ours, 1)
    assert ours.due


def test_inference_is_due_earlier_where_the_answer_takes_the_actions_that_are_left() -> None:
    ours = commander(actions_per_inference=4)
    ours.latency = 0.1  # two actions
    ours.offer(chunk(1, 2, 3, 4), 0, 0, None)
    assert [ours.due, played(ours, 1) and ours.due, played(ours, 1) and ours.due] == [False, False, True]
    ours = commander(actions_per_inference=1)
    ours.latency = 0.1
    ours.offer(chunk(1, 2, 3, 4), 0, 0, None)
    assert [ours.due, played(ours, 1) and ours.due] == [False, True], "m is never exceeded"


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 12), st.sampled_from([0.0, 0.3]))
def test_no_tick_is_without_an_action_once_the_latency_is_known_and_fits(
    horizon: int, m: int, late: int, part: float
) -> None:
    """``late`` whole actions and a part of one from request to answer; requests follow the tick."""
    latency = (late + part) * 0.05
    spec = dataclasses.replace(SPEC, horizon=horizon)
    ours = Commander(spec, control_settings(actions_per_inference=min(m, horizon)), SAFETY)
    ours.latency = latency
    observed, answer_at, dry, ours_begun = 0, 0.0, 0, False
    waiting = False
    for tick in range(80):
        if waiting and answer_at <= tick:
            ours.offer(chunk(*range(1, horizon + 1)), observed, tick, None)
            waiting = False
        command = ours.tick()
        ours_begun = ours_begun or command is not None
        dry += command is None and ours_begun
        if not waiting and ours.due:
            observed, answer_at, waiting = ours.actions_played, tick + max(late + part, 0.01), True
    assert bool(latency_fault(latency, spec)) == bool(dry or not ours_begun), (dry, ours_begun)


@given(st.integers(1, 64), st.floats(0.001, 5.0), st.sampled_from([0.02, 0.0333, 0.05, 0.1]))
def test_at_the_rate_that_is_said_to_fit_the_latency_fits(horizon: int, latency: float, time_step: float) -> None:
    fault = latency_fault(latency, dataclasses.replace(SPEC, horizon=horizon, time_step=time_step))
    if fault:
        rate = float(re.search(r"At most ([\d.]+) actions a second fit", fault)[1])  # type: ignore[index]
        assert not latency_fault(latency, dataclasses.replace(SPEC, horizon=horizon, time_step=1.0 / rate))


# Gaps


def test_an_underrun_is_a_gap_before_the_next_actions_only() -> None:
    ours = commander()
    ours.offer(chunk(1, 2), 0, 0, None)
    played(ours, 3)
    actions, gaps = ours.take_played()
    assert (numbers(actions), gaps) == ([1, 2], ())
    ours.offer(chunk(11), 2, 1, None)
    played(ours, 1)
    actions, gaps = ours.take_played()
    assert (numbers(actions), gaps) == ([11], (0,))


def test_actions_on_both_sides_of_a_gap_are_handed_over_together_with_its_place() -> None:
    ours = commander()
    ours.offer(chunk(1, 2), 0, 0, None)
    played(ours, 3)
    ours.offer(chunk(11, 12), 2, 1, None)
    played(ours, 3)
    ours.offer(chunk(21), 4, 2, None)
    played(ours, 1)
    actions, gaps = ours.take_played()
    assert (numbers(actions), gaps) == ([1, 2, 11, 12, 21], (2, 4))
    assert numbers(ours.take_played()[0]) == []


def test_waiting_for_the_first_chunk_is_no_gap() -> None:
    ours = commander()
    assert played(ours, 2) == [None, None]
    ours.offer(chunk(1), 0, 0, None)
    played(ours, 1)
    assert ours.take_played()[1] == ()


def test_nothing_played_is_an_empty_array_of_the_right_width() -> None:
    actions, gaps = commander().take_played()
    assert (actions.shape, actions.dtype, gaps) == ((0, 4), np.float32, ())


# Stops


def is_zero(command: Command) -> bool:
    parts = (command.linear, command.angular, command.translation, command.rotation)
    return all(not part.any() for part in parts) and command.gripper is None and command.action is None


def test_a_stop_is_a_zero_twist_at_once_that_holds_the_gripper_and_says_why() -> None:
    ours = Commander(SPEC, ControlSettings(), SafetySettings(max_linear_acceleration=0.01))
    ours.offer(ActionChunk(np.full((3, 4), 0.01, np.float32), 0.05), 0, 0, "stamp")
    played(ours, 2)
    command = ours.stop("image has stopped")
    assert is_zero(command)
    assert command.reason == "image has stopped"
    assert ours.image_stamp is None
    assert ours.due
    assert played(ours, 2) == [None, None]


def test_a_stop_also_ends_an_action_that_has_ticks_left() -> None:
    ours = commander(rate=60.0)
    ours.offer(chunk(1, 2), 0, 0, None)
    played(ours, 1)
    ours.stop("test")
    assert played(ours, 2) == [None, None]
    assert numbers(ours.take_played()[0]) == [1]


def test_after_a_stop_motion_ramps_in_again_and_starts_from_rest() -> None:
    ours = Commander(SPEC, control_settings(ramp_in=0.2), SafetySettings(max_linear_acceleration=1000.0))
    speeds = []
    for _ in range(2):
        ours.offer(ActionChunk(np.full((4, 4), [0.01, 0, 0, 1], np.float32), 0.05), ours.actions_played, 0, None)
        for _ in range(4):
            command = ours.tick()
            assert command is not None
            speeds.append(command.linear[0])
        ours.stop("test")
    np.testing.assert_allclose(speeds, [0.05, 0.1, 0.15, 0.2] * 2, rtol=1e-6)


def test_after_an_underrun_motion_starts_from_rest_without_a_ramp() -> None:
    ours = Commander(SPEC, control_settings(ramp_in=0.05), SafetySettings(max_linear_acceleration=2.0))
    moving = ActionChunk(np.full((3, 4), [0.01, 0, 0, 1], np.float32), 0.05)
    ours.offer(moving, 0, 0, None)
    commands = [ours.tick() for _ in range(4)]
    assert commands[3] is None
    braked = [ours.brake("waiting for the model") for _ in range(3)]
    # 2 m/s^2 over one tick
    assert [command.linear[0] for command in braked] == pytest.approx([0.1, 0.0, 0.0])
    assert [command.limits for command in braked] == [("safety.max_linear_acceleration",), (), ()]
    assert is_zero(braked[1]) and braked[1].still and not braked[0].still
    ours.offer(moving, 3, 1, None)
    again = ours.tick()
    assert again is not None
    assert again.linear[0] == pytest.approx(0.1)  # 2 m/s^2 over one tick
    assert again.limits == ("safety.max_linear_acceleration",)


def test_a_reset_forgets_the_chunk_what_was_played_and_the_count() -> None:
    ours = commander()
    ours.offer(chunk(1, 2, 3), 0, 0, "stamp")
    played(ours, 2)
    ours.reset()
    assert ours.actions_played == 0
    assert ours.image_stamp is None
    assert played(ours, 1) == [None]
    assert ours.take_played()[0].shape == (0, 4)
    assert math.isnan(ours.offer(chunk(5), 0, 0, None))


def test_new_settings_act_on_the_next_tick() -> None:
    ours = commander()
    ours.offer(chunk(1, 2), 0, 0, None)
    assert (ours.tick() or pytest.fail()).limits == ()
    ours.configure(dataclasses.replace(ControlSettings(), action_scale=0.5), SAFETY)
    assert (ours.tick() or pytest.fail()).limits == ("control.action_scale",)


# Any sequence


operations = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(1, 6), st.integers(0, 8)),  # length, actions since the observation
        st.tuples(st.just("tick"), st.integers(1, 12)),
        st.tuples(st.just("stop")),
        st.tuples(st.just("take")),
    ),
    max_size=40,
)


@given(operations, st.sampled_from([20.0, 40.0, 100.0]))
def test_every_action_played_is_handed_over_exactly_once_and_joined_by_count(steps: list, rate: float) -> None:
    ours = commander(rate=rate)
    repeats = round(rate * 0.05)
    emitted: list[int] = []  # actions at their first ticks
    taken: list[int] = []
    told_gaps: set[int] = set()  # the same by what take_played says
    gap_before: set[int] = set()  # place in `emitted` before which the arm stood still
    next_number = 1
    current: tuple[list[int], int] | None = None  # the model: numbers of the chunk, observed at
    left = 0  # ticks of the action at hand, by the model

    for step in steps:
        if step[0] == "offer":
            _, length, behind = step
            observed_at = max(ours.actions_played - behind, 0)
            offered = list(range(next_number, next_number + length))
            next_number += length
            late = ours.late_chunks
            ours.offer(chunk(*offered), observed_at, 0, None)
            taken_over = ours.actions_played - observed_at < length
            assert ours.late_chunks == late + (not taken_over)
            if taken_over:
                current = (offered, observed_at)
        elif step[0] == "tick":
            for _ in range(step[1]):
                command = ours.tick()
                expected = None
                if left:
                    expected = emitted[-1]
                elif current and len(emitted) - current[1] < len(current[0]):
                    expected = current[0][len(emitted) - current[1]]
                assert (None if command is None else number(command.action)) == expected
                if command is None:
                    if emitted:
                        gap_before.add(len(emitted))
                    continue
                assert np.all(np.isfinite(command.linear)) and 0.0 <= (command.gripper or 0.0) <= 1.0
                assert np.linalg.norm(command.linear) <= SAFETY.max_linear_speed + 1e-9
                assert command.first_tick is (left == 0)
                if left == 0:
                    emitted.append(number(command.action))
                    left = repeats
                left -= 1
        elif step[0] == "stop":
            assert is_zero(ours.stop("test"))
            if emitted:
                gap_before.add(len(emitted))
            current, left = None, 0
        else:
            actions, gaps = ours.take_played()
            told_gaps |= {len(taken) + place for place in gaps}
            taken += numbers(actions)
        assert ours.actions_played == len(emitted)

    actions, gaps = ours.take_played()
    told_gaps |= {len(taken) + place for place in gaps}
    assert taken + numbers(actions) == emitted
    assert told_gaps == gap_before - {len(emitted)}  # one that no action has followed yet is still to be told
    assert not len(ours.take_played()[0])
