"""JPEG and PNG as image_transport writes them: one picture, whatever format, depth and alpha; damage is refused."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

cv2 = pytest.importorskip("cv2")

from dysl_vla_ros.errors import ObservationError  # noqa: E402
from dysl_vla_ros.readings import check, needs_conversion, picture  # noqa: E402
from dysl_vla_ros.readings.images import MAX_PIXELS  # noqa: E402
from dysl_vla_ros.worker.messages import SLOT  # noqa: E402


def scene(height: int = 24, width: int = 32) -> np.ndarray:
    """A smooth rgb picture, uint8."""
    down, across = np.mgrid[0:height, 0:width].astype(float)
    channels = [down / height, across / width, 1.0 - (down + across) / (height + width)]
    return (np.stack(channels, axis=-1) * 200 + 20).astype(np.uint8)


def compressed(pixels: np.ndarray, codec: str, form: str):
    """Give pixels to OpenCV's encoder, as image_transport does (it takes three channels for blue, green, red)."""
    coded, data = cv2.imencode(f".{codec}", pixels)
    assert coded
    return SimpleNamespace(format=form, data=data.tobytes())


def bgr(rgb: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rgb[:, :, ::-1])


@pytest.mark.parametrize(
    "form",
    [
        "rgb8; png compressed bgr8", "bgr8; png compressed bgr8", "rgba8; png compressed bgr8", "png", "",
        "uyvy; png compressed bgr8", "something else",
    ],
)  # fmt: skip
def test_png_is_the_picture_bit_for_bit(form):
    message = compressed(bgr(scene()), "png", form)
    check(message)
    np.testing.assert_array_equal(picture(message), scene())


@pytest.mark.parametrize("form", ["rgb8; jpeg compressed bgr8", "bgr8; jpeg compressed bgr8", "jpeg", "jpg"])
def test_jpeg_is_close_to_the_picture(form):
    message = compressed(bgr(scene()), "jpg", form)
    check(message)
    difference = np.abs(picture(message).astype(int) - scene())
    assert difference.mean() < 3.0 and difference.max() < 25


@pytest.mark.parametrize("form", ["rgb8; png compressed rgb8", "rgb8; png compressed ", "bgr8; png compressed rgb8"])
def test_what_was_given_to_the_encoder_red_first_comes_out_right(form):
    np.testing.assert_array_equal(picture(compressed(scene(), "png", form)), scene())


@pytest.mark.parametrize("form", ["rgb16; png compressed bgr16", "png"])
def test_16_bit_png_gives_the_high_bytes(form):
    low = np.random.default_rng(0).integers(0, 256, scene().shape, dtype=np.uint16)
    wide = (scene().astype(np.uint16) << 8) | low
    np.testing.assert_array_equal(picture(compressed(bgr(wide), "png", form)), scene())


@pytest.mark.parametrize("wide", [False, True])
def test_alpha_is_left_out(wide):
    pixels = np.dstack([bgr(scene()), np.arange(24 * 32, dtype=np.uint8).reshape(24, 32)])
    if wide:
        pixels = pixels.astype(np.uint16) << 8
    np.testing.assert_array_equal(picture(compressed(pixels, "png", "png")), scene())


@pytest.mark.parametrize("form", ["mono8; png compressed ", "mono8; jpeg compressed mono8", "mono16; png compressed "])
def test_grey_is_repeated(form):
    grey = scene()[:, :, 0]
    pixels = grey.astype(np.uint16) << 8 if "16" in form else grey
    shown = picture(compressed(pixels, "jpg" if "jpeg" in form else "png", form))
    assert shown.shape == (24, 32, 3)
    assert np.abs(shown.astype(int) - grey[:, :, None]).max() <= (3 if "jpeg" in form else 0)


@pytest.mark.parametrize("wide", [False, True])
def test_a_bayer_mosaic_in_a_png_is_interpolated_and_one_made_grey_before_is_not(wide):
    mosaic = np.full((6, 8), 30, np.uint8)  # blue
    mosaic[::2, ::2], mosaic[::2, 1::2], mosaic[1::2, ::2] = 200, 90, 90  # red, green, green
    pixels = mosaic.astype(np.uint16) << 8 if wide else mosaic
    shown = picture(compressed(pixels, "png", f"bayer_rggb{16 if wide else 8}; png compressed "))
    np.testing.assert_array_equal(shown, np.broadcast_to(np.array([200, 90, 30]), (6, 8, 3)))
    grey = picture(compressed(mosaic, "png", "bayer_rggb8; jpeg compressed mono8"))
    np.testing.assert_array_equal(grey[:, :, 0], mosaic)


@given(st.sampled_from(["jpg", "png"]), st.integers(1, 40), st.integers(1, 40), st.integers(0, 4))
@settings(deadline=None, max_examples=60)
def test_every_size_is_taken_and_zeros_behind_the_picture_do_no_harm(codec, height, width, padding):
    message = compressed(bgr(scene(height, width)), codec, "")
    message.data += bytes(padding)
    check(message)
    shown = picture(message)
    assert shown.shape == (height, width, 3) and shown.dtype == np.uint8
    assert needs_conversion(message)


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_the_codec_is_told_by_the_data_not_by_the_format():
    np.testing.assert_array_equal(picture(compressed(bgr(scene()), "png", "jpeg")), scene())
    with pytest.raises(ObservationError, match="data begins with 42 4d .*neither JPEG nor PNG"):
        check(compressed(bgr(scene()), "bmp", "jpeg"))
    with pytest.raises(ObservationError, match="data begins with nothing"):
        check(SimpleNamespace(format="jpeg", data=b""))


def test_depth_and_unknown_encodings_are_refused_by_name():
    for form, named in (("16UC1; compressedDepth png", "'16UC1'"), ("8UC3; png compressed ", "'8UC3'")):
        with pytest.raises(ObservationError, match=f"of the encoding {named}, which is not supported; there are rgb8"):
            check(compressed(bgr(scene()), "png", form))


def test_a_picture_too_large_for_the_worker_is_refused_before_it_is_decoded():
    assert 3 * MAX_PIXELS == SLOT
    data = bytearray(compressed(bgr(scene()), "png", "png").data)
    data[16:24] = (16000).to_bytes(4, "big") * 2
    with pytest.raises(ObservationError, match="16000x16000 are 256000000 pixels, at most 12582912"):
        check(SimpleNamespace(format="png", data=bytes(data)))


@given(st.sampled_from(["jpg", "png"]), st.data())
@settings(deadline=None, max_examples=120)
def test_every_truncation_is_refused_before_it_is_decoded(codec, data):
    whole = compressed(bgr(scene()), codec, "").data
    cut = SimpleNamespace(format="", data=whole[: data.draw(st.integers(0, len(whole) - 1))])
    for refuse in (check, picture):
        with pytest.raises(ObservationError):
            refuse(cut)


@given(st.sampled_from(["jpg", "png"]), st.integers(0, 10**6), st.integers(1, 255), st.binary(max_size=12))
@settings(deadline=None, max_examples=300)
def test_any_damage_gives_a_picture_or_a_refusal_never_anything_else(codec, place, change, inserted):
    data = bytearray(compressed(bgr(scene()), codec, "").data)
    place %= len(data)
    data[place] ^= change
    data[place:place] = inserted
    try:
        shown = picture(SimpleNamespace(format="", data=bytes(data)))
    except ObservationError:
        return
    assert shown.ndim == 3 and shown.shape[2] == 3 and shown.dtype == np.uint8


@given(st.binary(max_size=200), st.text(max_size=20))
@settings(deadline=None, max_examples=200)
def test_any_bytes_and_any_format_are_refused(data, form):
    for start in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(ObservationError):
            picture(SimpleNamespace(format=form, data=start + data))


def test_a_chunk_that_says_it_is_longer_than_the_png_is_refused_before_anything_is_allocated():
    header = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR" + bytes([0, 0, 0, 8, 0, 0, 0, 8, 8, 2, 0, 0, 0])
    bomb = header + bytes(4) + (0x7FFFFFF0).to_bytes(4, "big") + b"IDAT" + b"IEND\xaeB`\x82"
    with pytest.raises(ObservationError, match="has a chunk b'IDAT' of 2147483632 bytes at 33"):
        check(SimpleNamespace(format="png", data=bomb))


@given(st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_no_length_that_a_png_says_of_itself_is_believed(number, length):
    data = bytearray(compressed(bgr(scene()), "png", "png").data)
    places, at = [], 8
    while at < len(data):
        places.append(at)
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    at = places[number]
    data[at : at + 4] = length.to_bytes(4, "big")
    beyond = at + 12 + length > len(data)
    with pytest.raises(ObservationError) if beyond else contextlib.suppress(ObservationError):
        check(SimpleNamespace(format="png", data=bytes(data)))


@pytest.mark.parametrize("codec", ["jpg", "png"])
@given(old=st.binary(max_size=64))
def test_what_an_earlier_picture_left_behind_the_end_does_no_harm(codec, old):
    """usb_cam hands on a buffer of fixed size: behind the picture lies what was there before."""
    message = compressed(bgr(scene()), codec, codec)
    before = compressed(bgr(scene()[::-1].copy()), codec, codec).data
    longer = SimpleNamespace(format=codec, data=message.data + old + before[len(before) // 2 :])
    check(longer)
    np.testing.assert_array_equal(picture(longer), picture(message))


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("restart", [0, 2])
def test_the_end_of_a_jpeg_is_found_in_every_kind_of_it(progressive, restart):
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
    coded, data = cv2.imencode(".jpg", noise, options)
    assert coded
    whole = SimpleNamespace(format="jpeg", data=data.tobytes())
    behind = SimpleNamespace(format="jpeg", data=whole.data + b"\xff\xd8\xff\xda old bytes")
    np.testing.assert_array_equal(picture(behind), picture(whole))
    with pytest.raises(ObservationError, match="no end"):
        check(SimpleNamespace(format="jpeg", data=whole.data[:-2]))
