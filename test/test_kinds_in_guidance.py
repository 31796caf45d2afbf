"""Continuity means the same for every kind of action: absolute targets count by their differences."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.interfaces import JOINT_POSITION, JOINT_VELOCITY, ActionSpec
from dysl_vla_ros.settings import GuidanceSettings
from dysl_vla_ros.skipping.guidance import PriorPostGuidance
from pose_arm import action_at, end_effector_poses

JOINTS, STEP = ("a", "b", "c"), 0.1
VELOCITIES = ActionSpec(
    8, STEP, False, (0.0, 0.0, 0.0, 0.5), (0.5, 2.0, 1.0, 0.5),
    kind=JOINT_VELOCITY, names=(*JOINTS, "jaw"), units=("rad",) * 3 + ("1",), gripper="jaw",
)  # fmt: skip
POSITIONS = dataclasses.replace(VELOCITIES, kind=JOINT_POSITION, center=(0.3, -1.0, 2.0, 0.5))
BLOCKS = ((1, 4), (5, 9))
GUIDED = GuidanceSettings(step=0.1, verify_threshold=0.05, stride="integral", verify_on="any", window=3)
speeds = st.lists(st.tuples(*[st.floats(-2.0, 2.0)] * 3, st.floats(0.0, 1.0)), min_size=1, max_size=12)


def guided(spec: ActionSpec) -> PriorPostGuidance:
    made = PriorPostGuidance(BLOCKS, spec)
    made.configure(GUIDED, 1)
    return made


def reached(played: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the targets that velocities (n, 4) lead to, the place before them in front: (n + 1, 4)."""
    places = start + np.cumsum(np.vstack([np.zeros(3), played[:, :3] * STEP]), axis=0)
    return np.column_stack([places, np.concatenate([played[:1, 3], played[:, 3]])]).astype(np.float32)


@given(speeds, speeds, st.tuples(*[st.floats(-2.0, 2.0)] * 3))
def test_targets_have_the_continuity_of_the_velocities_that_lead_to_them(
    played: list[tuple[float, ...]], coming: list[tuple[float, ...]], start: tuple[float, ...]
) -> None:
    velocities = np.array(played + coming, np.float32)
    targets = reached(velocities, np.array(start))
    ours, theirs = guided(POSITIONS), guided(VELOCITIES)
    ours.observe(targets[:1])
    theirs.observe(velocities[:0])
    for place in range(len(played)):
        ours.observe(targets[place + 1 : place + 2])
        theirs.observe(velocities[place : place + 1])
        assert ours.continuity == pytest.approx(theirs.continuity, rel=1e-3, abs=1e-3, nan_ok=True)
        assert ours.continuity_change == pytest.approx(theirs.continuity_change, rel=1e-3, abs=1e-3)
    more = ours.candidate_change(targets[len(played) + 1 :]), theirs.candidate_change(velocities[len(played) :])
    assert more[0] == pytest.approx(more[1], rel=1e-3, abs=1e-3)


@given(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0))
def test_where_an_arm_is_says_nothing_of_how_it_moves(here: float, there: float) -> None:
    path = np.array([[0.1, 0.0, 0.0, 0.5], [0.2, 0.0, 0.0, 0.5], [0.4, 0.1, 0.0, 0.5]], np.float32)
    values = []
    for place in (here, there):
        made = guided(POSITIONS)
        made.observe(path + np.float32([place, place, place, 0.0]))
        values.append(made.continuity)
    assert values[0] == pytest.approx(values[1], abs=1e-3) and values[0] < -0.1


def test_the_formula_of_the_documentation() -> None:
    """C = -(1 / n) sum |m_j - m_(j-1)| + |g_j - g_(j-1)|, m_j = (p_j - p_(j-1)) / (scale * time_step)."""
    made = guided(POSITIONS)
    made.observe(np.float32([[0.0, 0.0, 0.0, 0.0], [0.05, 0.0, 0.0, 0.0], [0.2, 0.0, 0.0, 1.0]]))
    first, second = 0.05 / (0.5 * STEP), 0.15 / (0.5 * STEP)
    assert made.continuity == pytest.approx(-(abs(second - first) + 1.0 / 0.5), rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_over_a_gap_no_motion_is_made_of_two_places(count: int) -> None:
    """The arm may be anywhere behind it: the first difference needs three targets that follow one another."""
    made = guided(POSITIONS)
    path = np.cumsum(np.full((count, 4), 0.1, np.float32), axis=0)
    made.observe(np.zeros((4, 4), np.float32))
    assert made.continuity == 0.0
    made.observe(np.float32(path + 1.0), gaps=(0,))
    assert made.continuity == (0.0 if count < 3 else pytest.approx(0.0 - 0.1 / 0.5 / 3, rel=1e-3))


def test_a_policy_without_a_gripper_is_guided_by_its_joints() -> None:
    spec = dataclasses.replace(
        POSITIONS, names=JOINTS, units=("rad",) * 3, gripper="", center=(0.0,) * 3, scale=(1.0,) * 3
    )
    made = guided(spec)
    made.observe(np.float32([[0.0] * 3, [0.1] * 3, [0.1] * 3]))
    assert made.continuity == pytest.approx(-np.sqrt(3.0), rel=1e-4)


POSES = end_effector_poses(unused=1)


def test_the_formula_of_the_documentation_for_poses() -> None:
    """m_j = ((p_j - p_(j-1)) / scale, log(R_j R_(j-1)^T)) / time_step, and the gripper's step."""
    made = guided(POSES)
    facing = [0.0, 0.1, 0.4]  # rad around y
    places = [0.0, 0.01, 0.04]  # m along x
    made.observe(np.stack([
        action_at(POSES, (x, 0.0, 0.0), (0.0, angle, 0.0), closing=1.0 if x > 0.03 else 0.0)
        for x, angle in zip(places, facing, strict=True)
    ]))  # fmt: skip
    translation, rotation = (0.03 - 0.01) / 0.2 / 0.05, (0.3 - 0.1) / 0.05
    weights = GUIDED.rotation_weight, GUIDED.gripper_weight
    wanted = translation + weights[0] * rotation + weights[1] * 1.0 / 0.5
    assert made.continuity == pytest.approx(-wanted, rel=1e-4)


def test_a_pose_that_moves_and_turns_evenly_has_the_best_continuity_wherever_it_is() -> None:
    for start in (0.0, 3.0):  # of the turn, so that the second passes half a turn
        made = guided(POSES)
        made.observe(np.stack([action_at(POSES, (0.01 * n, 0.3, 0.0), (0.0, 0.0, start + 0.1 * n)) for n in range(6)]))
        assert made.continuity == pytest.approx(0.0, abs=1e-3)


def test_what_is_unused_moves_nothing() -> None:
    one, other = guided(POSES), guided(POSES)
    path = np.stack([action_at(POSES, (0.02 * n * n, 0.0, 0.0)) for n in range(4)])
    one.observe(path)
    path[:, POSES.names.index("unused.0")] = [5.0, -5.0, 5.0, -5.0]
    other.observe(path)
    assert one.continuity == other.continuity < 0.0
