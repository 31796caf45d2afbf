"""Images as OpenVLA-OFT was trained with them: held against what TensorFlow makes of the same pictures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from dysl_vla_ros.policies.openvla.images import Normalisation, as_jpeg, crop_middle, prepare_picture, shrink
from openvla_pictures import KEPT, SIZES, picture, thinned

seeds = pytest.mark.parametrize("seed", SIZES)
sides = st.integers(1, 400)


@pytest.fixture(scope="module")
def tensorflow() -> dict[str, NDArray[np.uint8]]:
    with np.load(KEPT) as kept:
        return dict(kept)


def levels(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int64]:
    assert one.shape == other.shape
    return np.abs(one.astype(np.int64) - other)


@seeds
def test_a_picture_is_prepared_as_tensorflow_prepares_it_within_one_grey_level(seed: int, tensorflow: dict) -> None:
    apart = levels(thinned(prepare_picture(picture(seed))), tensorflow[f"crop_middle {seed}"])
    assert apart.max() <= 1 and apart.mean() < 1e-3


@seeds
def test_a_jpeg_of_a_picture_is_tensorflows_bit_for_bit(seed: int, tensorflow: dict) -> None:
    if f"as_jpeg {seed}" not in tensorflow:
        assert SIZES[seed] == (224, 224), "only what has the size already is not kept as a JPEG"
        return
    decoded = as_jpeg(picture(seed))
    assert not levels(thinned(decoded), tensorflow[f"as_jpeg {seed}"]).any()
    assert levels(thinned(shrink(decoded)), tensorflow[f"shrink {seed}"]).max() <= 1


def test_without_the_jpeg_a_picture_would_be_many_levels_apart(tensorflow: dict) -> None:
    assert levels(thinned(crop_middle(shrink(picture(1)))), tensorflow["crop_middle 1"]).max() > 3


@given(height=sides, width=sides, level=st.integers(0, 255))
def test_a_picture_of_one_grey_keeps_it_at_every_size(height: int, width: int, level: int) -> None:
    grey = np.full((height, width, 3), level, dtype=np.uint8)
    assert not levels(crop_middle(shrink(grey)), np.full((224, 224, 3), level, dtype=np.uint8)).any()


def test_what_is_cut_off_is_the_same_on_every_side() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 224).round().astype(np.uint8)[:, None, None], (224, 224, 3))
    kept = crop_middle(ramp)[:, 0, 0].astype(int)
    cut = 255 * (1 - 0.9**0.5) / 2
    assert abs(kept[0] - cut) <= 1 and abs(kept[-1] - (255 - cut)) <= 1
    turned = crop_middle(np.ascontiguousarray(ramp.transpose(1, 0, 2)))
    assert not levels(turned, crop_middle(ramp).transpose(1, 0, 2)).any()


def test_a_view_with_channels_reversed_is_prepared_as_its_copy() -> None:
    reversed_view = picture(5)[:, :, ::-1]
    assert not levels(prepare_picture(reversed_view), prepare_picture(reversed_view.copy())).any()


def test_lanczos_agrees_with_another_implementation_of_it() -> None:
    one = np.asarray(Image.fromarray(picture(1)).resize((224, 224), Image.Resampling.LANCZOS))
    assert levels(shrink(picture(1)), one).max() <= 1


def test_a_normalisation_takes_off_its_mean_and_divides_by_its_deviation() -> None:
    small = np.array([[[0, 51, 255]]], dtype=np.uint8)
    values = Normalisation((0.5, 0.2, 0.4), (0.5, 0.1, 0.2)).apply(small)
    assert values.shape == (3, 1, 1) and values.dtype == np.float32
    assert np.allclose(values[:, 0, 0], [-1.0, 0.0, 3.0], atol=1e-6)
