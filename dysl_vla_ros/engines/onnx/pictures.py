"""Images shrunk as the policy's training shrank them: each pixel the mean of the area that it stands for."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.interfaces import FloatArray


def to_square(picture: NDArray[np.uint8], size: int) -> FloatArray:
    """Return a picture (height, width, 3) as (1, 3, size, size) in 0..1; as torch's area interpolation, up to rounding.

    Rows first: after them little is left to do.
    """
    height, width, _ = picture.shape
    rows = picture.reshape(height, width * 3).astype(np.float32)
    if height != size:
        rows = _means(height, size) @ rows
    columns = rows.reshape(size, width, 3)
    if width != size:
        columns = np.matmul(_means(width, size), columns)
    return np.ascontiguousarray(columns.transpose(2, 0, 1)[None] * np.float32(1 / 255))


@lru_cache(maxsize=16)
def _means(pixels: int, size: int) -> FloatArray:
    """Return the matrix (size, pixels) that takes the mean of the pixels of each area; areas may share one."""
    matrix = np.zeros((size, pixels), np.float32)
    for place in range(size):
        first, end = place * pixels // size, -(-(place + 1) * pixels // size)
        matrix[place, first:end] = 1.0 / (end - first)
    return matrix
