"""The workspace box: motion that would leave it is clipped, motion back into it never."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.control.limits import Limiter, Place, box, empty_axes, kept_inside, unsuitable_policy
from dysl_vla_ros.interfaces import ActionSpec, ProprioceptionSpec
from dysl_vla_ros.settings import ControlSettings, SafetySettings

SPEC = ActionSpec(8, 0.05, False, (0.0,) * 4, (1.0,) * 4)
EE = ProprioceptionSpec(("ee.x", "ee.y", "ee.z", "gripper.opening"), ("m", "m", "m", ""))
TICK = 0.05  # s
WALLS = {
    "workspace_min_x": -0.3, "workspace_max_x": 0.3, "workspace_min_y": 0.4,
    "workspace_max_y": 0.9, "workspace_min_z": 0.05, "workspace_max_z": 0.5,
}  # fmt: skip
BOX = SafetySettings(workspace_box=True, **WALLS)
MIDDLE = (0.0, 0.6, 0.2)


def place(*position: float, age: float = 0.0) -> Place:
    return Place(np.array(position), age)


def test_switched_off_it_changes_nothing() -> None:
    velocity = np.array([9.0, 9.0, 9.0])
    assert kept_inside(velocity, None, TICK, SafetySettings(**WALLS)) == (velocity, ())


def test_in_the_middle_nothing_is_clipped() -> None:
    velocity = np.array([0.2, -0.2, 0.2])
    kept, acted = kept_inside(velocity, place(*MIDDLE), TICK, BOX)
    assert kept is velocity and acted == ()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", ["min", "max"])
def test_outside_a_wall_only_the_way_back_is_open_and_the_other_axes_are_free(axis: int, side: str) -> None:
    position = list(MIDDLE)
    position[axis] = box(BOX)[axis][side == "max"] + (0.1 if side == "max" else -0.1)
    outwards = np.full(3, 0.1 if side == "max" else -0.1)
    kept, acted = kept_inside(outwards, place(*position), TICK, BOX)
    assert acted == (f"safety.workspace_{side}_{'xyz'[axis]}",)
    assert kept[axis] == 0.0 and np.all(np.delete(kept, axis) == np.delete(outwards, axis))
    back, acted = kept_inside(-outwards, place(*position), TICK, BOX)
    assert np.all(back == -outwards) and acted == ()


def test_an_arm_that_nears_a_wall_comes_to_rest_in_front_of_it() -> None:
    x, speeds = 0.2, []
    for _ in range(100):
        kept, _ = kept_inside(np.array([0.25, 0.0, 0.0]), place(x, 0.6, 0.2), TICK, BOX)
        x += kept[0] * TICK
        speeds.append(kept[0])
    assert x == pytest.approx(0.3) and x <= 0.3 + 1e-9 and speeds[0] == 0.25 and speeds[-1] < 1e-3


def test_an_older_position_leaves_less_room() -> None:
    velocity = np.array([0.25, 0.0, 0.0])
    fresh, _ = kept_inside(velocity, place(0.29, 0.6, 0.2), TICK, BOX)
    old, _ = kept_inside(velocity, place(0.29, 0.6, 0.2, age=0.05), TICK, BOX)
    assert (fresh[0], old[0]) == (pytest.approx(0.2), pytest.approx(0.1))


def test_without_a_position_nothing_moves() -> None:
    kept, acted = kept_inside(np.array([0.1, 0.0, 0.0]), None, TICK, BOX)
    assert not kept.any() and acted == ("safety.workspace_box",)


@given(
    st.lists(st.floats(-2.0, 2.0), min_size=3, max_size=3),
    st.lists(st.floats(-5.0, 5.0), min_size=3, max_size=3),
    st.floats(0.0, 0.3),
)
def test_no_wall_is_crossed_from_inside_and_none_is_left_further_behind(position, velocity, age) -> None:
    kept, acted = kept_inside(np.array(velocity), place(*position, age=age), TICK, BOX)
    for axis, (low, high) in enumerate(box(BOX)):
        then = position[axis] + kept[axis] * (age + TICK)
        assert min(low, position[axis]) - 1e-9 <= then <= max(high, position[axis]) + 1e-9
        assert abs(kept[axis]) <= abs(velocity[axis]) * (1 + 1e-9) and kept[axis] * velocity[axis] >= 0.0
    assert bool(acted) == (kept.tolist() != velocity)


def test_the_limiter_names_the_wall_and_goes_on_from_what_was_commanded() -> None:
    limiter = Limiter(SPEC)
    control, action = ControlSettings(max_linear_seam=0.0), np.array([0.01, 0.0, 0.0, 1.0], np.float32)
    at_the_wall = limiter.limit(action, control, BOX, place=place(0.3, 0.6, 0.2))
    assert at_the_wall.linear[0] == 0.0 and at_the_wall.limits == ("safety.workspace_max_x",)
    slow = SafetySettings(workspace_box=True, **WALLS, max_linear_acceleration=1.0)
    away = limiter.limit(action, control, slow, place=place(*MIDDLE))
    assert away.linear[0] == pytest.approx(0.05) and away.limits == ("safety.max_linear_acceleration",)


def test_a_box_without_room_is_named_by_each_axis() -> None:
    assert empty_axes(BOX) == ""
    fault = empty_axes(
        SafetySettings(workspace_min_x=1.0, workspace_max_x=1.0, workspace_min_z=2.0, workspace_max_z=1.0)
    )
    for told in ("workspace_min_x is 1 m", "workspace_max_z 1 m", "set both at once"):
        assert told in fault
    assert "_y" not in fault


def test_a_policy_without_the_position_or_in_another_frame_cannot_have_it() -> None:
    assert unsuitable_policy(BOX, EE, SPEC) == ""
    joints = ProprioceptionSpec(("joint1", "ee.z"), ("rad", "m"))
    assert unsuitable_policy(SafetySettings(), joints, SPEC) == ""
    told = unsuitable_policy(BOX, joints, SPEC)
    assert "safety.workspace_box" in told and "does not declare ee.x, ee.y" in told and "joint1, ee.z" in told
    tool = ActionSpec(8, 0.05, False, (0.0,) * 4, (1.0,) * 4, frame="tool")
    assert "'base' and 'tool'" in unsuitable_policy(BOX, EE, tool)
