"""Bayer and yuv give the picture that an independent reading of their definition gives; the rest is refused by name."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cv2")

from dysl_vla_ros.errors import ObservationError
from dysl_vla_ros.readings import check, needs_conversion, picture
from dysl_vla_ros.readings.images import CONVERSIONS, cv_bridge_conversion

BAYER = sorted(name for name in CONVERSIONS if name.startswith("bayer"))
PACKED = {"uyvy": "UYVY", "yuv422": "UYVY", "yuyv": "YUYV", "yuv422_yuy2": "YUYV"}
PLANAR = ["nv12", "nv21", "nv24"]
YUV = [*PACKED, *PLANAR]


def image(rows: np.ndarray, height: int, width: int, encoding: str, padding: int = 0, big_endian: bool = False):
    """A message of these rows (n, bytes), padded."""
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=201)
    return SimpleNamespace(
        height=height, width=width, encoding=encoding, is_bigendian=int(big_endian), step=rows.shape[1],
        data=rows.tobytes(),
    )  # fmt: skip


# -- bayer -------------------------------------------------------------------------------------------------------------


def colour_at(encoding: str, row: int, column: int) -> int:
    """0, 1, 2: red, green, blue, read off the encoding's name: the pattern's letters, row by row."""
    return "rgb".index(encoding.removeprefix("bayer_")[(row % 2) * 2 + column % 2])


def mosaic_of(rgb: np.ndarray, encoding: str) -> np.ndarray:
    height, width = rgb.shape[:2]
    mosaic = np.empty((height, width), rgb.dtype)
    for row in range(height):
        for column in range(width):
            mosaic[row, column] = rgb[row, column, colour_at(encoding, row, column)]
    return mosaic


def bayer_image(mosaic: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False):
    words = mosaic.astype(">u2" if big_endian else "<u2") if encoding.endswith("16") else mosaic
    return image(words.view(np.uint8).reshape(len(words), -1), *mosaic.shape, encoding, padding, big_endian)


def interpolated(mosaic: np.ndarray, encoding: str) -> np.ndarray:
    """Bilinear interpolation from its definition, for inner pixels: the mean of the nearest of each colour."""
    height, width = mosaic.shape
    rgb = np.zeros((height, width, 3))
    for row in range(1, height - 1):
        for column in range(1, width - 1):
            near = [(row + down, column + across) for down in (-1, 0, 1) for across in (-1, 0, 1)]
            for colour in range(3):
                places = [place for place in near if colour_at(encoding, *place) == colour]
                if (row, column) in places:
                    places = [(row, column)]
                rgb[row, column, colour] = np.mean([float(mosaic[place]) for place in places])
    return rgb


@given(
    st.sampled_from(BAYER), st.integers(3, 9), st.integers(3, 9), st.integers(0, 5), st.booleans(), st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=80)
def test_bayer_is_interpolated_from_the_nearest_of_each_colour(encoding, height, width, padding, big_endian, seed):
    wide = encoding.endswith("16")
    values = np.random.default_rng(seed).integers(0, 1 << (16 if wide else 8), (height, width))
    mosaic = values.astype(np.uint16 if wide else np.uint8)
    shown = picture(bayer_image(mosaic, encoding, padding, big_endian))
    assert shown.shape == (height, width, 3) and shown.dtype == np.uint8
    expected = interpolated(mosaic, encoding) / (256 if wide else 1)
    assert np.abs(shown[1:-1, 1:-1] - expected[1:-1, 1:-1]).max() <= 1.0


@pytest.mark.parametrize("encoding", BAYER)
def test_a_bayer_picture_of_one_colour_is_that_colour_everywhere(encoding):
    wide = encoding.endswith("16")
    rgb = np.broadcast_to(np.array([200, 90, 30], np.uint16 if wide else np.uint8) * (256 if wide else 1), (6, 8, 3))
    shown = picture(bayer_image(mosaic_of(rgb, encoding), encoding))
    np.testing.assert_array_equal(shown, np.broadcast_to(np.array([200, 90, 30]), (6, 8, 3)))


# -- yuv ---------------------------------------------------------------------------------------------------------------


def yuv_to_rgb(y: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """ITU-R BT.601 in its limited range, from the standard's numbers."""
    y, u, v = (plane.astype(float) for plane in (y, u, v))
    luminance = (y - 16) * 255 / 219
    red = luminance + (v - 128) * 255 / 224 * 1.402
    green = luminance - (u - 128) * 255 / 224 * 0.344136 - (v - 128) * 255 / 224 * 0.714136
    blue = luminance + (u - 128) * 255 / 224 * 1.772
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 255)


def planes(height: int, width: int, encoding: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y, U, V (height, width), with the colours that the encoding shares between pixels equal."""
    random = np.random.default_rng(seed)
    across = 1 if encoding == "nv24" else 2
    down = 2 if encoding in ("nv12", "nv21") else 1
    y = random.integers(16, 236, (height, width), dtype=np.uint8)
    u, v = (random.integers(16, 241, (height // down, width // across), dtype=np.uint8) for _ in range(2))
    return y, *(np.repeat(np.repeat(plane, down, axis=0), across, axis=1) for plane in (u, v))


def yuv_image(y: np.ndarray, u: np.ndarray, v: np.ndarray, encoding: str, padding: int = 0):
    """Lay planes out as the encoding's definition says."""
    height, width = y.shape
    if encoding in PACKED:
        sources = {"Y": y, "U": u, "V": v}
        rows = np.empty((height, 2 * width), np.uint8)
        order = PACKED[encoding]
        for place, letter in enumerate(order):
            second = letter == "Y" and order.index("Y") != place
            rows[:, place::4] = sources[letter][:, 1 if second else 0 :: 2]
        return image(rows, height, width, encoding, padding)
    down, across = (1, 1) if encoding == "nv24" else (2, 2)
    first, second = (v, u) if encoding == "nv21" else (u, v)
    colours = np.stack([first[::down, ::across], second[::down, ::across]], axis=-1).reshape(height // down, -1)
    if encoding != "nv24":
        return image(np.vstack([y, colours]), height, width, encoding, padding)
    message = image(y, height, width, encoding, padding)
    message.data += np.pad(colours, ((0, 0), (0, 2 * padding)), constant_values=201).tobytes()
    return message


@given(st.sampled_from(YUV), st.integers(1, 6), st.integers(1, 6), st.integers(0, 5), st.integers(0, 99))
@settings(deadline=None, max_examples=120)
def test_yuv_is_what_the_standard_says(encoding, height, width, padding, seed):
    height, width = 2 * height, 2 * width
    y, u, v = planes(height, width, encoding, seed)
    shown = picture(yuv_image(y, u, v, encoding, padding))
    assert shown.shape == (height, width, 3) and shown.dtype == np.uint8
    assert np.abs(shown - yuv_to_rgb(y, u, v)).max() <= 2.0


def test_rows_and_columns_of_nv24_need_not_be_even():
    y, u, v = planes(3, 5, "nv24", 0)
    assert np.abs(picture(yuv_image(y, u, v, "nv24")) - yuv_to_rgb(y, u, v)).max() <= 2.0


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "changes", "told"),
    [
        ("uyvy", {"width": 5}, "width is 5; uyvy shares colours between two pixels and needs an even width"),
        ("nv12", {"height": 3}, "height is 3; nv12 shares colours"),
        ("uyvy", {"step": 15}, "step is 15; 8 pixels of uyvy need 16 bytes a row"),
        ("nv21", {"height": 4}, "data has 64 bytes; 6 rows of step 16 are 96 bytes"),
        ("nv24", {}, "data has 64 bytes; 12 rows of step 16 are 192 bytes"),
        ("bayer_rggb8", {"height": 2}, "8x2 pixels are too few to interpolate bayer_rggb8; at least 3x3"),
        ("bayer_rggb16", {"height": 5}, "data has 64 bytes; 5 rows of step 16 are 80 bytes"),
        ("yuyv", {"width": 0}, "width is 0"),
        ("bayer_grbg8", {"height": 2**31}, "height is 2147483648"),
        ("bayer_grbg8", {"height": 16384, "width": 16384}, "at most 12582912 are taken"),
    ],
)
def test_contradicting_fields_are_refused_with_field_and_numbers(encoding, changes, told):
    message = image(np.zeros((4, 16), np.uint8), 4, 8, encoding)
    for name, value in changes.items():
        setattr(message, name, value)
    for refuse in (check, picture):
        with pytest.raises(ObservationError) as refusal:
            refuse(message)
        assert told in str(refusal.value)


@given(
    st.sampled_from(sorted(CONVERSIONS)), st.integers(0, 12), st.integers(0, 12), st.integers(0, 40),
    st.binary(max_size=400),
)  # fmt: skip
@settings(deadline=None, max_examples=300)
def test_any_fields_are_converted_or_refused_and_check_says_which(encoding, height, width, step, data):
    message = SimpleNamespace(
        height=height, width=width, step=step, encoding=encoding, is_bigendian=0, data=data[: step * height * 3]
    )
    try:
        check(message)
    except ObservationError:
        with pytest.raises(ObservationError):
            picture(message)
        return
    assert picture(message).shape == (height, width, 3)
    assert needs_conversion(message)


# -- cv_bridge ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["bayer_rggb8", "bayer_bggr16", "bayer_gbrg8", "bayer_grbg16", "uyvy", "yuyv"])
def test_cv_bridge_and_opencv_give_the_same_picture(encoding, monkeypatch):
    if cv_bridge_conversion() is None:
        pytest.skip("cv_bridge cannot be imported: it comes with a ROS distribution, not from a package registry")
    from dysl_vla_ros.readings import images

    if encoding.startswith("bayer"):
        wide = encoding.endswith("16")
        values = np.random.default_rng(0).integers(0, 1 << (16 if wide else 8), (12, 16))
        message = bayer_image(values.astype(np.uint16 if wide else np.uint8), encoding, padding=3)
    else:
        message = yuv_image(*planes(12, 16, encoding, 0), encoding, padding=3)
    with_bridge = picture(message).astype(int)
    monkeypatch.setattr(images, "cv_bridge_conversion", lambda: None)
    without = picture(message).astype(int)
    assert np.abs(with_bridge - without).max() <= 1, "other releases of OpenCV round differently, no more than that"


def test_every_encoding_is_tested_here():
    assert set(BAYER) | set(YUV) == set(CONVERSIONS)
