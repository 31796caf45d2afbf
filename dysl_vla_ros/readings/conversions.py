"""Bayer and yuv images, converted to rgb: by cv_bridge where it is installed and knows the encoding, else by OpenCV.

cv_bridge (checked: 4.0, its ``cv_bridge.cpp``) calls the same functions of OpenCV. Bayer is interpolated bilinearly,
yuv is BT.601 in its limited range (16 to 235), as cameras that speak UVC give it.
"""

import sys
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.errors import ObservationError
from dysl_vla_ros.readings.images import check_layout, check_size
from dysl_vla_ros.readings.opencv import cv_bridge_conversion, opencv

SMALLEST_MOSAIC = 3  # pixels a side; interpolation needs neighbours


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
