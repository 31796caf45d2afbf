"""Images as OpenVLA-OFT saw them in training, which did it with TensorFlow; numpy alone repeats it.

A camera's picture became a JPEG of quality 95 in the training data, was decoded with the fast DCT, shrunk with a
Lanczos filter, and the middle 90% of its area was enlarged again. Each of the two vision towers then has a
normalisation of its own. Checked against TensorFlow 2.15: never more than one grey level apart. Without the JPEG step
it would be up to 39.
"""

import functools
import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dysl_vla_ros.interfaces import FloatArray

SIZE = 224  # px of the towers' input, each way
QUALITY = 95
CHROMA_HALVED = 2  # Pillow's name of 4:2:0
CROPPED_AREA = 0.9
LOBES = 3  # of the Lanczos filter
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Normalisation:
    """What one tower takes off its pictures (values from 0 to 1) and divides by, for red, green and blue."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, picture: Picture) -> FloatArray:
        """Return a picture (H, W, 3) as (3, H, W)."""
        values = picture.astype(np.float32).transpose(2, 0, 1) / np.float32(255)
        mean, std = (np.array(own, dtype=np.float32)[:, None, None] for own in (self.mean, self.std))
        return np.ascontiguousarray((values - mean) / std)


def prepare_picture(picture: Picture) -> Picture:
    """Return a camera's picture (height, width, 3) as the towers see it before normalisation: (224, 224, 3).

    One that has this size already is taken as shrunk before, as in training: it is cropped and enlarged alone.
    """
    if picture.shape != (SIZE, SIZE, 3):
        picture = shrink(as_jpeg(picture))
    return crop_middle(picture)


def as_jpeg(picture: Picture) -> Picture:
    """Return what is left of a picture (height, width, 3) after it was kept as a JPEG."""
    kept = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(kept, "JPEG", quality=QUALITY, subsampling=CHROMA_HALVED)
    import simplejpeg  # of requirements/torch.txt: what is read of a folder needs none of it

    decoded: Picture = simplejpeg.decode_jpeg(kept.getvalue(), colorspace="RGB", fastdct=True)
    return decoded


def shrink(picture: Picture, size: int = SIZE) -> Picture:
    """Return a picture (height, width, 3) at (size, size, 3); its aspect is not kept.

    Rows first, then columns, in float32, as TensorFlow does it.
    """
    height, width, channels = picture.shape
    rows = _filter(height, size) @ picture.reshape(height, -1).astype(np.float32)  # (size, width * 3)
    across = rows.reshape(size, width, channels).transpose(1, 0, 2).reshape(width, -1)
    values = (_filter(width, size) @ across).reshape(size, size, channels).transpose(1, 0, 2)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def crop_middle(picture: Picture) -> Picture:
    """Return the middle 90% of the area of a picture (224, 224, 3), enlarged to its size by bilinear interpolation."""
    values = picture.astype(np.float32) * np.float32(1 / 255)
    low, high, share_at = _places()
    for axis in (0, 1):
        share = share_at[:, None, None] if axis == 0 else share_at[None, :, None]
        first, second = values.take(low, axis), values.take(high, axis)
        values = first + (second - first) * share
    # TensorFlow's way from 0 .. 1 to whole numbers: the half is added to the factor, what is behind the point goes
    return (np.clip(values, 0, 1) * np.float32(255.5)).astype(np.uint8)


@functools.lru_cache(maxsize=16)
def _filter(found: int, wanted: int) -> NDArray[np.float32]:
    """Return the weights (wanted, found) by which ``found`` values become ``wanted``; each row sums to 1."""
    step = np.float32(found) / np.float32(wanted)
    reach = max(step, np.float32(1))  # of one lobe; wider where values are left out, so that each still counts
    centers = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * step
    distance = (np.arange(found, dtype=np.float32) + np.float32(0.5) - centers[:, None]) / reach
    weights = np.where(np.abs(distance) < LOBES, np.sinc(distance) * np.sinc(distance / LOBES), 0.0)
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    weights.setflags(write=False)
    return weights


@functools.cache
def _places() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return of each place of an enlarged side its neighbours in the original, and how far it is to the second."""
    side = np.float32(math.sqrt(CROPPED_AREA))
    start = (np.float32(1) - side) / np.float32(2)
    last = np.float32(SIZE - 1)
    step = (start + side - start) * last / last  # in the order in which TensorFlow rounds
    places = start * last + np.arange(SIZE, dtype=np.float32) * step
    low = np.floor(places)
    return low.astype(np.int64), np.ceil(places).astype(np.int64), places - low
