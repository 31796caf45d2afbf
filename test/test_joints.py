"""Joint positions are taken by name, whatever their order and in whichever message; what is missing is told."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.control.joints import Joints
from dysl_vla_ros.errors import ObservationError
from dysl_vla_ros.readings import joint_values
from dysl_vla_ros.settings import SafetySettings

NAMES = ("shoulder", "elbow", "finger")
SAFETY = SafetySettings()
LIMIT = SAFETY.max_arrival_age  # s


def message(positions, stamp: float = 1.0):
    header = SimpleNamespace(stamp=SimpleNamespace(sec=int(stamp), nanosec=round(stamp % 1 * 1e9)))
    return SimpleNamespace(header=header, name=list(positions), position=np.array(list(positions.values())))


@given(st.permutations([*NAMES, "head", "wheel"]), st.integers(0, 5))
def test_order_and_other_joints_do_not_matter(order, count):
    positions = {name: float(place) for place, name in enumerate(order[:count])}
    wanted = {name: value for name, value in positions.items() if name in NAMES}
    assert joint_values(message(positions), NAMES) == wanted


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_position_that_is_not_finite_is_refused_if_it_is_wanted(value):
    with pytest.raises(ObservationError, match=f"position of joint elbow is {value}; it must be finite"):
        joint_values(message({"shoulder": 0.0, "elbow": value}), NAMES)
    assert joint_values(message({"shoulder": 0.0, "head": value}), NAMES) == {"shoulder": 0.0}


def test_names_and_positions_that_do_not_match_are_refused_with_their_numbers():
    odd = message({"shoulder": 0.0, "elbow": 1.0})
    odd.position = odd.position[:1]
    with pytest.raises(ObservationError, match=r"position has 1 values for 2 names \(shoulder, elbow\)"):
        joint_values(odd, NAMES)
    odd.name = ["elbow", "elbow"]
    odd.position = [1.0, 2.0]
    with pytest.raises(ObservationError, match="joint elbow is named twice"):
        joint_values(odd, NAMES)


@given(st.lists(st.sampled_from([*NAMES, "head", ""]), max_size=6), st.lists(st.floats(), max_size=6))
def test_any_joint_state_is_read_or_refused(names, positions):
    try:
        values = joint_values(SimpleNamespace(name=names, position=positions), NAMES)
    except ObservationError:
        return
    assert set(values) <= set(NAMES) and np.isfinite(list(values.values())).all()


@pytest.fixture
def joints() -> Joints:
    joints = Joints(NAMES, "/joint_states", {"finger": "m"})
    joints.start(0.0)
    return joints


def hear(joints: Joints, positions, now: float) -> str:
    return joints.hear(message(positions, now), now, now, SAFETY)


def test_parts_of_two_drivers_make_one_whole(joints):
    assert hear(joints, {"elbow": 0.2, "shoulder": 0.1}, 1.0) == ""
    assert joints.stop_reason(1.0, LIMIT).startswith("/joint_states: no joint finger; there are: elbow, shoulder")
    assert hear(joints, {"finger": 0.02, "head": 9.0}, 1.1) == ""
    assert joints.stop_reason(1.1, LIMIT) == ""
    assert joints.values == {"shoulder": 0.1, "elbow": 0.2, "finger": 0.02}


def test_each_joint_has_its_own_age(joints):
    hear(joints, {"elbow": 0.2, "shoulder": 0.1}, 1.0)
    hear(joints, {"finger": 0.02}, 1.0)
    hear(joints, {"elbow": 0.2, "shoulder": 0.1}, 1.4)
    told = joints.stop_reason(1.4, LIMIT)
    assert "positions have stopped: finger 0.40 s ago, limit 0.3 s" in told and "elbow" not in told
    hear(joints, {"finger": 0.03}, 1.5)
    assert joints.stop_reason(1.5, LIMIT) == ""


def test_drivers_may_take_turns_with_stamps_of_their_own(joints):
    assert joints.hear(message({"elbow": 0.0, "shoulder": 0.0}, 1.00), 1.0, 1.1, SAFETY) == ""
    assert joints.hear(message({"finger": 0.0}, 0.95), 1.0, 1.1, SAFETY) == ""
    assert joints.hear(message({"elbow": 0.0, "shoulder": 0.0}, 1.01), 1.0, 1.1, SAFETY) == ""


@pytest.mark.parametrize(
    ("stamp", "told"), [(0.0, "its stamp is 0"), (1.0, "does not advance"), (0.5, "out of order"), (9.0, "ahead")]
)
def test_stamps_are_judged_for_each_joint(joints, stamp, told):
    whole = dict.fromkeys(NAMES, 0.1)
    hear(joints, whole, 1.0)
    refusal = joints.hear(message(dict.fromkeys(NAMES, 0.9), stamp), 1.1, 1.1, SAFETY)
    assert refusal.startswith("joint shoulder: ") and told in refusal
    assert joints.values == whole
    assert told in joints.stop_reason(1.4, LIMIT), "the reason of a stop says why nothing newer was taken"


def test_nothing_is_kept_over_a_start(joints):
    hear(joints, dict.fromkeys(NAMES, 0.1), 1.0)
    joints.start(2.0)
    assert joints.values == {}
    assert joints.stop_reason(2.0, LIMIT) == "/joint_states: no joint shoulder, elbow, finger; none was heard yet"
