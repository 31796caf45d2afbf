"""Laws of what joints are told: within every limit whatever the chunk, a stop that holds, a small first step."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dysl_vla_ros.control.joint_commander import JointCommand, JointCommander
from dysl_vla_ros.control.joint_limits import Measured, joint_limit_faults
from dysl_vla_ros.errors import NonFiniteActionError, SettingError
from dysl_vla_ros.interfaces import ActionChunk, ActionSpec
from dysl_vla_ros.joint_units import UnitScale
from dysl_vla_ros.robot_contract import JointLimits
from dysl_vla_ros.settings import ControlSettings, SafetySettings
from joint_arm import joint_positions, joint_velocities

LIMITS = JointLimits(
    min_position=(-1.0, -0.5, -1.2),
    max_position=(1.0, 2.0, 0.9),
    max_velocity=(1.0, 2.0, 0.5),
    max_acceleration=(4.0, 10.0, 1.5),
    max_first_step=0.05,
)
WIDE = JointLimits((-9.0,) * 3, (9.0,) * 3, (1e3,) * 3, (1e5,) * 3, 100.0)
LOW, HIGH, SPEED, ACCELERATION = (
    np.array(values)
    for values in (LIMITS.min_position, LIMITS.max_position, LIMITS.max_velocity, LIMITS.max_acceleration)
)
SLACK = 1e-9
value = st.floats(-400.0, 400.0, width=32)
actions = st.lists(st.tuples(value, value, value, value), min_size=1, max_size=8)
starts = st.tuples(st.floats(-1.0, 1.0), st.floats(-0.5, 2.0), st.floats(-1.2, 0.9))
# a chunk is played, runs dry and is braked, or is stopped
events = st.lists(st.one_of(actions, st.sampled_from(["brake", "stop", "tick", "tick", "tick"])), max_size=30)


def commander(spec: ActionSpec, limits: JointLimits = LIMITS, **control: float) -> JointCommander:
    return JointCommander(spec, ControlSettings(**control), SafetySettings(), limits)


def offer(arm: JointCommander, spec: ActionSpec, rows: object) -> None:
    chunk = np.array(rows, np.float32)[:, : spec.dimensions]
    arm.offer(ActionChunk(chunk, spec.time_step), arm.actions_played, 1, None)


def si(spec: ActionSpec, row: object) -> np.ndarray:
    """Return the joints' part of an action in rad and m."""
    return UnitScale(spec.units, spec.low, spec.high, spec.gripper_index).to_si(np.float32(row))[:3]


def play(
    arm: JointCommander, spec: ActionSpec, happening: list[object], start: tuple[float, ...], rate: float = 20.0
) -> list[tuple[str, JointCommand]]:
    """Return the commands of an ideal arm that does what it is told, each with what it was: tick, brake, stop."""
    at = np.array(start)
    said = []
    for event in happening:
        arm.measured = Measured(at.copy(), 0.0)
        if not isinstance(event, str):
            offer(arm, spec, event)
            event = "tick"
        command = arm.tick() if event == "tick" else None
        if event == "stop":
            command = arm.stop("test")
        elif command is None:
            event, command = "brake", arm.brake("test")
        said.append((event, command))
        at = at + command.velocities / rate
    return said


@settings(deadline=None)
@given(events, starts, st.sampled_from([0.0, 1.0]), st.floats(0.2, 1.0), st.sampled_from([20.0, 60.0]))
def test_targets_are_within_every_limit_whatever_the_chunks(
    happening: list[object], start: tuple[float, ...], ramp: float, scale: float, rate: float
) -> None:
    spec = joint_positions()
    before, speed, first = np.array(start), np.zeros(3), True
    for event, command in play(
        commander(spec, ramp_in=ramp, action_scale=scale, rate=rate), spec, happening, start, rate
    ):
        assert command.positions is not None
        assert np.all(command.positions >= LOW - SLACK) and np.all(command.positions <= HIGH + SLACK)
        step = command.positions - before
        np.testing.assert_allclose(step, command.velocities / rate, atol=SLACK)
        assert np.all(np.abs(step) <= SPEED / rate + SLACK)
        if event == "stop":
            assert not step.any(), "a stop holds the last target, the measured position where there was none"
            speed = np.zeros(3)
        else:
            assert np.all(np.abs(step * rate - speed) <= ACCELERATION / rate + SLACK)
            speed = step * rate
        if event == "tick" and first:
            first = False
            assert np.all(np.abs(step) <= LIMITS.max_first_step + SLACK)
        before = command.positions


@settings(deadline=None)
@given(events, starts, st.sampled_from([20.0, 60.0]))
def test_velocities_keep_an_ideal_arm_within_every_limit(
    happening: list[object], start: tuple[float, ...], rate: float
) -> None:
    spec = joint_velocities()
    at, before = np.array(start), np.zeros(3)
    for event, command in play(commander(spec, rate=rate), spec, happening, start, rate):
        assert command.positions is None, "a velocity arm is told no place to go to"
        assert np.all(np.abs(command.velocities) <= SPEED + SLACK)
        if event == "stop":
            assert not command.velocities.any()
        else:
            assert np.all(np.abs(command.velocities - before) <= ACCELERATION / rate + SLACK)
        before, at = command.velocities, at + command.velocities / rate
        assert np.all(at >= LOW - SLACK) and np.all(at <= HIGH + SLACK)


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.floats(-80.0, 80.0, width=32)] * 4), min_size=1, max_size=8), starts)
def test_within_all_limits_a_target_goes_out_as_the_policy_gave_it(
    rows: list[tuple[float, ...]], start: tuple[float, ...]
) -> None:
    spec = joint_positions()
    rows = [(row[0] / 40.0, *row[1:]) for row in rows]
    for row, (_, command) in zip(rows, play(commander(spec, WIDE), spec, [rows, *["tick"] * 7], start), strict=False):
        assert command.positions is not None and command.positions.tolist() == si(spec, row).tolist()
        assert [name for name in command.limits if name != "safety.max_gripper_speed"] == []


def test_a_policy_velocity_goes_out_in_radians_a_second() -> None:
    spec = joint_velocities()
    arm = commander(spec, WIDE)
    ((_, command),) = play(arm, spec, [[(0.5, 90.0, -0.25, 1.0)]], (0.0, 0.0, 0.0))
    np.testing.assert_allclose(command.velocities, [0.5, math.pi / 2.0, -0.25])
    assert command.gripper == 1.0
    closing = dataclasses.replace(spec, units=(*spec.units[:-1], "closing"))
    ((_, command),) = play(commander(closing, WIDE), closing, [[(0.0, 0.0, 0.0, 0.75)]], (0.0, 0.0, 0.0))
    assert command.gripper == 0.25


def test_a_far_target_is_reached_and_not_overshot() -> None:
    spec = joint_positions(gripper=False)
    arm = commander(spec)
    said = play(arm, spec, [[(0.9, 100.0, 80.0)] * 8] * 120, (-0.9, 0.0, -1.0))
    goal = si(spec, (0.9, 100.0, 80.0))
    assert all(np.all(command.positions <= goal + SLACK) for _, command in said)  # type: ignore[operator]
    assert said[-1][1].positions is not None
    np.testing.assert_allclose(said[-1][1].positions, goal, atol=1e-6)


def test_a_joint_outside_its_limits_only_moves_back_inside() -> None:
    spec = joint_positions()
    said = play(commander(spec), spec, [[(400.0, 400.0, 400.0, 0.0)] * 8] * 40, (1.2, 2.0, 0.9))
    path = [1.2] + [command.positions[0] for _, command in said]  # type: ignore[index]
    assert all(later <= earlier for earlier, later in zip(path, path[1:], strict=False)) and path[-1] == 1.0


@pytest.mark.parametrize("control", [{"rate": 60.0}, {"rate": 100.0}])
def test_a_target_is_reached_at_the_last_tick_of_its_action_in_even_steps(control: dict[str, float]) -> None:
    spec = joint_positions()
    arm = commander(spec, WIDE, **control)
    arm.measured = Measured(np.zeros(3), 0.0)
    offer(arm, spec, [(0.3, 30.0, 25.0, 0.0)])
    ticks = round(control["rate"] * spec.time_step)
    path = []
    for _ in range(ticks):
        command = arm.tick()
        assert command is not None and command.positions is not None
        path.append(command.positions)
    goal = si(spec, (0.3, 30.0, 25.0, 0.0))
    np.testing.assert_allclose(path, [goal * (place + 1) / ticks for place in range(ticks)], atol=1e-9)
    assert path[-1].tolist() == goal.tolist()


def test_a_target_is_never_scaled() -> None:
    """A tenth of a place is another place: what the scale makes smaller is the velocity on the way to it."""
    spec = joint_positions()
    said = play(commander(spec, action_scale=0.1), spec, [[(0.5, 30.0, 0.0, 0.0)] * 8] * 400, (0.0, 0.0, 0.0))
    assert said[-1][1].positions is not None
    np.testing.assert_allclose(said[-1][1].positions, si(spec, (0.5, 30.0, 0.0, 0.0)), atol=1e-6)


def test_nothing_moves_before_the_joints_are_measured() -> None:
    spec = joint_positions()
    arm = commander(spec)
    assert arm.stop("test").positions is None, "no place is known that could be held"
    offer(arm, spec, [(0.0, 0.0, 0.0, 0.0)])
    command = arm.tick()
    assert command is not None and command.positions is None and not command.velocities.any()
    assert command.reason == "the positions of shoulder, elbow, wrist are not known"


def test_an_unknown_position_keeps_a_velocity_arm_still() -> None:
    spec = joint_velocities()
    arm = commander(spec)
    offer(arm, spec, [(0.5, 30.0, 0.5, 1.0)])
    command = arm.tick()
    assert command is not None and not command.velocities.any() and command.limits


def test_after_an_activation_the_arm_starts_from_where_it_is_measured() -> None:
    spec = joint_positions()
    arm = commander(spec)
    play(arm, spec, [[(0.9, 90.0, 90.0, 0.0)] * 8] * 20, (0.5, 1.0, 0.5))
    arm.enter()
    at = np.array([-0.5, 0.0, -0.5])  # it was moved by hand meanwhile
    arm.measured = Measured(at, 0.0)
    assert arm.stop("waiting").positions is not None and arm.stop("waiting").positions.tolist() == at.tolist()
    offer(arm, spec, [(0.9, 90.0, 90.0, 0.0)])
    command = arm.tick()
    assert command is not None and command.positions is not None
    assert np.all(np.abs(command.positions - at) <= LIMITS.max_first_step)


def test_the_first_step_is_named_where_it_acts() -> None:
    spec = joint_positions()
    limits = dataclasses.replace(WIDE, max_first_step=0.02)
    (_, first), (_, second) = play(
        commander(spec, limits), spec, [[(0.5, 0.0, 0.0, 0.0)] * 2, "tick"], (0.0, 0.0, -0.25)
    )
    assert first.positions is not None and first.positions[0] == 0.02 and "safety.max_first_step" in first.limits
    assert second.positions is not None and second.positions[0] == 0.5 and "safety.max_first_step" not in second.limits


@given(st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 3))
def test_a_chunk_that_is_not_finite_is_refused_and_the_arm_holds(odd: float, place: int) -> None:
    spec = joint_positions()
    arm = commander(spec)
    said = play(arm, spec, [[(0.1, 5.0, 0.0, 50.0)] * 2], (0.0, 0.0, 0.0))
    rows = np.zeros((2, 4), np.float32)
    rows[1, place] = odd
    with pytest.raises(NonFiniteActionError):
        arm.offer(ActionChunk(rows, spec.time_step), 1, 2, None)
    assert arm.stop("test").positions.tolist() == said[-1][1].positions.tolist()  # type: ignore[union-attr]


WRONG = {
    "too few": (
        {"max_velocity": (1.0, 1.0)},
        "safety.joint.max_velocity has 2 values, expected 3 in the order shoulder",
    ),
    "none": ({"min_position": ()}, "safety.joint.min_position has 0 values, expected 3"),
    "not finite": ({"max_position": (1.0, math.nan, 1.0)}, "safety.joint.max_position[1] is nan"),
    "a speed of zero": ({"max_velocity": (1.0, 0.0, 1.0)}, "safety.joint.max_velocity[1] is 0, expected one above 0"),
    "crossed": ({"min_position": (1.0, 0.0, 0.0)}, "safety.joint.min_position[0] is 1 and max_position[0] 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_limits_that_do_not_fit_the_joints_are_refused_by_name(case: str) -> None:
    changes, told = WRONG[case]
    limits = dataclasses.replace(LIMITS, **changes)
    assert joint_limit_faults(LIMITS, joint_positions()) == []
    with pytest.raises(SettingError) as caught:
        commander(joint_positions(), limits)
    assert told in str(caught.value)
