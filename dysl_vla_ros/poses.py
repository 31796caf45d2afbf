"""Absolute poses of an end effector, as checkpoints, ROS and limits have them. numpy only.

Each value of a pose has a name, the same in actions and proprioception: ``ee.x``, ``ee.y``, ``ee.z`` are the position
in metres, ``ee.rRC`` is row R and column C of the rotation matrix that maps the end effector's axes into the frame of
the poses. Of the matrix the first two columns are there (six values, "6D"; Zhou et al., arXiv 1812.07035), which need
be neither of length 1 nor perpendicular: the matrix is made of them by Gram and Schmidt, the first column leading.

Orientations are quaternions (..., 4) in ROS's order x, y, z, w. Ways between them are rotation vectors (..., 3) in rad,
in the frame of the poses, no longer than pi.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

POSITION = ("ee.x", "ee.y", "ee.z")
COLUMNS = ("ee.r00", "ee.r10", "ee.r20", "ee.r01", "ee.r11", "ee.r21")
POSE_VALUES = (*POSITION, *COLUMNS)
UNUSED = "unused"  # what begins the name of a value that commands nothing, such as those of a second arm
NO_ROTATION = 1e-3  # below it a column's length, or what of the second is perpendicular to the first, says nothing
STATE_TURN = ("ee.rx", "ee.ry", "ee.rz")  # of proprioception alone: the orientation as a rotation vector

Values = NDArray[np.float64]


def is_unused(name: str) -> bool:
    """Whether a value of that name means nothing: ``unused``, ``unused.1``, ``unused.left_x``."""
    return name == UNUSED or name.startswith(f"{UNUSED}.")


def poses(actions: NDArray[Any], names: Sequence[str]) -> tuple[Values, Values]:
    """Return positions (..., 3) in m and orientations (..., 4) of actions (..., A), physical units.

    Args:
        actions: values of ``names``.
        names: with every one of :data:`POSE_VALUES` among them.
    """
    values = np.asarray(actions, np.float64)
    position = values[..., [names.index(name) for name in POSITION]]
    return position, of_columns(values[..., [names.index(name) for name in COLUMNS]])


def pose_values(position: Values, orientation: Values) -> dict[str, float]:
    """Return a pose, position (3,) and orientation (4,), as values by the names of :data:`POSE_VALUES`."""
    columns = matrices(orientation)[:, :2].T.ravel()
    return dict(zip(POSE_VALUES, map(float, (*position, *columns)), strict=True))


def state_values(orientation: Values) -> dict[str, float]:
    """Return an orientation (4,) by the other names that proprioception has for it."""
    columns = matrices(orientation)[:, :2].T.ravel()
    return dict(zip((*COLUMNS, *STATE_TURN), map(float, (*columns, *vectors(orientation))), strict=True))


def orientation_of(values: Mapping[str, float]) -> Values:
    """Return the orientation (4,), of length 1, of proprioception that has ``ee.qx`` .. ``ee.qw``."""
    return unit(np.array([values[f"ee.q{axis}"] for axis in "xyzw"]))


def are_rotations(actions: NDArray[Any], names: Sequence[str]) -> NDArray[np.bool_]:
    """Return of which actions (..., A) the columns say a rotation: neither short nor parallel."""
    columns = np.asarray(actions, np.float64)[..., [names.index(name) for name in COLUMNS]]
    first, second = columns[..., :3], columns[..., 3:]
    along = unit(first)
    across = second - np.sum(along * second, axis=-1, keepdims=True) * along
    lengths = np.minimum(np.linalg.norm(first, axis=-1), np.linalg.norm(across, axis=-1))
    return np.asarray(lengths > NO_ROTATION)


def unit(vectors: Values) -> Values:
    """Return vectors (..., n) of length 1; those of length 0 stay."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0.0, length, 1.0))


def of_columns(columns: Values) -> Values:
    """Return orientations (..., 4) of two columns each, (..., 6); something finite where these say no rotation."""
    x = unit(columns[..., :3])
    y = unit(columns[..., 3:] - np.sum(x * columns[..., 3:], axis=-1, keepdims=True) * x)
    (a, d, g), (b, e, h), (c, f, i) = (np.moveaxis(column, -1, 0) for column in (x, y, np.cross(x, y)))
    ways = (  # four to the same quaternion, each times one of its own values: that of the largest is exact
        (1.0 + a - e - i, b + d, c + g, h - f),
        (b + d, 1.0 - a + e - i, f + h, c - g),
        (c + g, f + h, 1.0 - a - e + i, d - b),
        (h - f, c - g, d - b, 1.0 + a + e + i),
    )
    stacked = np.stack([np.stack(way, axis=-1) for way in ways], axis=-2)  # (..., 4 ways, 4)
    best = np.argmax(np.diagonal(stacked, axis1=-2, axis2=-1), axis=-1)
    return unit(np.take_along_axis(stacked, best[..., None, None], axis=-2)[..., 0, :])


def matrices(orientations: Values) -> Values:
    """Return the rotation matrices (..., 3, 3) of orientations (..., 4)."""
    x, y, z, w = np.moveaxis(unit(orientations), -1, 0)
    rows = (
        (1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)),
        (2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)),
        (2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def vectors(orientations: Values) -> Values:
    """Return the rotation vectors (..., 3) of orientations (..., 4): the shorter way round."""
    turned = np.where(orientations[..., 3:] < 0.0, -orientations, orientations)
    sine = np.linalg.norm(turned[..., :3], axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, turned[..., 3:])
    # of a small turn the vector is twice the quaternion's: exact where the sine is too small to divide by
    factor = np.where(sine > 1e-9, angle / np.where(sine > 1e-9, sine, 1.0), 2.0)
    return np.asarray(turned[..., :3] * factor)


def of_vectors(rotations: Values) -> Values:
    """Return the orientations (..., 4) of rotation vectors (..., 3)."""
    half = np.linalg.norm(rotations, axis=-1, keepdims=True) / 2.0
    return np.concatenate([rotations / 2.0 * np.sinc(half / np.pi), np.cos(half)], axis=-1)


def turn(before: Values, after: Values) -> Values:
    """Return the rotation vectors (..., 3) that turn orientations (..., 4) into others."""
    return vectors(_product(after, before * np.array([-1.0, -1.0, -1.0, 1.0])))


def turned(orientations: Values, rotations: Values) -> Values:
    """Return orientations (..., 4) turned by rotation vectors (..., 3)."""
    return unit(_product(of_vectors(rotations), orientations))


def _product(first: Values, second: Values) -> Values:
    """Return the quaternions (..., 4) that turn by the second and then by the first."""
    (ax, ay, az, aw), (bx, by, bz, bw) = np.moveaxis(first, -1, 0), np.moveaxis(second, -1, 0)
    return np.stack(
        [
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ],
        axis=-1,
    )
