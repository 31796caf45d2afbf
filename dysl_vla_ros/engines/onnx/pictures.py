"""Images shrunk as the policy's training shrank them: each pixel the mean of the area that it stands for.

Summed in integers, so exactly: rows first, after which little is left to do. Of a large image one sum over a few rows
at a time is what numpy does fastest (a product by a matrix takes three times as long), of a small one differences of
running sums.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.interfaces import FloatArray

LARGEST = 255  # of a pixel
SMALL = 2**17  # values
Areas = tuple[tuple[int, int], ...]  # (first, one past the last)


def to_square(picture: NDArray[np.uint8], size: int) -> FloatArray:
    """Return a picture (height, width, 3) as (1, 3, size, size) in 0..1: torch's area interpolation, up to rounding."""
    height, width, _ = picture.shape
    rows, columns = _areas(height, size), _areas(width, size)
    summed = _sums(picture.reshape(height, width * 3), rows)
    turned = np.ascontiguousarray(summed.reshape(size, width, 3).transpose(1, 0, 2)).reshape(width, size * 3)
    both = _sums(turned, columns).reshape(size, size, 3).transpose(2, 1, 0)  # (3, rows, columns)
    counts = np.multiply.outer(_lengths(rows), _lengths(columns)) * np.float32(LARGEST)
    return np.ascontiguousarray(both / counts, np.float32)[None]


def _sums(values: NDArray[np.unsignedinteger], areas: Areas) -> NDArray[np.unsignedinteger]:
    """Sum rows (n, m) over each area; what is summed twice is below 2^32 up to images of 16 million pixels an area."""
    if values.size < SMALL:
        running = np.zeros((len(values) + 1, values.shape[1]), np.uint32)
        np.cumsum(values, axis=0, dtype=np.uint32, out=running[1:])
        places = np.array(areas)
        return running[places[:, 1]] - running[places[:, 0]]
    narrow = values.dtype == np.uint8 and max(end - first for first, end in areas) * LARGEST < 2**16
    kind = np.uint16 if narrow else np.uint32
    sums = np.empty((len(areas), values.shape[1]), kind)
    for place, (first, end) in enumerate(areas):
        np.add.reduce(values[first:end], axis=0, dtype=kind, out=sums[place])
    return sums


@lru_cache(maxsize=16)
def _areas(pixels: int, size: int) -> Areas:
    """Return which of ``pixels`` each of ``size`` pixels stands for; neighbours may share one."""
    return tuple((place * pixels // size, -(-(place + 1) * pixels // size)) for place in range(size))


def _lengths(areas: Areas) -> FloatArray:
    return np.array([end - first for first, end in areas], np.float32)
