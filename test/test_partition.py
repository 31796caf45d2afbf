"""A partition never loses or doubles a layer, and what is none is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.skipping.partition import LayerPartition
from small_stacks import partitions


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30).flatmap(partitions))
def test_static_layers_and_blocks_hold_every_layer_once(partition: LayerPartition) -> None:
    in_blocks = [layer for first, end in partition.blocks for layer in range(first, end)]
    assert sorted(in_blocks + list(partition.static)) == list(range(partition.num_layers))
    assert tuple(in_blocks) == partition.dynamic


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30).flatmap(partitions))
def test_a_block_lies_between_two_neighbouring_static_layers(partition: LayerPartition) -> None:
    for first, end in partition.blocks:
        assert first < end
        assert first - 1 in partition.static and end in partition.static


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30).flatmap(partitions))
def test_block_of_finds_each_layer_where_blocks_have_it(partition: LayerPartition) -> None:
    for layer in range(partition.num_layers):
        block = partition.block_of(layer)
        if layer in partition.static:
            assert block is None
        else:
            assert block is not None
            first, end = partition.blocks[block]
            assert first <= layer < end


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30).flatmap(partitions))
def test_with_one_adapter_a_block_it_can_be_left_at_its_first_layer_alone(partition: LayerPartition) -> None:
    first_only = LayerPartition(partition.num_layers, partition.static, "first")
    assert partition.skip_points == partition.dynamic
    assert first_only.skip_points == tuple(first for first, _ in partition.blocks)
    assert (first_only.blocks, first_only.dynamic) == (partition.blocks, partition.dynamic)
    for layer in range(partition.num_layers):
        assert partition.block_at(layer) == partition.block_of(layer)
        assert first_only.block_at(layer) == (partition.block_of(layer) if layer in first_only.skip_points else None)


def test_neighbouring_static_layers_form_no_block() -> None:
    assert LayerPartition(8, (0, 1, 4, 5, 7)).blocks == ((2, 4), (6, 7))


@pytest.mark.parametrize("num_layers", [1, 2, 9])
def test_a_full_partition_has_no_dynamic_layer(num_layers: int) -> None:
    partition = LayerPartition.full(num_layers)
    assert partition.static == tuple(range(num_layers))
    assert partition.blocks == partition.dynamic == ()


@pytest.mark.parametrize(
    ("num_layers", "static", "reason"),
    [
        (6, (0, 3, 2, 5), "must rise"),
        (6, (0, 3, 3, 5), "none may come twice"),
        (6, (1, 3, 5), r"first and last layer must be static, \[0\] is missing"),
        (6, (0, 3), r"\[5\] is missing"),
        (6, (), r"\[0, 5\] is missing"),
        (6, (0, 5, 6), r"layers \[6\] are not among 0 to 5"),
        (6, (-1, 0, 5), r"layers \[-1\]"),
        (0, (), "at least 1 layer"),
    ],
)
def test_what_is_no_partition_is_refused_with_the_reason(num_layers: int, static: tuple[int, ...], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        LayerPartition(num_layers, static)


def test_adapters_per_block_are_all_or_first() -> None:
    with pytest.raises(CheckpointError, match="adapters per block are all or first, not 'two'"):
        LayerPartition(6, (0, 5), "two")


def test_all_faults_of_a_partition_are_named_at_once() -> None:
    with pytest.raises(CheckpointError, match=r"static layers \[9, 2\] of 6: .*rise.*\[9\].*\[0, 5\]"):
        LayerPartition(6, (9, 2))
