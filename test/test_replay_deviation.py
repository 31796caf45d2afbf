"""Deviations in millimetres and degrees, and phases read off full-depth actions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.interfaces import ActionSpec
from dysl_vla_ros.records.deviation import figures, measures, normalised_distance, rotation_degrees, translation_mm
from dysl_vla_ros.records.phases import CLOSING, FREE, OPENING, PHASES, SLOW, phases, speed_and_gripper
from joint_arm import joint_positions, joint_velocities

angles = st.floats(-3.0, 3.0)
HAND = ActionSpec(8, 0.05, True, (0.0,) * 7, (0.01,) * 7)


def action(x=0.0, gripper=0.5, rotation=(0.0, 0.0, 0.0)):
    return np.array([x, 0.0, 0.0, *rotation, gripper], np.float32)


@given(st.tuples(angles, angles, angles))
def test_an_action_does_not_deviate_from_itself(rotation):
    one = action(0.01, rotation=rotation)
    assert translation_mm(one, one) == 0.0
    assert rotation_degrees(one, one) == 0.0


@given(angles, angles)
def test_rotations_about_one_axis_lie_their_difference_apart_at_most_a_half_turn(one, other):
    apart = abs(np.degrees(one - other)) % 360
    found = rotation_degrees(action(rotation=(0, one, 0)), action(rotation=(0, other, 0)))
    np.testing.assert_allclose(found, min(apart, 360 - apart), atol=1e-3)


def test_translation_is_in_millimetres_and_policies_without_rotation_have_none():
    one, other = np.zeros(4, np.float32), np.array([0.003, 0.004, 0.0, 1.0], np.float32)
    np.testing.assert_allclose(translation_mm(one, other), 5.0, rtol=1e-5)
    assert rotation_degrees(one, other) == 0.0


def named(actions, episodes=None):
    count = len(actions)
    times, episodes = np.arange(count) * 0.05, np.zeros(count) if episodes is None else episodes
    found = phases(*speed_and_gripper(np.array(actions), times, episodes, HAND), times, episodes)
    return [PHASES[place] for place in found]


def test_phases_are_fast_slow_closing_opening():
    fast, slow = [action(0.02)] * 20, [action(0.002)] * 20
    closing = [action(0.002, gripper) for gripper in (0.9, 0.9, 0.1, 0.1)]
    found = named([*fast, *slow, *[action(0.002, 0.9)] * 10, *closing, *[action(0.002, 0.1)] * 10])
    assert found[0] == FREE and found[30] == SLOW
    assert found[52] == CLOSING and found[40] == OPENING  # 0.5 to 0.9 is an opening, 0.9 to 0.1 a closing
    assert found[46] == SLOW and found[-1] == SLOW


def test_a_gripper_that_differs_between_two_episodes_neither_opens_nor_closes():
    actions = [action(0.02, 0.1)] * 5 + [action(0.02, 0.9)] * 5
    assert set(named(actions, np.repeat([0, 1], 5))) == {FREE}
    assert OPENING in named(actions)


def test_figures_leave_out_what_was_not_recorded_and_are_null_where_nothing_was():
    one = np.stack([action(0.001), action(0.003)])
    other = np.stack([action(0.0), np.full(7, np.nan, np.float32)])
    table = figures(one, other, np.array([0, 0]), measures(HAND))
    assert table["all"]["moments"] == 1
    np.testing.assert_allclose(table["all"]["translation_mm"]["max"], 1.0, rtol=1e-5)
    assert table[CLOSING]["translation_mm"] is None


def test_joints_lie_apart_by_the_one_that_lies_furthest_in_units_that_people_read():
    """Shoulder in rad, elbow in degrees, wrist in -100 to 100, jaw in percent."""
    one, other = np.array([0.1, 20.0, 30.0, 50.0], np.float32), np.array([0.2, 26.0, 10.0, 80.0], np.float32)
    found = {own.name: (float(own.apart(one, other)), own.unit) for own in measures(joint_positions())}
    assert found["joint_degrees"] == (6.0, "degrees"), "the shoulder's 0.1 rad are 5.73"
    assert found["joint_percent"] == (10.0, "%")
    np.testing.assert_allclose(found["gripper"][0], 0.3, rtol=1e-5)
    assert [own.name for own in measures(joint_positions(gripper=False))] == ["joint_degrees", "joint_percent"]
    assert [own.unit for own in measures(joint_velocities())] == ["degrees/s", "opening"]
    assert measures(joint_velocities())[0].name == "joint_degrees_per_s"


@given(st.lists(st.floats(-100.0, 100.0, width=32), min_size=4, max_size=4), st.sampled_from([0, 1, 2, 3]))
def test_of_every_kind_what_is_the_same_lies_nowhere_apart_and_what_is_not_does(values, moved):
    for action in (joint_positions(), joint_velocities()):
        one = np.array(values, np.float32)
        other = one.copy()
        other[moved] += 1.0
        assert all(own.apart(one, one) == 0.0 for own in measures(action))
        assert any(own.apart(one, other) > 0.0 for own in measures(action))
        assert normalised_distance(one, one, action) == 0.0 < normalised_distance(one, other, action)


def test_the_phases_of_targets_are_those_of_the_speeds_that_lead_there():
    action = joint_positions()
    speeds = np.r_[np.full(30, 1.0), np.full(30, 0.05)]  # rad/s of the shoulder
    episodes = np.repeat([0, 1], 60)
    shoulder = np.tile(np.cumsum(speeds) * action.time_step, 2)
    shoulder[60:] += 100.0  # the next episode begins elsewhere: no motion
    actions = np.zeros((120, 4), np.float32)
    actions[:, 0], actions[:, 3] = shoulder, np.tile(np.where(np.arange(60) < 45, 90.0, 10.0), 2)
    times = np.arange(120) * action.time_step
    found = [PHASES[place] for place in phases(*speed_and_gripper(actions, times, episodes, action), times, episodes)]
    assert found[10] == found[60] == found[70] == FREE and found[35] == found[95] == SLOW
    assert found[45] == found[105] == CLOSING, "an opening in percent is one all the same"
    without = joint_positions(gripper=False)
    found = phases(*speed_and_gripper(actions[:, :3], times, episodes, without), times, episodes)
    assert {PHASES[place] for place in found} == {FREE, SLOW}
