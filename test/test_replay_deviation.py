"""Deviations in millimetres and degrees, and phases read off full-depth actions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.records.deviation import figures, rotation_degrees, translation_mm
from dysl_vla_ros.records.phases import CLOSING, FREE, OPENING, PHASES, SLOW, phases

angles = st.floats(-3.0, 3.0)


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
    found = phases(np.array(actions), np.arange(count) * 0.05, np.zeros(count) if episodes is None else episodes, 0.05)
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
    table = figures(one, other, np.array([0, 0]))
    assert table["all"]["moments"] == 1
    np.testing.assert_allclose(table["all"]["translation_mm"]["max"], 1.0, rtol=1e-5)
    assert table[CLOSING]["translation_mm"] is None
