"""Images whose pixels lie in memory as red, green and blue, or grey: views, no copy.

Padding (``step``), byte order, channel order and grey are all strides of one numpy view; the copy into the worker's
memory is the only one. Encodings are those of sensor_msgs/image_encodings.hpp.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.errors import ObservationError

MAX_SIDE = 16384  # pixels; a larger width or height is a broken message, not a camera
MAX_PIXELS = 4096 * 3072  # what a picture's place in the worker's memory holds


class Encoding(NamedTuple):
    """How one pixel lies in memory."""

    channels: int
    bytes_per_channel: int = 1
    rgb: slice | None = slice(0, 3)  # which channels are red, green, blue; None: grey


ENCODINGS = {
    "rgb8": Encoding(3),
    "bgr8": Encoding(3, rgb=slice(2, None, -1)),
    "rgba8": Encoding(4),
    "bgra8": Encoding(4, rgb=slice(2, None, -1)),
    "mono8": Encoding(1, rgb=None),
    "rgb16": Encoding(3, 2),
    "bgr16": Encoding(3, 2, rgb=slice(2, None, -1)),
    "rgba16": Encoding(4, 2),
    "bgra16": Encoding(4, 2, rgb=slice(2, None, -1)),
    "mono16": Encoding(1, 2, rgb=None),
}


def image_to_rgb(message: Any) -> NDArray[np.uint8]:
    """View an image message as rgb.

    Args:
        message: a sensor_msgs/Image in any encoding of :data:`ENCODINGS`; 16-bit values give their high byte.

    Returns:
        (height, width, 3) uint8, read-only, on the message's own bytes.

    Raises:
        ObservationError: fields that contradict each other; names field and numbers.
    """
    encoding = ENCODINGS[message.encoding]
    pixel = encoding.channels * encoding.bytes_per_channel
    check_layout(message, message.width * pixel, message.height)
    high_byte = 0 if message.is_bigendian or encoding.bytes_per_channel == 1 else 1
    pixels: NDArray[np.uint8] = np.ndarray(
        (message.height, message.width, encoding.channels),
        dtype=np.uint8,
        buffer=memoryview(message.data),
        offset=high_byte,
        strides=(message.step, pixel, encoding.bytes_per_channel),
    )
    rgb = grey_to_rgb(pixels[:, :, 0]) if encoding.rgb is None else pixels[:, :, encoding.rgb]
    rgb.flags.writeable = False  # the message may have other readers
    return rgb


def grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """View a grey picture (height, width) as (height, width, 3)."""
    return np.broadcast_to(grey[:, :, None], (*grey.shape, 3))


def check_layout(message: Any, row: int, rows: int) -> None:
    """Refuse fields of a sensor_msgs/Image that contradict each other.

    Args:
        message: the image.
        row: bytes that one row's pixels need at least.
        rows: rows of ``step`` bytes that ``data`` must hold.

    Raises:
        ObservationError: names field and numbers.
    """
    check_size(message.height, message.width)
    if message.step < row:
        raise ObservationError(
            f"step is {message.step}; {message.width} pixels of {message.encoding} need {row} bytes a row"
        )
    if len(message.data) != message.step * rows:
        raise ObservationError(
            f"data has {len(message.data)} bytes; {rows} rows of step {message.step} are {message.step * rows} bytes"
        )


def check_size(height: int, width: int) -> None:
    """Refuse a picture without pixels, or with more than a camera gives.

    Raises:
        ObservationError: names the side.
    """
    for name, value in (("height", height), ("width", width)):
        if not 1 <= value <= MAX_SIDE:
            raise ObservationError(f"{name} is {value}; an image has 1 to {MAX_SIDE} pixels a side")
    if height * width > MAX_PIXELS:
        raise ObservationError(f"{width}x{height} are {height * width} pixels, at most {MAX_PIXELS} are taken")
