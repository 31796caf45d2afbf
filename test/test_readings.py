"""Images come out as the same picture whatever their encoding, padding and byte order; the rest is refused by name."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy")

from geometry_msgs.msg import PoseStamped  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Float64  # noqa: E402

from dysl_vla_ros.errors import ObservationError  # noqa: E402
from dysl_vla_ros.readings import (  # noqa: E402
    ENCODINGS,
    MAX_INSTRUCTION,
    instruction_fault,
    opening_value,
    picture,
    pose_values,
)


def encode(rgb: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False) -> Image:
    """Encode an 8-bit picture as a camera would; 16-bit encodings get random low bytes."""
    name, wide = encoding.rstrip("0123456789"), encoding.endswith("16")
    if name == "mono":
        pixels = rgb[:, :, :1]
    else:
        order = {"r": rgb[:, :, 0], "g": rgb[:, :, 1], "b": rgb[:, :, 2], "a": np.full(rgb.shape[:2], 77, np.uint8)}
        pixels = np.stack([order[channel] for channel in name], axis=-1)
    if wide:
        low = np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint16)
        pixels = ((pixels.astype(np.uint16) << 8) | low).astype(">u2" if big_endian else "<u2")
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(rgb), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=201)
    return Image(
        height=rgb.shape[0],
        width=rgb.shape[1],
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=rows.shape[1],
        data=rows.tobytes(),
    )


pictures = st.builds(
    lambda height, width, seed: np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 1000),
)


@given(pictures, st.sampled_from(sorted(ENCODINGS)), st.integers(0, 9), st.booleans())
@settings(deadline=None, max_examples=200)
def test_every_encoding_padding_and_byte_order_gives_the_same_picture(rgb, encoding, padding, big_endian):
    expected = np.repeat(rgb[:, :, :1], 3, axis=2) if encoding.startswith("mono") else rgb
    np.testing.assert_array_equal(picture(encode(rgb, encoding, padding, big_endian)), expected)


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_no_pixel_is_copied(encoding):
    message = encode(np.zeros((4, 5, 3), np.uint8), encoding, padding=3)
    assert np.shares_memory(picture(message), np.frombuffer(message.data, np.uint8))


def test_the_messages_own_bytes_cannot_be_written_through_the_view():
    with pytest.raises(ValueError, match="read-only"):
        picture(encode(np.zeros((4, 5, 3), np.uint8), "rgb8"))[0, 0, 0] = 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"encoding": "8UC3"}, "'8UC3' is not supported; publish one of rgb8, bgr8"),
        ({"encoding": ""}, "encoding '' is not supported"),
        ({"width": 0}, "width is 0"),
        ({"height": 0}, "height is 0"),
        ({"height": 2**31}, "height is 2147483648; an image has 1 to 16384"),
        ({"step": 14}, "step is 14; 5 pixels of rgb8 need 15 bytes a row"),
        ({"height": 5}, "data has 60 bytes; 5 rows of step 15 are 75 bytes"),
        ({"height": 3}, "data has 60 bytes; 3 rows of step 15 are 45 bytes"),
        ({"step": 16}, "data has 60 bytes; 4 rows of step 16 are 64 bytes"),
    ],
)
def test_contradicting_fields_are_refused_with_field_and_numbers(changes, told):
    message = encode(np.zeros((4, 5, 3), np.uint8), "rgb8")
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(ObservationError) as refusal:
        picture(message)
    assert told in str(refusal.value)


@given(
    st.sampled_from([*ENCODINGS, "yuv422", "\0"]),
    st.integers(0, 2**32 - 1) | st.integers(0, 8),
    st.integers(0, 2**32 - 1) | st.integers(0, 8),
    st.integers(0, 2**32 - 1) | st.integers(0, 64),
    st.integers(0, 255),
    st.binary(max_size=300),
)
@settings(deadline=None, max_examples=300)
def test_any_image_is_viewed_or_refused_never_anything_else(encoding, height, width, step, big_endian, data):
    message = Image(height=height, width=width, step=step, encoding=encoding, is_bigendian=big_endian, data=data)
    try:
        rgb = picture(message)
    except ObservationError:
        return
    assert rgb.shape == (height, width, 3) and rgb.dtype == np.uint8
    rgb.copy()  # every byte of the view exists


def pose(frame: str = "base", x: float = 0.1) -> PoseStamped:
    message = PoseStamped()
    message.header.frame_id = frame
    message.pose.position.x = x
    return message


def test_a_pose_is_read_by_the_policys_names():
    values = pose_values(pose(), "base")
    assert values["ee.x"] == 0.1 and values["ee.qw"] == 1.0 and len(values) == 7


def test_a_pose_in_another_frame_is_refused_naming_both():
    with pytest.raises(ObservationError, match="frame_id is 'camera'; the policy wants 'base'"):
        pose_values(pose("camera"), "base")


def test_a_pose_that_is_not_finite_is_refused():
    with pytest.raises(ObservationError, match="ee.x is nan"):
        pose_values(pose(x=float("nan")), "base")


@pytest.mark.parametrize("opening", [float("nan"), float("inf"), -0.2, 1.2])
def test_an_opening_outside_its_range_is_refused(opening):
    with pytest.raises(ObservationError, match="it must be from 0"):
        opening_value(Float64(data=opening))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x" * (MAX_INSTRUCTION + 1), "has 501 characters; at most 500"),
        ("push\0", "character 4 of the instruction is the control character U+0000"),
        ("push\nit", "U+000A"),
        ("push\ufffd", "it was not valid UTF-8"),
    ],
)
def test_an_instruction_that_cannot_be_meant_is_refused_with_the_reason(text, told):
    assert told in instruction_fault(text)


@pytest.mark.parametrize("text", ["", "push the puck", "x" * MAX_INSTRUCTION, "\u05d3\u05d7\u05d5\u05e3", "推"])
def test_other_texts_are_no_fault(text):
    assert instruction_fault(text) == ""


@given(st.text())
@settings(deadline=None)
def test_any_text_is_judged(text):
    assert isinstance(instruction_fault(text), str)
