"""One way in for every picture: raw, bayer, yuv, compressed. The node and recordings are read through it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.errors import ObservationError
from dysl_vla_ros.readings.compressed import check_compressed, decode
from dysl_vla_ros.readings.images import CONVERSIONS, ENCODINGS, check_conversion, convert, image_to_rgb


def picture(message: Any) -> NDArray[np.uint8]:
    """Return what an image message shows.

    Args:
        message: a sensor_msgs/Image or a sensor_msgs/CompressedImage, or anything with the fields of either.

    Returns:
        (height, width, 3) uint8 rgb: a read-only view of the message's bytes where its encoding allows
        (:data:`ENCODINGS`), else an array of its own.

    Raises:
        ObservationError: an encoding or format that is not supported, fields that contradict each other, damaged
            data; names what was found and what is taken.
    """
    if is_compressed(message):
        return decode(message)
    return image_to_rgb(message) if _encoding(message) in ENCODINGS else convert(message)


def check(message: Any) -> None:
    """Refuse what :func:`picture` would refuse, as far as can be told without touching the pixels.

    Raises:
        ObservationError: as :func:`picture`; damage inside compressed data alone shows only there.
    """
    if is_compressed(message):
        check_compressed(message)
    elif _encoding(message) in ENCODINGS:
        image_to_rgb(message)
    else:
        check_conversion(message)


def needs_conversion(message: Any) -> bool:
    """Whether :func:`picture` has to compute something: milliseconds for a large picture, else none."""
    return is_compressed(message) or message.encoding not in ENCODINGS


def is_compressed(message: Any) -> bool:
    """Tell a sensor_msgs/CompressedImage from an Image."""
    return hasattr(message, "format")


def _encoding(message: Any) -> str:
    encoding: str = message.encoding
    if encoding not in ENCODINGS and encoding not in CONVERSIONS:
        raise ObservationError(
            f"encoding {encoding!r:.40} is not supported; publish one of {', '.join((*ENCODINGS, *CONVERSIONS))}"
        )
    return encoding
