import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.control.limits import Limiter
from dysl_vla_ros.errors import NonFiniteActionError
from dysl_vla_ros.interfaces import ActionSpec
from dysl_vla_ros.settings import ControlSettings, SafetySettings

SPEC = ActionSpec(8, 0.05, False, (0.0,) * 4, (1.0,) * 4)
SPEC_6D = ActionSpec(8, 0.05, True, (0.0,) * 7, (1.0,) * 7)
WIDE = SafetySettings(
    max_linear_speed=5.0,
    max_angular_speed=20.0,
    max_linear_acceleration=1000.0,
    max_angular_acceleration=10000.0,
    max_gripper_speed=1000.0,
)
FREE = ControlSettings(max_linear_seam=0.0, max_angular_seam=0.0)  # chunks are joined as they come
float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def action(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_within_every_limit_the_velocity_is_the_translation_over_the_time_step() -> None:
    motion = Limiter(SPEC_6D).limit(action(0.01, -0.02, 0.0, 0.05, 0.0, -0.1, 0.25), FREE, WIDE)
    np.testing.assert_allclose(motion.linear, [0.2, -0.4, 0.0], rtol=1e-6)
    np.testing.assert_allclose(motion.angular, [1.0, 0.0, -2.0], rtol=1e-6)
    assert motion.gripper == 0.25
    assert motion.limits == ()


def test_a_policy_without_rotation_turns_nothing() -> None:
    assert Limiter(SPEC).limit(action(0.01, 0.0, 0.0, 1.0), FREE, WIDE).angular.tolist() == [0.0] * 3


def test_too_fast_a_motion_keeps_its_direction_and_names_the_limit() -> None:
    safety = SafetySettings(max_linear_speed=0.1, max_linear_acceleration=1000.0)
    motion = Limiter(SPEC).limit(action(0.03, 0.04, 0.0, 1.0), FREE, safety)
    np.testing.assert_allclose(motion.linear, [0.06, 0.08, 0.0], rtol=1e-6)
    assert motion.limits == ("safety.max_linear_speed",)


def test_from_rest_the_speed_grows_by_the_acceleration_a_tick() -> None:
    limiter = Limiter(SPEC)
    safety = SafetySettings(max_linear_speed=1.0, max_linear_acceleration=2.0)  # 0.1 m/s a tick of 50 ms
    for speed in (0.1, 0.2, 0.25):
        motion = limiter.limit(action(0.0125, 0.0, 0.0, 1.0), FREE, safety)
        np.testing.assert_allclose(motion.linear, [speed, 0.0, 0.0], rtol=1e-6)
        assert motion.limits == (("safety.max_linear_acceleration",) if speed < 0.25 else ())
    limiter.rest()
    assert limiter.limit(action(0.0125, 0.0, 0.0, 1.0), FREE, safety).linear[0] == pytest.approx(0.1)


def test_a_speed_limit_that_is_lowered_holds_at_once() -> None:
    limiter = Limiter(SPEC)
    fast = SafetySettings(max_linear_speed=0.25, max_linear_acceleration=5.0)
    slow = SafetySettings(max_linear_speed=0.05, max_linear_acceleration=0.1)
    limiter.limit(action(0.0125, 0.0, 0.0, 1.0), FREE, fast)
    assert np.linalg.norm(limiter.limit(action(0.0125, 0.0, 0.0, 1.0), FREE, slow).linear) <= 0.05 + 1e-12


def test_scale_shrinks_motion_and_not_the_gripper() -> None:
    motion = Limiter(SPEC).limit(action(0.01, 0.0, 0.0, 0.75), ControlSettings(action_scale=0.5), WIDE)
    assert motion.linear[0] == pytest.approx(0.1)
    assert (motion.gripper, motion.limits) == (0.75, ("control.action_scale",))


def test_ramp_grows_linearly_to_full_size_and_again_from_when_it_is_told() -> None:
    limiter = Limiter(SPEC)
    control = dataclasses.replace(FREE, ramp_in=0.2)  # four ticks
    for _ in range(2):
        motions = [limiter.limit(action(0.01, 0.0, 0.0, 1.0), control, WIDE) for _ in range(6)]
        np.testing.assert_allclose([m.linear[0] for m in motions], [0.05, 0.1, 0.15, 0.2, 0.2, 0.2], rtol=1e-6)
        assert [m.limits for m in motions] == [("control.ramp_in",)] * 3 + [()] * 3
        limiter.ramp_again()


def test_gripper_is_clamped_and_moves_no_faster_than_its_limit() -> None:
    limiter = Limiter(SPEC)
    safety = SafetySettings(max_gripper_speed=4.0)  # 0.2 a tick
    limiter.gripper.set(0.5)
    openings = [limiter.limit(action(0.0, 0.0, 0.0, 1.7), FREE, safety) for _ in range(4)]
    np.testing.assert_allclose([m.gripper for m in openings], [0.7, 0.9, 1.0, 1.0])
    assert [m.limits for m in openings] == [("safety.max_gripper_speed",)] * 2 + [()] * 2


@pytest.mark.parametrize("opening", [None, np.nan, np.inf])
def test_the_first_gripper_command_is_free_where_the_opening_is_unknown(opening: float | None) -> None:
    limiter = Limiter(SPEC)
    limiter.gripper.set(opening)
    motion = limiter.limit(action(0, 0, 0, 1), FREE, SafetySettings(max_gripper_speed=0.01))
    assert (motion.gripper, motion.limits) == (1.0, ())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", range(4))
def test_what_is_not_finite_is_refused_and_leaves_no_trace(value: float, place: int) -> None:
    limiter, other = Limiter(SPEC), Limiter(SPEC)
    bad = action(0.01, 0.01, 0.01, 0.5)
    bad[place] = value
    with pytest.raises(NonFiniteActionError, match="not finite"):
        limiter.limit(bad, ControlSettings(ramp_in=1.0), SafetySettings())
    good = action(0.01, 0.0, 0.0, 0.5)
    ours, theirs = (one.limit(good, ControlSettings(ramp_in=1.0), SafetySettings()) for one in (limiter, other))
    assert ours.linear.tolist() == theirs.linear.tolist()
    assert ours.gripper == theirs.gripper


settings = st.builds(
    lambda speed, turn, acceleration, turn_acceleration, gripper: SafetySettings(
        max_linear_speed=speed,
        max_angular_speed=turn,
        max_linear_acceleration=acceleration,
        max_angular_acceleration=turn_acceleration,
        max_gripper_speed=gripper,
    ),
    st.floats(0.001, 5.0),
    st.floats(0.001, 20.0),
    st.floats(0.01, 1000.0),
    st.floats(0.01, 10000.0),
    st.floats(0.01, 1000.0),
)
controls = st.builds(
    lambda rate, scale, ramp, seam: ControlSettings(
        rate=rate, action_scale=scale, ramp_in=ramp, max_linear_seam=seam, max_angular_seam=4 * seam
    ),
    st.sampled_from([20.0, 40.0, 100.0, 1000.0]),
    st.floats(0.0, 1.0),
    st.sampled_from([0.0, 0.3, 10.0]),
    st.sampled_from([0.0, 0.01, 0.2]),
)


@given(
    st.lists(st.one_of(st.none(), st.tuples(st.booleans(), st.lists(float32, min_size=7, max_size=7))), max_size=12),
    settings,
    controls,
)
def test_no_command_ever_exceeds_a_limit(ticks: list, safety: SafetySettings, control: ControlSettings) -> None:
    limiter, resting = Limiter(SPEC_6D), True
    linear, angular, gripper = np.zeros(3), np.zeros(3), None
    period = 1.0 / control.rate
    for happens in ticks:
        if happens is None:  # a stop
            limiter.ramp_again()
            limiter.rest()
            linear, angular, resting = np.zeros(3), np.zeros(3), True
            continue
        new_chunk, values = happens
        motion = limiter.limit(np.array(values, np.float32), control, safety, new_chunk)
        assert np.all(np.isfinite(motion.linear)) and np.all(np.isfinite(motion.angular))
        slack = 1 + 1e-9
        assert np.linalg.norm(motion.linear) <= safety.max_linear_speed * slack
        assert np.linalg.norm(motion.angular) <= safety.max_angular_speed * slack
        assert np.linalg.norm(motion.linear - linear) <= safety.max_linear_acceleration * period * slack + 1e-12
        assert np.linalg.norm(motion.angular - angular) <= safety.max_angular_acceleration * period * slack + 1e-12
        if (new_chunk or resting) and control.max_linear_seam:
            assert np.linalg.norm(motion.linear - linear) <= control.max_linear_seam * slack + 1e-12
            assert np.linalg.norm(motion.angular - angular) <= control.max_angular_seam * slack + 1e-12
        resting = False
        assert 0.0 <= motion.gripper <= 1.0
        if gripper is not None:
            assert abs(motion.gripper - gripper) <= safety.max_gripper_speed * period * slack + 1e-12
        linear, angular, gripper = motion.linear, motion.angular, motion.gripper


@given(st.lists(float32, min_size=7, max_size=7), settings, controls)
def test_a_limit_that_is_not_named_did_not_act(values: list[float], safety: SafetySettings, control) -> None:
    motion = Limiter(SPEC_6D).limit(np.array(values, np.float32), control, safety)
    given_action = np.array(values, np.float32).astype(np.float64)
    if not motion.limits:
        np.testing.assert_array_equal(motion.linear, given_action[:3] / SPEC_6D.time_step)
        np.testing.assert_array_equal(motion.angular, given_action[3:6] / SPEC_6D.time_step)
