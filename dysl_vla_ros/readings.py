"""What messages say, as arrays and values: images, proprioception, instructions. No ROS is imported.

A message is anything with the fields of its ROS definition, so that the node (rclpy) and recordings (rosbags) are read
by the same code.

No picture is copied here: padding (``step``), byte order, channel order and grey are all strides of one numpy view;
the copy into the worker's memory is the only one. What cannot be read that way is refused by name.
"""

import hashlib
import unicodedata
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.errors import ObservationError

MAX_SIDE = 16384  # pixels; a larger width or height is a broken message, not a camera
MAX_INSTRUCTION = 500  # characters
OPENING_TOLERANCE = 0.05  # by which a measured gripper opening may leave 0..1


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
        ObservationError: an unsupported encoding, or fields that contradict each other; names field and numbers.
    """
    encoding = ENCODINGS.get(message.encoding)
    if encoding is None:
        raise ObservationError(
            f"encoding {message.encoding!r:.40} is not supported; publish one of {', '.join(ENCODINGS)}"
        )
    height, width, step = message.height, message.width, message.step
    for name, value in (("height", height), ("width", width)):
        if not 1 <= value <= MAX_SIDE:
            raise ObservationError(f"{name} is {value}; an image has 1 to {MAX_SIDE} pixels a side")
    pixel = encoding.channels * encoding.bytes_per_channel
    if step < width * pixel:
        raise ObservationError(f"step is {step}; {width} pixels of {message.encoding} need {width * pixel} bytes a row")
    if len(message.data) != step * height:
        raise ObservationError(
            f"data has {len(message.data)} bytes; {height} rows of step {step} are {step * height} bytes"
        )
    high_byte = 0 if message.is_bigendian or encoding.bytes_per_channel == 1 else 1
    pixels: NDArray[np.uint8] = np.ndarray(
        (height, width, encoding.channels),
        dtype=np.uint8,
        buffer=memoryview(message.data),
        offset=high_byte,
        strides=(step, pixel, encoding.bytes_per_channel),
    )
    rgb = np.broadcast_to(pixels, (height, width, 3)) if encoding.rgb is None else pixels[:, :, encoding.rgb]
    rgb.flags.writeable = False  # the message may have other readers
    return rgb


def pose_values(message: Any, frame: str) -> dict[str, float]:
    """Read an end-effector pose.

    Args:
        message: a geometry_msgs/PoseStamped; position in metres, orientation as a quaternion.
        frame: frame that the policy declares.

    Returns:
        ``ee.x`` .. ``ee.z`` (m), ``ee.qx`` .. ``ee.qw``.

    Raises:
        ObservationError: another frame, or a value that is not finite.
    """
    if message.header.frame_id and message.header.frame_id != frame:
        raise ObservationError(
            f"frame_id is {message.header.frame_id!r:.80}; the policy wants {frame!r}: publish the pose in that frame"
        )
    position, orientation = message.pose.position, message.pose.orientation
    values = {f"ee.{axis}": getattr(position, axis) for axis in "xyz"}
    values |= {f"ee.q{axis}": getattr(orientation, axis) for axis in "xyzw"}
    for name, value in values.items():
        if not np.isfinite(value):
            raise ObservationError(f"{name} is {value}; it must be finite")
    return values


def opening_value(message: Any) -> dict[str, float]:
    """Read a gripper's opening (a std_msgs/Float64), ``gripper.opening``: 0 closed, 1 open.

    Raises:
        ObservationError: not finite, or clearly outside 0..1.
    """
    opening = message.data
    if not -OPENING_TOLERANCE <= opening <= 1.0 + OPENING_TOLERANCE:  # false for NaN as well
        raise ObservationError(f"opening is {opening}; it must be from 0 (closed) to 1 (open)")
    return {"gripper.opening": opening}


def instruction_fault(text: str) -> str:
    """Say why a text cannot be an instruction, or "" if it can. Blank texts are no fault here: they mean "wait"."""
    if len(text) > MAX_INSTRUCTION:
        return f"the instruction has {len(text)} characters; at most {MAX_INSTRUCTION} are taken"
    for place, character in enumerate(text):
        if character == "\ufffd":
            return f"character {place} of the instruction is U+FFFD: it was not valid UTF-8"
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            return f"character {place} of the instruction is the control character U+{ord(character):04X}"
    return ""


def instruction_hash(text: str) -> str:
    """Return the SHA-256 of an instruction, as ``~/skip_report`` carries it."""
    return hashlib.sha256(text.encode()).hexdigest()


def seconds(stamp: Any) -> float:
    """Return a builtin_interfaces/Time as seconds."""
    return float(stamp.sec) + stamp.nanosec * 1e-9
