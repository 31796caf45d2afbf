"""Static layers: those that change the hidden state most, or evenly spread ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.skipping.importance import CosineSimilarity, informative_static, spread_static, static_count
from dysl_vla_ros.skipping.partition import LayerPartition


def test_similarity_is_the_mean_over_all_tokens_of_all_batches() -> None:
    similarity = CosineSimilarity(2)
    along, across, against = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]), torch.tensor([-3.0, 0.0])
    similarity.update(0, torch.stack([along, along])[None], torch.stack([along, across])[None], None)  # 1, 0
    similarity.update(0, along[None, None], against[None, None], None)  # -1
    similarity.update(1, along[None, None], along[None, None], None)
    np.testing.assert_allclose(similarity.mean(), [0.0, 1.0], atol=1e-12)


def test_padding_tokens_do_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    before, after = torch.randn(2, 2, 5, 4, generator=generator)
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    masked, alone = CosineSimilarity(1), CosineSimilarity(1)
    masked.update(0, before, after, mask)
    alone.update(0, before[:1, :3], after[:1, :3], None)
    alone.update(0, before[1:], after[1:], None)
    np.testing.assert_allclose(masked.mean(), alone.mean(), rtol=1e-12)


def test_a_layer_that_was_never_seen_has_no_mean() -> None:
    similarity = CosineSimilarity(2)
    similarity.update(0, torch.ones(1, 1, 2), torch.ones(1, 1, 2), None)
    assert np.isnan(similarity.mean()).tolist() == [False, True]


def test_informative_layers_are_the_ends_and_those_of_lowest_similarity() -> None:
    similarity = np.array([0.99, 0.9, 0.5, 0.95, 0.7, 0.99, 0.99, 0.98, 0.99, 0.99])
    assert informative_static(similarity, 4) == (0, 2, 4, 9)


def test_equal_similarities_go_by_the_lower_index() -> None:
    assert informative_static(np.full(10, 0.9), 4) == (0, 1, 2, 9)


@pytest.mark.parametrize(
    ("num_layers", "count", "expected"),
    [
        (16, 4, (0, 5, 10, 15)),
        (24, 5, (0, 6, 12, 17, 23)),
        (24, 2, (0, 23)),
        (24, 3, (0, 12, 23)),
        (7, 7, tuple(range(7))),
        (1, 1, (0,)),
    ],
)
def test_spread_layers_are_evenly_spaced_from_first_to_last(
    num_layers: int, count: int, expected: tuple[int, ...]
) -> None:
    assert spread_static(num_layers, count) == expected


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.data())
def test_either_choice_gives_a_valid_partition_of_the_wanted_size(num_layers: int, data: st.DataObject) -> None:
    similarity = np.random.default_rng(data.draw(st.integers(0, 1000))).uniform(-1, 1, num_layers)
    count = data.draw(st.integers(min(2, num_layers), num_layers))
    for static in (spread_static(num_layers, count), informative_static(similarity, count)):
        LayerPartition(num_layers, static)
        assert len(static) == count


def test_two_static_layers_leave_one_block_of_all_others() -> None:
    similarity = np.linspace(0.5, 0.99, 24)
    for static in (spread_static(24, 2), informative_static(similarity, 2)):
        assert LayerPartition(24, static).blocks == ((1, 23),)


@pytest.mark.parametrize("count", [-1, 0, 1, 25])
def test_a_count_that_leaves_out_an_end_or_is_too_large_is_refused(count: int) -> None:
    for choose in (lambda: spread_static(24, count), lambda: informative_static(np.full(24, 0.9), count)):
        with pytest.raises(SettingError, match=f"static layers must be 2 to 24 of 24 .* not {count}"):
            choose()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.floats(0.01, 1.0))
def test_a_ratio_is_rounded_up_to_a_count_that_holds_both_ends(num_layers: int, ratio: float) -> None:
    assert static_count(num_layers, ratio) == max(min(2, num_layers), int(np.ceil(ratio * num_layers - 1e-9)))


def test_the_count_is_rounded_up_but_not_by_a_rounding_error() -> None:
    assert static_count(24, 0.2) == 5
    assert static_count(100, 0.07) == 7  # 0.07 * 100 is 7.000000000000001


@pytest.mark.parametrize("ratio", [0.0, -0.2, 1.01, float("nan")])
def test_a_ratio_out_of_range_is_refused(ratio: float) -> None:
    with pytest.raises(SettingError, match="static ratio must be above 0 and at most 1"):
        static_count(24, ratio)
