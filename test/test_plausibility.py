"""Whatever numbers a message has, they are refused by name with the limit, or finite, within it, and not a jump."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dysl_vla_ros.control.joints import Joints
from dysl_vla_ros.control.plausibility import (
    JITTER,
    LONGEST_GAP,
    MAX_DISTANCE,
    MAX_SPEED,
    MAX_TURN,
    MAX_TURNING,
    NORM_TOLERANCE,
    SETTLING,
    Jumps,
    PlausibleValues,
    joint_jump,
    pose_jump,
)
from dysl_vla_ros.errors import ObservationError
from dysl_vla_ros.readings import opening_value, pose_values
from dysl_vla_ros.readings.proprioception import OPENING_TOLERANCE
from dysl_vla_ros.settings import SafetySettings

SAFETY = SafetySettings()
SILENCE = SAFETY.max_arrival_age  # s
PERIOD = 0.05  # s between two messages
FLOATS = st.floats(width=64) | st.floats(-11.0, 11.0) | st.sampled_from([0.0, 1.0, -1.0, 1e300, 5e-324])
POSE_FIELDS = ("ee.x", "ee.y", "ee.z", "ee.qx", "ee.qy", "ee.qz", "ee.qw")


def stamp(seconds: float):
    return SimpleNamespace(sec=int(seconds), nanosec=round(seconds % 1 * 1e9))


def pose(numbers, seconds: float = 1.0):
    x, y, z, qx, qy, qz, qw = numbers
    return SimpleNamespace(
        header=SimpleNamespace(frame_id="base", stamp=stamp(seconds)),
        pose=SimpleNamespace(
            position=SimpleNamespace(x=x, y=y, z=z), orientation=SimpleNamespace(x=qx, y=qy, z=qz, w=qw)
        ),
    )


def joint_state(positions, seconds: float = 1.0):
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp(seconds)), name=list(positions), position=list(positions.values())
    )


def read_pose(numbers) -> dict[str, float]:
    message = pose(numbers)
    values = pose_values(message, "base")
    if why := PlausibleValues().fault("ee_pose", values, 1.0, 1.0, SAFETY):
        raise ObservationError(why)
    return values


@given(st.tuples(*[FLOATS] * 7))
@settings(deadline=None, max_examples=400)
def test_any_pose_is_refused_by_field_and_limit_or_finite_and_within_it(numbers):
    try:
        values = read_pose(numbers)
    except ObservationError as error:
        told = str(error)
        assert any(name in told for name in POSE_FIELDS) or "the orientation (" in told
        limits = ("must be finite", f"at most {MAX_DISTANCE:g} m", f"has 1, within {NORM_TOLERANCE:g}")
        assert any(limit in told for limit in limits)
        return
    taken = np.array([values[name] for name in POSE_FIELDS], np.float32)
    assert np.isfinite(taken).all() and np.abs(taken[:3]).max() <= MAX_DISTANCE
    assert abs(np.linalg.norm(taken[3:].astype(float)) - 1.0) <= NORM_TOLERANCE + 1e-6


@given(FLOATS)
@settings(deadline=None)
def test_any_opening_is_refused_with_its_range_or_within_it(opening):
    try:
        values = opening_value(SimpleNamespace(data=opening))
    except ObservationError as error:
        assert "opening is" in str(error) and "from 0 (closed) to 1 (open)" in str(error)
        return
    assert -0.1 <= np.float32(values["gripper.opening"]) <= 1.1


@given(FLOATS, FLOATS)
@settings(deadline=None, max_examples=300)
def test_any_joint_position_is_refused_by_joint_and_limit_or_within_it(angle, way):
    joints = Joints(("elbow", "finger"), "/joint_states", {"elbow": "rad", "finger": "m"})
    joints.start(0.0)
    told = joints.hear(joint_state({"elbow": angle, "finger": way}), 1.0, 1.0, SAFETY)
    if told:
        assert "joint elbow" in told or "finger" in told
        limits = ("must be finite", f"at most {MAX_TURN:.4g} rad", f"at most {MAX_DISTANCE:g} m")
        assert any(limit in told for limit in limits)
        assert joints.values == {}
        return
    taken = np.float32([joints.values["elbow"], joints.values["finger"]])
    assert np.isfinite(taken).all() and abs(taken[0]) <= np.float32(MAX_TURN) and abs(taken[1]) <= MAX_DISTANCE


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({0: 1e300}, r"ee.x is 1e\+300 m; at most 10 m either way is taken: is the driver in millimetres"),
        ({1: 100.0}, "ee.y is 100 m; at most 10 m"),
        ({6: 0.0}, r"the orientation \(0, 0, 0, 0\) has norm 0; a rotation has 1, within 0.1: have the driver fill in"),
        ({6: 2.0}, "has norm 2;"),
        ({6: 1e300}, r"has norm 1e\+300;"),
    ],
)
def test_an_impossible_pose_is_told_with_value_limit_and_fix(changes, told):
    numbers = [0.0, 0.6, 0.2, 0.0, 0.0, 0.0, 1.0]
    for place, value in changes.items():
        numbers[place] = value
    with pytest.raises(ObservationError, match=told):
        read_pose(numbers)


def test_the_page_has_the_limits_of_the_code():
    page = (Path(__file__).parents[1] / "docs" / "inputs.md").read_text(encoding="utf-8")
    for text in (
        f"-{MAX_DISTANCE:g} to {MAX_DISTANCE:g} m",
        f"norm {1 - NORM_TOLERANCE:g} to {1 + NORM_TOLERANCE:g}",
        f"-{MAX_TURN:.1f} to {MAX_TURN:.1f} rad",
        f"-{OPENING_TOLERANCE:g} to {1 + OPENING_TOLERANCE:g}",
        f"{JITTER:g} m and {MAX_SPEED:g} m/s over the stamps' difference, of which at most {LONGEST_GAP:g} s counts",
        f"{JITTER:g} rad and {MAX_TURNING:g} rad/s",
        f"`safety.max_arrival_age` + {SETTLING:g} s",
    ):
        assert text in page, text


# -- jumps -------------------------------------------------------------------------------------------------------------


class Source:
    """One joint's or hand's places, heard at a steady rate."""

    def __init__(self, judge, name: str) -> None:
        self.jumps, self.name, self.now = Jumps(judge), name, 1.0
        self.took: list[float] = []

    def hear(self, value: float, later: float = PERIOD) -> str:
        self.now += later
        values = dict.fromkeys(POSE_FIELDS, 0.0) | {"ee.qw": 1.0, self.name: value}
        why = self.jumps.fault(values, self.now, self.now, SILENCE)
        if not why:
            self.jumps.take(values, self.now, self.now)
            self.took.append(value)
        return why


def sources():
    return st.sampled_from([(pose_jump, "ee.x", MAX_SPEED), (joint_jump("ee.x", "m"), "ee.x", MAX_SPEED)])


@given(sources(), st.lists(st.floats(-1.0, 1.0), max_size=30), st.floats(0.001, 0.2))
@settings(deadline=None)
def test_no_motion_within_the_speed_is_refused_at_any_rate(source, steps, period):
    judge, name, speed = source
    heard, place = Source(judge, name), 0.0
    for step in steps:
        place += step * (JITTER + speed * min(period, LONGEST_GAP)) * 0.999
        assert heard.hear(place, period) == ""


@given(sources(), st.floats(0.001, 0.2), st.floats(1.001, 5.0))
@settings(deadline=None)
def test_one_outlier_is_left_out_and_the_source_goes_on(source, period, factor):
    judge, name, speed = source
    heard = Source(judge, name)
    heard.hear(0.0, period)
    outlier = (JITTER + speed * min(period, LONGEST_GAP)) * factor
    told = heard.hear(outlier, period)
    assert "has jumped by" in told and f"at most {JITTER + speed * min(period, LONGEST_GAP):.3g} m is" in told
    assert heard.hear(0.0, period) == "" and heard.took == [0.0, 0.0]


def places_after(heard: Source, place: float) -> float:
    """Stay at ``place`` until it is taken; return for how long it was refused (s)."""
    began = heard.now
    while heard.hear(place):
        assert heard.now - began < 60.0, "a new place is never taken"
    return heard.now - began


@given(st.floats(2.2, 9.0), st.integers(1, 5))
@settings(deadline=None)
def test_a_new_place_is_taken_after_the_arm_has_stood_still_and_not_before(place, times):
    heard = Source(pose_jump, "ee.x")
    heard.hear(0.0)
    for turn in range(times):  # there and back again
        waited = places_after(heard, place if turn % 2 == 0 else 0.0)
        assert waited - PERIOD + 1e-6 >= SILENCE + SETTLING and waited < SILENCE + SETTLING + 3 * PERIOD
        assert heard.hear(heard.took[-1]) == ""


def test_a_jump_that_is_sent_again_or_goes_elsewhere_is_none_the_truer():
    heard = Source(pose_jump, "ee.x")
    heard.hear(0.0)
    assert heard.hear(5.0) and heard.hear(5.0, later=0.0) and heard.hear(5.0, later=-0.01)
    for turn in range(100):
        assert heard.hear(5.0 if turn % 2 else -5.0), "places that jump among themselves are none"


def test_after_a_new_beginning_any_place_is_the_first():
    heard = Source(pose_jump, "ee.x")
    heard.hear(0.0)
    assert heard.hear(5.0)
    heard.jumps.forget()
    assert heard.hear(5.0) == ""


@given(st.floats(-3.0, 3.0), st.integers(-2, 2))
@settings(deadline=None)
def test_a_joint_may_be_wrapped_by_whole_turns(angle, turns):
    judge = joint_jump("elbow", "rad")
    assert judge({"elbow": angle}, {"elbow": angle + turns * math.tau}, 0.001) == ""
    assert "has jumped by 1 rad" in judge({"elbow": angle}, {"elbow": angle + turns * math.tau + 1.0}, 0.001)


@given(st.floats(0.0, math.pi), st.floats(0.001, 0.05), st.sampled_from([1.0, -1.0]))
@settings(deadline=None)
def test_a_hand_turns_no_faster_than_a_hand_and_both_signs_of_a_quaternion_are_one(angle, seconds, sign):
    still = dict.fromkeys(POSE_FIELDS, 0.0) | {"ee.qw": 1.0}
    turned = still | {"ee.qz": sign * math.sin(angle / 2), "ee.qw": sign * math.cos(angle / 2)}
    limit = JITTER + MAX_TURNING * min(seconds, LONGEST_GAP)
    if abs(angle - limit) > 1e-6:
        assert bool(pose_jump(still, turned, seconds)) == (angle > limit)


def test_a_joint_that_jumps_is_named_and_the_others_are_taken():
    joints = Joints(("elbow", "finger"), "/joint_states", {"elbow": "rad", "finger": "m"})
    joints.start(0.0)
    assert joints.hear(joint_state({"elbow": 0.0, "finger": 0.0}, 1.0), 1.0, 1.0, SAFETY) == ""
    told = joints.hear(joint_state({"elbow": 3.0, "finger": 0.01}, 1.02), 1.02, 1.02, SAFETY)
    assert told.startswith("joint elbow: its position has jumped by 3 rad in 0.02 s")
    assert joints.values == {"elbow": 0.0, "finger": 0.01}
    for now in (1.1, 1.2, 1.3, 1.4):  # the driver of the finger goes on
        assert joints.hear(joint_state({"finger": 0.01}, now), now, now, SAFETY) == ""
    stop = joints.stop_reason(1.4, SILENCE)
    assert "positions have stopped: elbow 0.40 s ago" in stop and "its position has jumped by 3 rad" in stop
    joints.start(2.0)
    assert joints.hear(joint_state({"elbow": 3.0, "finger": 0.01}, 2.0), 2.0, 2.0, SAFETY) == ""
