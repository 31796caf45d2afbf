"""Compressed images (sensor_msgs/CompressedImage): JPEG and PNG, with the formats that image_transport writes.

Checked against compressed_image_transport 5.1: ``ORIGINAL; jpeg compressed PIXELS`` or ``ORIGINAL; png compressed
PIXELS``, where PIXELS is what was given to OpenCV's encoder, and plain ``jpeg`` or ``png``. cv_bridge decodes with the
same call of OpenCV. A picture whose end is missing is refused: some decoders fill it up with grey. So is one whose
parts say that they are longer than what is there: a decoder would allocate gigabytes for them. What lies behind the
picture's end, as in a driver's buffer of fixed size, does no harm and is not looked at.
"""

import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.errors import ObservationError
from dysl_vla_ros.readings.images import (
    CONVERSIONS,
    ENCODINGS,
    SMALLEST_MOSAIC,
    check_size,
    demosaic,
    grey_to_rgb,
    high_bytes,
    opencv,
)

PNG_START, PNG_FRAME = b"\x89PNG\r\n\x1a\n", 12  # a chunk's length, type and checksum, in bytes
JPEG_START = b"\xff\xd8\xff"
FRAME_MARKERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG segments that carry the size
SCAN, END = 0xDA, 0xD9
BEHIND_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in coded data FF is followed by 00 or a restart marker


def check_compressed(message: Any) -> None:
    """Refuse what cannot be decoded, as far as its layout tells. Decodes nothing.

    Raises:
        ObservationError: another codec or original encoding, no end, a size out of range; says what was found.
    """
    _original(message.format)
    _whole(message)


def _whole(message: Any) -> memoryview:
    """Return the bytes of the picture, without what lies behind its end.

    Raises:
        ObservationError: see :func:`check_compressed`.
    """
    data = memoryview(message.data).cast("B")
    start = bytes(data[:8])
    if start == PNG_START:
        height, width, end = _png_layout(data)
    elif start.startswith(JPEG_START):
        height, width, end = _jpeg_layout(data)
    else:
        raise ObservationError(
            f"data begins with {start.hex(' ') or 'nothing'}, format is {message.format!r:.80}: neither JPEG nor PNG; "
            "publish one of the two"
        )
    check_size(height, width)
    return data[:end]


def decode(message: Any) -> NDArray[np.uint8]:
    """Decode a compressed image.

    Returns:
        (height, width, 3) uint8 rgb; grey is repeated, alpha left out, 16-bit values give their high byte.

    Raises:
        ObservationError: it cannot be decoded, or OpenCV is not installed.
    """
    original, encoded = _original(message.format)
    data = _whole(message)
    cv2 = opencv()
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ObservationError(f"OpenCV cannot decode the picture: {str(error).strip():.200}") from error
    if pixels is None:
        raise ObservationError(f"OpenCV cannot decode the {len(message.data)} bytes of {message.format!r:.80}: damaged")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ObservationError(f"the picture has values of type {pixels.dtype}; 8 or 16 bits are taken")
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels == 1:
        grey = pixels.reshape(pixels.shape[:2])
        if original.startswith("bayer") and not encoded.startswith("mono") and min(grey.shape) >= SMALLEST_MOSAIC:
            return demosaic(grey, original)
        return grey_to_rgb(_bytes(grey[:, :, None])[:, :, 0])
    if channels not in (3, 4):
        raise ObservationError(f"the picture has {channels} channels; 1, 3 or 4 are taken")
    # OpenCV gives blue first. image_transport names what it gave to the encoder: where that was not blue first, the
    # file's own red and blue are exchanged.
    exchanged = bool(original) and not original.startswith("bayer") and not encoded.startswith("bgr")
    colours = np.ascontiguousarray(_bytes(pixels)[:, :, :3])
    return colours if exchanged else np.asarray(cv2.cvtColor(colours, cv2.COLOR_BGR2RGB))


def _original(form: str) -> tuple[str, str]:
    """Return (encoding before compression, encoding given to the codec) of a format; "" where it does not say.

    Raises:
        ObservationError: an encoding that is not supported, as depth.
    """
    first, separator, rest = form.partition(";")
    if not separator:
        return "", ""
    original, known = first.strip(), (*ENCODINGS, *CONVERSIONS)
    if original not in known:
        raise ObservationError(
            f"format {form!r:.80} is of the encoding {original!r:.40}, which is not supported; there are "
            f"{', '.join(known)}"
        )
    return original, rest.partition("compressed")[2].strip()


def _bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return high_bytes(pixels) if pixels.dtype == np.uint16 else pixels


def _png_layout(data: memoryview) -> tuple[int, int, int]:
    """Return (height, width, end) of a PNG, chunk by chunk.

    Raises:
        ObservationError: a chunk is longer than what is there, or there is no last one.
    """
    if len(data) < 24:
        raise ObservationError(f"the PNG of {len(data)} bytes has no header")
    width, height = struct.unpack_from(">II", data, 16)
    at = len(PNG_START)
    while at + PNG_FRAME <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + PNG_FRAME + length
        if end > len(data):
            raise ObservationError(
                f"the PNG of {len(data)} bytes has a chunk {kind!r} of {length} bytes at {at}: it was cut off on its "
                "way, or is damaged"
            )
        if kind == b"IEND":
            return height, width, end
        at = end
    raise ObservationError(f"the PNG of {len(data)} bytes has no end: it was cut off on its way")


def _jpeg_layout(data: memoryview) -> tuple[int, int, int]:
    """Return (height, width, end) of a JPEG, segment by segment.

    Raises:
        ObservationError: a segment is longer than what is there, none says the size, or there is no end.
    """
    size: tuple[int, int] | None = None
    at = 2
    while at + 2 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a byte of padding
            at += 1
            continue
        if marker == END:
            if size is None:
                break
            return *size, at + 2
        if marker in FRAME_MARKERS and at + 9 <= len(data):
            size = struct.unpack_from(">HH", data, at + 5)
        if at + 4 > len(data):
            break
        (length,) = struct.unpack_from(">H", data, at + 2)
        at += 2 + length
        if marker == SCAN:
            behind = BEHIND_SCAN.search(data, at)
            at = behind.start() if behind else len(data)
    if size is None:
        raise ObservationError(f"the JPEG of {len(data)} bytes has no header that says its size: damaged")
    raise ObservationError(f"the JPEG of {len(data)} bytes has no end: it was cut off on its way")
