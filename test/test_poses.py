"""Rotations as a checkpoint's columns, as ROS's quaternions and as rotation vectors: the same turn in all of them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.poses import (
    COLUMNS,
    POSE_VALUES,
    STATE_TURN,
    are_rotations,
    is_unused,
    matrices,
    of_columns,
    of_vectors,
    pose_values,
    poses,
    state_values,
    turn,
    turned,
    vectors,
)

parts = st.tuples(*[st.floats(-1.8, 1.8)] * 3)  # rad, their length below pi


def rotated(vector: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Rodrigues' formula: what a rotation vector does to a point."""
    angle = float(np.linalg.norm(vector))
    axis = vector / angle if angle else np.zeros(3)
    return (
        point * math.cos(angle)
        + np.cross(axis, point) * math.sin(angle)
        + axis * (axis @ point) * (1.0 - math.cos(angle))
    )


@given(parts, parts)
def test_every_form_turns_a_point_as_the_rotation_vector_does(way: tuple[float, ...], point: tuple[float, ...]) -> None:
    vector, place = np.array(way), np.array(point)
    orientation = of_vectors(vector)
    matrix = matrices(orientation)
    np.testing.assert_allclose(matrix @ place, rotated(vector, place), atol=1e-12)
    again = of_columns(np.concatenate([matrix[:, 0], matrix[:, 1]]))
    np.testing.assert_allclose(matrices(again), matrix, atol=1e-12)
    if np.linalg.norm(vector) < math.pi - 1e-6:
        np.testing.assert_allclose(vectors(orientation), vector, atol=1e-9)


@given(parts, parts)
def test_a_turn_leads_from_one_orientation_to_the_other(one: tuple[float, ...], other: tuple[float, ...]) -> None:
    before, after = of_vectors(np.array(one)), of_vectors(np.array(other))
    way = turn(before, after)
    assert np.linalg.norm(way) <= math.pi + 1e-9, "the shorter way round"
    np.testing.assert_allclose(matrices(turned(before, way)), matrices(after), atol=1e-9)
    np.testing.assert_allclose(turn(before, -after), way, atol=1e-9, err_msg="both signs are one orientation")


@given(st.floats(0.1, 3.0), st.floats(0.1, 3.0), st.floats(-2.0, 2.0), parts)
def test_columns_of_any_length_and_not_perpendicular_say_the_rotation_that_the_first_leads(
    first: float, second: float, leaning: float, way: tuple[float, ...]
) -> None:
    matrix = matrices(of_vectors(np.array(way)))
    columns = np.concatenate([first * matrix[:, 0], second * matrix[:, 1] + leaning * matrix[:, 0]])
    np.testing.assert_allclose(matrices(of_columns(columns)), matrix, atol=1e-9)
    assert are_rotations(columns, COLUMNS)


@pytest.mark.parametrize("columns", [[0.0] * 6, [1, 0, 0, 2, 0, 0], [1, 0, 0, 0, 0, 0], [1e-5, 0, 0, 0, 1, 0]])
def test_columns_that_say_no_rotation_are_told(columns: list[float]) -> None:
    assert not are_rotations(np.array(columns), COLUMNS)
    assert np.isfinite(of_columns(np.array(columns, float))).all()


def test_values_are_found_by_their_names_in_any_order() -> None:
    orientation = of_vectors(np.array([0.0, 0.0, math.pi / 2]))
    values = pose_values(np.array([1.0, 2.0, 3.0]), orientation)
    assert values["ee.r10"] == pytest.approx(1.0) and values["ee.r01"] == pytest.approx(-1.0), "x turns to y, y to -x"
    names = (*POSE_VALUES[::-1], "unused.arm")
    position, found = poses(np.array([values.get(name, 9.0) for name in names]), names)
    assert position.tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_allclose(found, orientation, atol=1e-12)
    state = state_values(-orientation)
    assert [state[name] for name in COLUMNS] == pytest.approx([0, 1, 0, -1, 0, 0])
    assert [state[name] for name in STATE_TURN] == pytest.approx([0, 0, math.pi / 2])


@pytest.mark.parametrize(("name", "unused"), [("unused", True), ("unused.1", True), ("unused_joint", False)])
def test_what_is_unused_says_so(name: str, unused: bool) -> None:
    assert is_unused(name) is unused
