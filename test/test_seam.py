"""Where two chunks meet nothing jumps: the first command is bounded, the rest is worked off, continuous chunks pass."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dysl_vla_ros.control.commander import Command, Commander
from dysl_vla_ros.interfaces import ActionChunk, ActionSpec
from dysl_vla_ros.settings import ControlSettings, SafetySettings

SPEC = ActionSpec(8, 0.05, False, (0.0,) * 4, (0.01, 0.01, 0.01, 1.0))
TURNING = ActionSpec(8, 0.05, True, (0.0,) * 7, (1.0,) * 7)
WIDE = SafetySettings(
    max_linear_speed=5.0,
    max_angular_speed=20.0,
    max_linear_acceleration=1000.0,
    max_angular_acceleration=10000.0,
    max_gripper_speed=1000.0,
)
BOUND = 0.1  # m/s
SLACK = 1e-9
LINEAR, ANGULAR = "control.max_linear_seam", "control.max_angular_seam"


def commander(spec: ActionSpec = SPEC, safety: SafetySettings = WIDE, **control: float) -> Commander:
    return Commander(spec, ControlSettings(**({"max_linear_seam": BOUND, "max_angular_seam": BOUND} | control)), safety)


def chunk(*speeds: float, gripper: float = 0.5) -> ActionChunk:
    """Motion along x at these speeds (m/s)."""
    return ActionChunk(np.array([[speed * 0.05, 0, 0, gripper] for speed in speeds], np.float32), 0.05)


def commands(ours: Commander, ticks: int) -> list[Command]:
    played = [ours.tick() for _ in range(ticks)]
    assert all(played)
    return [command for command in played if command]


def speeds(ours: Commander, ticks: int) -> list[float]:
    return [float(command.linear[0]) for command in commands(ours, ticks)]


def moving(ours: Commander, speed: float = 0.5) -> Commander:
    """Bring the arm to a speed that one chunk keeps up."""
    count = 1 + int(speed / BOUND)
    ours.offer(chunk(*[speed] * (count + 4)), 0, 0, None)
    assert speeds(ours, count)[-1] == pytest.approx(speed)
    return ours


def test_the_first_command_of_a_chunk_is_bounded_and_the_rest_is_worked_off_a_bound_a_tick() -> None:
    ours = moving(commander())
    ours.offer(chunk(*[0.15] * 8), ours.actions_played, 1, None)
    np.testing.assert_allclose(speeds(ours, 6), [0.4, 0.3, 0.2, 0.15, 0.15, 0.15], atol=1e-6)


def test_the_chunk_s_own_shape_is_followed_beside_what_is_left() -> None:
    ours = moving(commander())
    ours.offer(chunk(0.15, 0.2, 0.45, 0.45, 0.0), ours.actions_played, 1, None)
    np.testing.assert_allclose(speeds(ours, 5), [0.4, 0.35, 0.5, 0.45, 0.0], atol=1e-6)


def test_the_limit_is_named_while_it_acts_and_not_after() -> None:
    ours = moving(commander())
    ours.offer(chunk(*[0.25] * 8), ours.actions_played, 1, None)
    assert [command.limits for command in commands(ours, 4)] == [(LINEAR,), (LINEAR,), (), ()]


def test_translation_and_rotation_are_bounded_apart() -> None:
    ours = commander(TURNING, max_linear_seam=1.0)
    actions = np.tile(np.array([0.01, 0.0, 0.0, 0.0, 0.03, 0.04, 0.5], np.float32), (4, 1))
    ours.offer(ActionChunk(actions, 0.05), 0, 0, None)
    first = commands(ours, 1)[0]
    np.testing.assert_allclose(first.linear, [0.2, 0.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(first.angular, [0.0, 0.06, 0.08], rtol=1e-6)  # the direction is kept
    assert first.limits == (ANGULAR,)


def test_the_gripper_goes_where_the_new_chunk_says_at_once() -> None:
    ours = moving(commander())
    ours.offer(chunk(0.0, 0.0, gripper=1.0), ours.actions_played, 1, None)
    assert commands(ours, 1)[0].gripper == 1.0


def test_from_rest_and_after_an_underrun_speed_grows_from_zero() -> None:
    ours = commander()
    ours.offer(chunk(0.25, 0.25, 0.25), 0, 0, None)
    np.testing.assert_allclose(speeds(ours, 3), [0.1, 0.2, 0.25], atol=1e-6)
    assert ours.tick() is None
    ours.brake("no chunk")
    ours.offer(chunk(0.25, 0.25, 0.25), 3, 1, None)
    np.testing.assert_allclose(speeds(ours, 3), [0.1, 0.2, 0.25], atol=1e-6)


def test_a_chunk_that_goes_on_after_the_arm_was_braked_to_rest_grows_from_zero_too() -> None:
    ours = moving(commander())
    ours.brake("waiting")
    np.testing.assert_allclose(speeds(ours, 2), [0.1, 0.2], atol=1e-6)


def test_a_stop_is_at_once() -> None:
    ours = moving(commander())
    assert not ours.stop("test").linear.any()


def test_a_new_episode_goes_on_from_the_last_command_where_no_zero_was_told() -> None:
    ours = moving(commander())
    ours.reset()  # a new instruction, and a model that answers within the tick
    ours.offer(chunk(*[-0.5] * 8), 0, 1, None)
    np.testing.assert_allclose(speeds(ours, 3), [0.4, 0.3, 0.2], atol=1e-6)


def test_a_joint_is_bounded_once_where_actions_are_repeated() -> None:
    ours = commander(rate=40.0)
    ours.offer(chunk(0.1, 0.1), 0, 0, None)
    assert speeds(ours, 3) == pytest.approx([0.1] * 3, abs=1e-6)
    ours.offer(chunk(9.0, 9.0, 0.35, 0.35), 0, 1, None)  # in the middle of an action: it is played to its end
    np.testing.assert_allclose(speeds(ours, 5), [0.1, 0.2, 0.3, 0.35, 0.35], atol=1e-6)


def test_a_speed_limit_holds_during_a_blend() -> None:
    ours = moving(commander(safety=SafetySettings(max_linear_speed=0.5, max_linear_acceleration=100.0)))
    ours.offer(chunk(0.0, 0.45, 0.45), ours.actions_played, 1, None)
    np.testing.assert_allclose(speeds(ours, 3), [0.4, 0.5, 0.5], atol=1e-6)


def test_a_seam_is_measured_before_it_is_bounded_and_there_is_none_after_an_underrun() -> None:
    ours = commander()
    ours.offer(chunk(0.2), 0, 0, None)
    speeds(ours, 1)
    assert ours.offer(chunk(9.0, -0.8), 0, 1, None) == pytest.approx(5.0)  # 0.05 m, scale 0.01
    speeds(ours, 1)
    assert ours.tick() is None
    assert np.isnan(ours.offer(chunk(9.0, 9.0, 0.2), 0, 2, None))


# Any sequence

value = st.floats(-0.0625, 0.0625, width=32)
offers = st.tuples(st.just("offer"), st.lists(st.tuples(value, value), min_size=1, max_size=6), st.integers(0, 6))
events = st.lists(
    st.one_of(offers, st.tuples(st.just("tick"), st.integers(1, 8)), st.just(("stop",)), st.just(("reset",))),
    max_size=30,
)


def play(ours: Commander, happens: list) -> list[tuple[Command, int]]:
    """Every command with the number of offers before it; a tick with nothing to play brakes."""
    told, offered = [], 0
    for event in happens:
        if event[0] == "offer":
            offered += 1
            actions = np.array([[x, y, 0.0, 0.5] for x, y in event[1]], np.float32)
            ours.offer(ActionChunk(actions, 0.05), max(ours.actions_played - event[2], 0), offered, None)
        elif event[0] == "tick":
            told += [(ours.tick() or ours.brake("dry"), offered) for _ in range(event[1])]
        elif event[0] == "stop":
            told.append((ours.stop("test"), offered))
        else:
            ours.reset()
    return told


@given(events, st.sampled_from([0.02, 0.1, 0.7]), st.sampled_from([20.0, 60.0]))
def test_commands_around_a_seam_never_differ_by_more_than_the_bound(happens: list, bound: float, rate: float) -> None:
    ours = commander(max_linear_seam=bound, rate=rate)
    told = [command for command, _ in play(ours, happens)]
    before = np.zeros(3)
    for last, command in itertools.pairwise([None, *told]):
        if command.reason:  # with this acceleration limit the arm stands still at once
            assert not command.linear.any()
        elif last is None or last.reason or last.inference != command.inference:
            assert np.linalg.norm(command.linear - before) <= bound + SLACK
        else:  # within a chunk: its own difference, and a bound of what is left
            own = np.linalg.norm(command.action[:3].astype(float) - last.action[:3].astype(float)) / 0.05
            assert np.linalg.norm(command.linear - before) <= own + bound + SLACK
        before = command.linear


@given(events, st.sampled_from([20.0, 60.0]))
def test_what_is_left_of_a_seam_is_gone_after_difference_over_bound_ticks(happens: list, rate: float) -> None:
    ours = commander(rate=rate)
    left, inference = np.inf, 0
    for command, _ in play(ours, happens):
        wanted = np.zeros(3) if command.reason else command.action[:3].astype(float) / 0.05
        now = float(np.linalg.norm(command.linear - wanted))
        if command.reason or not command.limits:
            assert now <= SLACK
        elif left is not np.inf and command.inference == inference:
            assert now <= max(left - BOUND, 0.0) + SLACK
        left, inference = now, command.inference


@given(events, st.sampled_from([20.0, 60.0]))
def test_continuous_chunks_pass_bit_for_bit_and_so_does_everything_without_a_bound(happens: list, rate: float) -> None:
    free = play(commander(max_linear_seam=0.0, rate=rate), happens)
    joined = play(commander(max_linear_seam=5.0, rate=rate), happens)  # above every difference
    for (one, _), (other, _) in zip(free, joined, strict=True):
        assert one.linear.tobytes() == other.linear.tobytes()
        assert one.limits == other.limits == ()
        if one.action is not None:
            assert one.linear.tobytes() == (one.action[:3].astype(np.float64) / 0.05).tobytes()


@given(events, st.sampled_from([0.0, 0.02]))
def test_a_bound_changes_the_motion_and_never_what_is_played(happens: list, bound: float) -> None:
    ours, plain = commander(max_linear_seam=bound), commander(max_linear_seam=0.0)
    told, free = play(ours, happens), play(plain, happens)
    assume(told)
    assert [(c.inference, c.index, c.gripper, c.reason) for c, _ in told] == [
        (c.inference, c.index, c.gripper, c.reason) for c, _ in free
    ]
    (mine, my_gaps), (theirs, their_gaps) = ours.take_played(), plain.take_played()
    assert mine.tobytes() == theirs.tobytes() and my_gaps == their_gaps
