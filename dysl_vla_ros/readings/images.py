"""Raw images as (height, width, 3) uint8 rgb: views of what lies in memory as red, green and blue, or conversions.

Of rgb8 and its like, and of grey, padding (``step``), byte order and channel order are all strides of one numpy view;
the copy into the worker's memory is the only one. Encodings are those of sensor_msgs/image_encodings.hpp.

Bayer and yuv images are converted: by cv_bridge where it is installed and knows the encoding, else by OpenCV. cv_bridge
(checked: 4.0, its ``cv_bridge.cpp``) calls the same functions of OpenCV. Bayer is interpolated bilinearly, yuv is
BT.601 in its limited range (16 to 235), as cameras that speak UVC give it. Both libraries are loaded when the first
picture needs them: a node that sees only rgb8 does without.
"""

import functools
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.errors import ObservationError

MAX_SIDE = 16384  # pixels; a larger width or height is a broken message, not a camera
MAX_PIXELS = 4096 * 3072  # what a picture's place in the worker's memory holds
SMALLEST_MOSAIC = 3  # pixels a side; interpolation needs neighbours


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


@functools.cache
def opencv() -> Any:
    """Return the module cv2.

    Raises:
        ObservationError: it is not installed; says what to do.
    """
    try:
        import cv2
    except ImportError as error:
        raise ObservationError(
            f"bayer, yuv and compressed images need OpenCV, which cannot be imported ({error}): install "
            "python3-opencv, or publish rgb8"
        ) from error
    return cv2


@functools.cache
def cv_bridge_conversion() -> Callable[[Any, str, str], Any] | None:
    """Return cv_bridge's conversion (array, encoding, encoding wanted) -> array; None where it is not installed.

    A cv_bridge that was built against another numpy fails at import with either error.
    """
    try:
        from cv_bridge.boost.cv_bridge_boost import cvtColor2
    except (ImportError, AttributeError):
        return None
    convert: Callable[[Any, str, str], Any] = cvtColor2
    return convert


class Conversion(NamedTuple):
    """How an encoding is laid out, and what turns it into rgb."""

    code: str  # name of OpenCV's conversion
    bytes_per_pixel: int  # of the first plane's rows
    rows: Fraction = Fraction(1)  # rows of ``step`` bytes in ``data``, for each row of the picture
    even: tuple[str, ...] = ()  # sides that must be even
    bridged: str = ""  # cv_bridge's name of the encoding; "": it does not know it


# OpenCV names a Bayer pattern by the second and third pixel of its second row.
_BAYER = {"rggb": "BayerBG", "bggr": "BayerRG", "gbrg": "BayerGR", "grbg": "BayerGB"}
CONVERSIONS = {
    f"bayer_{pattern}{8 * size}": Conversion(f"COLOR_{code}2RGB", size, bridged=f"bayer_{pattern}{8 * size}")
    for size in (1, 2)
    for pattern, code in _BAYER.items()
}
CONVERSIONS |= {
    "uyvy": Conversion("COLOR_YUV2RGB_UYVY", 2, even=("width",), bridged="yuv422"),
    "yuyv": Conversion("COLOR_YUV2RGB_YUY2", 2, even=("width",), bridged="yuv422_yuy2"),
    # the planes of luminance and colour lie one below the other, as V4L2 gives them
    "nv12": Conversion("COLOR_YUV2RGB_NV12", 1, Fraction(3, 2), ("width", "height")),
    "nv21": Conversion("COLOR_YUV2RGB_NV21", 1, Fraction(3, 2), ("width", "height")),
    "nv24": Conversion("COLOR_YUV2RGB_YUY2", 1, Fraction(3)),
}
CONVERSIONS |= {"yuv422": CONVERSIONS["uyvy"], "yuv422_yuy2": CONVERSIONS["yuyv"]}  # their names until Iron


def check_conversion(message: Any) -> None:
    """Refuse an image of :data:`CONVERSIONS` whose fields contradict each other. Touches no pixel.

    Raises:
        ObservationError: names field and numbers.
    """
    conversion = CONVERSIONS[message.encoding]
    check_size(message.height, message.width)
    for side in conversion.even:
        if getattr(message, side) % 2:
            raise ObservationError(
                f"{side} is {getattr(message, side)}; {message.encoding} shares colours between two pixels and needs "
                f"an even {side}"
            )
    if message.encoding.startswith("bayer") and min(message.height, message.width) < SMALLEST_MOSAIC:
        raise ObservationError(
            f"{message.width}x{message.height} pixels are too few to interpolate {message.encoding}; at least "
            f"{SMALLEST_MOSAIC}x{SMALLEST_MOSAIC} are needed"
        )
    check_layout(message, message.width * conversion.bytes_per_pixel, int(message.height * conversion.rows))


def convert(message: Any) -> NDArray[np.uint8]:
    """Convert an image of :data:`CONVERSIONS`.

    Returns:
        (height, width, 3) uint8 rgb, an array of its own; 16-bit values give their high byte.

    Raises:
        ObservationError: contradicting fields, or OpenCV is not installed.
    """
    check_conversion(message)
    encoding, height, width = message.encoding, message.height, message.width
    conversion = CONVERSIONS[encoding]
    rows = np.frombuffer(message.data, np.uint8).reshape(-1, message.step)
    if encoding == "nv24":
        return _nv24(rows, height, width)
    pixels = np.ascontiguousarray(rows[:, : width * conversion.bytes_per_pixel])
    if encoding.startswith("bayer"):
        return demosaic(_as_words(pixels, bool(message.is_bigendian)) if encoding.endswith("16") else pixels, encoding)
    if conversion.bridged:
        return _convert(pixels.reshape(height, width, 2), conversion, "rgb8")
    return _convert(pixels, conversion, "rgb8")


def demosaic(mosaic: NDArray[Any], encoding: str) -> NDArray[np.uint8]:
    """Interpolate a bayer picture (height, width), uint8 or uint16, to (height, width, 3) uint8 rgb."""
    wide = mosaic.dtype == np.uint16
    name = f"{encoding.rstrip('0123456789')}{16 if wide else 8}"
    rgb = _convert(mosaic, CONVERSIONS[name], "rgb16" if wide else "rgb8")
    return high_bytes(rgb) if wide else rgb


def high_bytes(wide: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the high bytes of 16-bit values of this machine's byte order: a view."""
    return wide.view(np.uint8)[..., 1 if sys.byteorder == "little" else 0 :: 2]


def _as_words(pixels: NDArray[np.uint8], big_endian: bool) -> NDArray[Any]:
    return pixels.view(">u2" if big_endian else "<u2").astype(np.uint16, copy=False)


def _convert(pixels: NDArray[Any], conversion: Conversion, wanted: str) -> NDArray[Any]:
    bridge = cv_bridge_conversion() if conversion.bridged else None
    if bridge is not None:
        return np.asarray(bridge(pixels, conversion.bridged, wanted))
    cv2 = opencv()
    return np.asarray(cv2.cvtColor(pixels, getattr(cv2, conversion.code)))


def _nv24(rows: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """OpenCV knows no 4:4:4 in limited range: give each pixel two places of a yuyv picture, and take every other."""
    step = rows.shape[1]
    colours = rows[height:].reshape(height, 2 * step)[:, : 2 * width].reshape(height, width, 2)
    doubled = np.empty((height, 2 * width, 2), np.uint8)
    doubled[:, :, 0] = np.repeat(rows[:height, :width], 2, axis=1)
    doubled[:, :, 1] = colours.reshape(height, 2 * width)
    return np.ascontiguousarray(_convert(doubled, CONVERSIONS["nv24"], "rgb8")[:, ::2])
