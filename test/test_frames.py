import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.errors import ObservationError
from dysl_vla_ros.worker.messages import SLOT, FrameSlots, memory_file


@pytest.fixture
def both():
    """The writing and the reading side of two cameras."""
    descriptor = memory_file()
    writer = FrameSlots(descriptor, ["image", "wrist_image"], writable=True)
    reader = FrameSlots(descriptor, ["image", "wrist_image"], writable=False)
    yield writer, reader
    os.close(descriptor)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_what_is_written_is_what_is_read(both) -> None:
    writer, reader = both
    images = {"image": picture(48, 64), "wrist_image": picture(30, 20, 1)}
    shapes = writer.write(images)
    assert shapes == {"image": (48, 64), "wrist_image": (30, 20)}
    for camera, view in reader.read(shapes).items():
        np.testing.assert_array_equal(view, images[camera])


@given(
    st.integers(1, 20), st.integers(1, 20), st.integers(0, 7), st.sampled_from([1, -1]), st.sampled_from([1, -1]),
)  # fmt: skip
def test_padded_rows_and_reversed_colours_arrive_as_they_look(height, width, padding, rows, colours) -> None:
    data = picture(height, width + padding)
    view = data[::rows, :width, ::colours]
    descriptor = memory_file()
    try:
        writer = FrameSlots(descriptor, ["image"], writable=True)
        (read,) = FrameSlots(descriptor, ["image"], writable=False).read(writer.write({"image": view})).values()
        np.testing.assert_array_equal(read, view)
    finally:
        os.close(descriptor)


def test_the_reader_gets_views_and_cannot_write_to_them(both) -> None:
    writer, reader = both
    shapes = writer.write({"image": picture(4, 4), "wrist_image": picture(4, 4)})
    view = reader.read(shapes)["image"]
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0, 0] = 1
    changed = picture(4, 4, 5)
    writer.write({"image": changed, "wrist_image": changed})
    np.testing.assert_array_equal(view, changed)


BAD = {
    "of another type": (np.zeros((4, 4, 3), np.float32), r"expected \(height, width, 3\) uint8, found float32"),
    "with four channels": (np.zeros((4, 4, 4), np.uint8), r"found uint8 of shape \(4, 4, 4\)"),
    "grey": (np.zeros((4, 4), np.uint8), r"found uint8 of shape \(4, 4\)"),
    "empty": (np.zeros((0, 4, 3), np.uint8), "the frame is empty"),
    "too large": (np.broadcast_to(np.uint8(0), (8192, 4096, 3)), rf"4096x8192 does not fit \(\d+ of {SLOT} bytes\)"),
    "no array": ([[[1, 2, 3]]], "found list"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_frame_that_cannot_serve_is_refused_by_camera_and_nothing_is_written(both, kind: str) -> None:
    writer, reader = both
    bad, message = BAD[kind]
    good = picture(4, 4)
    shapes = writer.write({"image": good, "wrist_image": good})
    with pytest.raises(ObservationError, match=f"camera 'wrist_image': .*{message}"):
        writer.write({"image": picture(4, 4, 9), "wrist_image": bad})  # type: ignore[dict-item]
    np.testing.assert_array_equal(reader.read(shapes)["image"], good)


def test_a_missing_and_an_unknown_camera_are_named_together(both) -> None:
    writer, _ = both
    with pytest.raises(ObservationError, match="'wrist_image': no frame.*'depth' is unknown; the policy has 'image'"):
        writer.write({"image": picture(2, 2), "depth": picture(2, 2)})


def test_the_largest_frame_fits_beside_another_and_costs_memory_only_when_used() -> None:
    descriptor = memory_file()
    try:
        writer = FrameSlots(descriptor, ["a", "b"], writable=True)
        assert os.fstat(descriptor).st_size == 2 * SLOT
        assert os.fstat(descriptor).st_blocks == 0
        writer.write({"a": picture(4, 4), "b": picture(4, 4)})
        assert os.fstat(descriptor).st_blocks * 512 <= 1 << 20
        large = np.broadcast_to(np.arange(3, dtype=np.uint8), (3072, 4096, 3))
        shapes = writer.write({"a": large, "b": picture(4, 4, 3)})
        views = FrameSlots(descriptor, ["a", "b"], writable=False).read(shapes)
        np.testing.assert_array_equal(views["a"], large)
        np.testing.assert_array_equal(views["b"], picture(4, 4, 3))
    finally:
        os.close(descriptor)


def test_nobody_can_cut_the_file_under_the_other_side(both) -> None:
    writer, _ = both
    descriptor = memory_file()
    try:
        FrameSlots(descriptor, ["image"], writable=True)
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
