"""Laws of what an arm that takes absolute poses is told: within every limit, a stop that holds, a small first step."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dysl_vla_ros.control.commander import Commander
from dysl_vla_ros.control.pose_commander import PoseCommand, PoseCommander
from dysl_vla_ros.control.pose_limits import Pose
from dysl_vla_ros.errors import NonFiniteActionError, SettingError
from dysl_vla_ros.interfaces import ActionChunk, ActionSpec
from dysl_vla_ros.poses import of_vectors, poses, turn
from dysl_vla_ros.settings import ControlSettings, SafetySettings
from pose_arm import action_at, end_effector_poses

SPEC = end_effector_poses(unused=2)
FIRST_STEP = 0.03  # m, rad
LIMITS = {
    "max_linear_speed": 0.3, "max_angular_speed": 1.0, "max_linear_acceleration": 2.0, "max_angular_acceleration": 6.0
}  # fmt: skip
BOX = {f"workspace_{end}_{axis}": side * 0.4 for end, side in (("min", -1.0), ("max", 1.0)) for axis in "xyz"}
WIDE = SafetySettings(
    max_linear_speed=5.0, max_angular_speed=20.0, max_linear_acceleration=1000.0, max_angular_acceleration=10000.0
)
SLACK = 1e-9
turns = st.tuples(*[st.floats(-1.7, 1.7)] * 3)
places = st.tuples(*[st.floats(-1.0, 1.0)] * 3)
chunks = st.lists(st.tuples(places, turns, st.floats(0.0, 1.0)), min_size=1, max_size=8)
events = st.lists(st.one_of(chunks, st.sampled_from(["brake", "stop", "tick", "tick", "tick"])), max_size=30)


def commander(spec: ActionSpec = SPEC, safety: SafetySettings | None = None, **control: float) -> PoseCommander:
    return PoseCommander(spec, ControlSettings(**control), safety or SafetySettings(**LIMITS), FIRST_STEP)


def offer(arm: PoseCommander, rows: list[np.ndarray]) -> None:
    arm.offer(ActionChunk(np.stack(rows), SPEC.time_step), arm.actions_played, 1, None)


def pose(position: object, rotation: object = (0.0, 0.0, 0.0)) -> Pose:
    return Pose(np.array(position, float), of_vectors(np.array(rotation, float)))


def play(arm: PoseCommander, happening: list[object], start: Pose) -> list[tuple[str, PoseCommand]]:
    """Return the commands of an ideal arm that does what it is told, each with what it was: tick, brake, stop."""
    at, said = start, []
    for event in happening:
        arm.measured = at
        if not isinstance(event, str):
            offer(arm, [action_at(SPEC, *row) for row in event])
            event = "tick"
        command = arm.tick() if event == "tick" else None
        if event == "stop":
            command = arm.stop("test")
        elif command is None:
            event, command = "brake", arm.brake("test")
        said.append((event, command))
        assert command.pose is not None
        at = command.pose
    return said


@settings(deadline=None)
@given(
    events,
    places,
    turns,
    st.sampled_from([0.0, 1.0]),
    st.floats(0.2, 1.0),
    st.sampled_from([20.0, 60.0]),
    st.booleans(),
)
def test_poses_are_within_every_limit_whatever_the_chunks(
    happening: list[object],
    start: tuple[float, ...],
    facing: tuple[float, ...],
    ramp: float,
    scale: float,
    rate: float,
    boxed: bool,
) -> None:
    safety = SafetySettings(**LIMITS, workspace_box=boxed, **BOX)
    begun = pose(np.array(start) * (0.4 if boxed else 1.0), facing)
    arm = commander(safety=safety, ramp_in=ramp, action_scale=scale, rate=rate)
    before, speeds, first = begun, np.zeros((2, 3)), True
    for event, command in play(arm, happening, begun):
        now = command.pose
        assert now is not None and math.isclose(np.linalg.norm(now.orientation), 1.0, abs_tol=1e-12)
        ways = np.stack([now.position - before.position, turn(before.orientation, now.orientation)])
        np.testing.assert_allclose(ways * rate, [command.linear, command.angular], atol=1e-6)
        lengths = np.linalg.norm(ways, axis=1)
        assert np.all(lengths * rate <= np.array([0.3, 1.0]) + 1e-6)
        if boxed:
            assert np.all(np.abs(now.position) <= 0.4 + SLACK)
        if event == "stop":
            assert np.all(lengths < 1e-15), "a stop holds the last pose, the measured one where there was none"
            speeds = np.zeros((2, 3))
        else:
            changes = np.linalg.norm(ways * rate - speeds, axis=1) * rate
            walled = any("workspace" in name for name in command.limits)
            assert changes[1] <= 6.0 + 1e-5 and (walled or changes[0] <= 2.0 + 1e-5)
            speeds = ways * rate
        if event == "tick" and first:
            first = False
            assert np.all(lengths <= FIRST_STEP + SLACK)
        before = now


@settings(deadline=None)
@given(st.lists(st.tuples(st.tuples(*[st.floats(-0.06, 0.06)] * 3), st.tuples(*[st.floats(-0.2, 0.2)] * 3),
                          st.floats(0.0, 1.0)), min_size=1, max_size=8))  # fmt: skip
def test_within_all_limits_a_pose_goes_out_as_the_policy_gave_it(rows: list[tuple[object, ...]]) -> None:
    arm = PoseCommander(SPEC, ControlSettings(), WIDE, 2.0)
    for row, (event, command) in zip(rows, play(arm, [rows, *["tick"] * 7], pose((0.0,) * 3)), strict=False):
        assert event == "tick" and command.pose is not None
        position, orientation = poses(action_at(SPEC, *row), SPEC.names)
        assert command.pose.position.tolist() == position.tolist()
        assert command.pose.orientation.tolist() in (orientation.tolist(), (-orientation).tolist())
        assert [name for name in command.limits if name != "safety.max_gripper_speed"] == []


@settings(deadline=None, max_examples=8)
@given(places, turns, turns)
def test_a_far_pose_is_reached_and_not_overshot(
    place: tuple[float, ...], here: tuple[float, ...], there: tuple[float, ...]
) -> None:
    arm, row = commander(), action_at(SPEC, place, there)
    at = pose((0.0,) * 3, here)
    target, facing = poses(row, SPEC.names)
    left = (math.inf, math.inf)
    for _ in range(20):  # 8 s
        arm.measured = at
        offer(arm, [row] * 8)
        for _ in range(8):
            command = arm.tick()
            assert command is not None and command.pose is not None
            at = command.pose
            now = float(np.linalg.norm(target - at.position)), float(np.linalg.norm(turn(at.orientation, facing)))
            assert all(one <= other + 1e-6 for one, other in zip(now, left, strict=True)), "it never goes away again"
            left = now
    assert left[0] < 1e-6 and left[1] < 1e-6


def test_a_target_that_moves_on_is_caught_up_with_and_followed() -> None:
    arm = commander()
    rows = [action_at(SPEC, (0.2 + 0.005 * n, 0.0, 0.0), (0.0, 0.0, 0.5 + 0.02 * n)) for n in range(160)]
    said = play(arm, [[((0.2, 0.0, 0.0), (0.0, 0.0, 0.5), 0.5)]], pose((0.0,) * 3))
    for first in range(0, 160, 8):
        offer(arm, rows[first : first + 8])
        said += [("tick", arm.tick()) for _ in range(8)]
    assert said[-1][1].pose.position[0] == pytest.approx(0.2 + 0.005 * 159, abs=1e-7)
    assert said[-1][1].limits == () and said[3][1].limits, "limits act on the way, none when it has caught up"


def test_an_action_of_several_ticks_is_gone_to_in_even_steps() -> None:
    arm = PoseCommander(SPEC, ControlSettings(rate=80.0), WIDE, 2.0)
    row = ((0.04, 0.0, 0.0), (0.0, 0.0, 0.4), 0.5)
    said = play(arm, [[row], *["tick"] * 3], pose((0.0,) * 3))
    np.testing.assert_allclose([c.pose.position[0] for _, c in said], [0.01, 0.02, 0.03, 0.04], atol=1e-9)  # type: ignore[union-attr]
    np.testing.assert_allclose([turn(pose((0,) * 3).orientation, c.pose.orientation)[2] for _, c in said],  # type: ignore[union-attr]
                               [0.1, 0.2, 0.3, 0.4], atol=1e-6)  # fmt: skip


def test_nothing_moves_before_the_pose_is_known() -> None:
    arm = commander()
    offer(arm, [action_at(SPEC, (0.1, 0.0, 0.0))])
    command = arm.tick()
    assert command is not None and command.pose is None and not command.moving
    assert command.reason == "the pose of the end effector is not known"


def test_a_stop_holds_the_last_pose_and_another_activation_forgets_it() -> None:
    arm = commander()
    *_, (_, last) = play(arm, [[((0.3, 0.1, 0.0), (0.2, 0.0, 0.0), 0.0)] * 4, "tick", "tick"], pose((0.0,) * 3))
    arm.measured = pose((0.5, 0.5, 0.5))
    held = arm.stop("test").pose
    assert held is not None and last.pose is not None and held.position.tolist() == last.pose.position.tolist()
    arm.enter()
    assert arm.stop("test").pose is None, "what was commanded before says nothing of where the arm is"
    arm.measured = pose((0.5, 0.5, 0.5))
    found = arm.stop("test").pose
    assert found is not None and found.position.tolist() == [0.5, 0.5, 0.5]


def test_a_pose_outside_the_box_only_moves_back_inside() -> None:
    safety = SafetySettings(**LIMITS, workspace_box=True, **BOX)
    arm = commander(safety=safety)
    outward = [((1.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.5)] * 8
    said = play(arm, [outward, *["tick"] * 7], pose((0.5, 0.0, 0.0)))
    x = [command.pose.position[0] for _, command in said]  # type: ignore[union-attr]
    assert all(after <= before for before, after in zip([0.5, *x], x, strict=False)) and x[-1] < 0.5
    assert "safety.workspace_max_x" in said[0][1].limits


@pytest.mark.parametrize("column", [0.0, math.nan])
def test_a_chunk_with_no_rotation_in_it_is_refused_and_the_one_before_stays(column: float) -> None:
    arm = commander()
    offer(arm, [action_at(SPEC, (0.1, 0.0, 0.0))] * 2)
    wrong = action_at(SPEC, (0.2, 0.0, 0.0))
    wrong[[SPEC.names.index(name) for name in ("ee.r00", "ee.r10", "ee.r20")]] = column
    with pytest.raises(NonFiniteActionError, match="NaN or infinity" if math.isnan(column) else "too short, or parall"):
        offer(arm, [action_at(SPEC, (0.1, 0.0, 0.0)), wrong])
    arm.measured = pose((0.0,) * 3)
    assert arm.tick() is not None


def test_a_gripper_that_closes_is_told_as_an_opening() -> None:
    arm = PoseCommander(SPEC, ControlSettings(), WIDE, 2.0)
    ((_, command),) = play(arm, [[((0.0,) * 3, (0.0,) * 3, 0.25)]], pose((0.0,) * 3))
    assert command.gripper == pytest.approx(0.75)
    bare = end_effector_poses(gripper=False)
    arm = PoseCommander(bare, ControlSettings(), WIDE, 2.0)
    arm.measured = pose((0.0,) * 3)
    arm.offer(ActionChunk(action_at(bare, (0.0,) * 3)[None], 0.05), 0, 1, None)
    command = arm.tick()
    assert command is not None and command.gripper is None


def test_an_absolute_pose_is_never_taken_for_a_motion() -> None:
    with pytest.raises(SettingError, match="a twist takes actions of the kind end_effector_delta.*are end_effec"):
        Commander(SPEC, ControlSettings(), SafetySettings())


def test_the_lag_of_a_slow_arm_is_no_motion_of_the_next_target() -> None:
    """Where a chunk runs dry the command slows down where it is, and goes on from there."""
    arm = commander(dataclasses.replace(SPEC))
    said = play(arm, [[((1.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.5)], *["brake"] * 10], pose((0.0,) * 3))
    x = [command.pose.position[0] for _, command in said]  # type: ignore[union-attr]
    assert not said[-1][1].moving and x[-1] == x[-2] < 0.05
