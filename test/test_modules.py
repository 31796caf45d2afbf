"""Adapters and controllers: an identity at the start, blind to padding, the same in a batch as alone."""

import copy
import math
from functools import partial

import pytest
import torch
from torch.nn import functional

from dysl_vla_ros.distillation.settings import fitting_sizes
from dysl_vla_ros.skipping.importance import spread_static, static_count
from dysl_vla_ros.skipping.modules import NORM_EPSILON, BlockPool, DyslModules, SkipAdapter
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.streams import Stream
from small_stacks import LAYERS, PADDING, STREAMS, TOKENS, WIDTH, controller_logit, random_tokens, trained_like

PARTITION = LayerPartition(LAYERS, (0, 3, 7))
REAL = TOKENS - PADDING


def test_untrained_adapters_are_the_identity() -> None:
    modules = DyslModules(PARTITION, STREAMS)
    hidden, mask = random_tokens(0)
    for layer in PARTITION.dynamic:
        assert torch.equal(modules.adapted(layer, hidden, mask), hidden)


def test_untrained_controllers_do_not_exceed_one_half() -> None:
    modules = DyslModules(PARTITION, STREAMS)
    hidden, mask = random_tokens(0)
    for layer in PARTITION.dynamic:
        assert torch.sigmoid(controller_logit(modules, layer, hidden, mask)).tolist() == [0.5]


def test_there_is_one_adapter_and_one_controller_for_every_dynamic_layer_and_one_pool_a_block() -> None:
    modules = DyslModules(PARTITION, STREAMS)
    names = {str(layer) for layer in PARTITION.dynamic}
    assert set(modules.adapters) == set(modules.controllers) == names
    assert set(modules.pools) == {"0", "1"}


@pytest.mark.parametrize("queries", [4, 0])
def test_one_adapter_a_block_has_modules_at_the_first_layers_alone(queries: int) -> None:
    modules = DyslModules(LayerPartition(LAYERS, (0, 3, 7), "first"), STREAMS, queries=queries)
    assert set(modules.adapters) == set(modules.controllers) == {"1", "4"}
    assert set(modules.pools) == {"0", "1"}
    everywhere = DyslModules(PARTITION, STREAMS, queries=queries)
    own, its = modules.state_dict(), everywhere.state_dict()
    assert {name: value.shape for name, value in own.items()} == {name: its[name].shape for name in own}


def test_a_pool_is_stored_once_and_shared_by_its_block() -> None:
    modules = trained_like(PARTITION)
    hidden, mask = random_tokens(0)
    before = {layer: modules.adapted(layer, hidden, mask) for layer in PARTITION.dynamic}
    storages = [tensor.data_ptr() for tensor in modules.state_dict().values()]
    assert len(set(storages)) == len(storages)
    modules.pools["0"].mix.bias += 1.0
    after = {layer: modules.adapted(layer, hidden, mask) for layer in PARTITION.dynamic}
    assert [layer for layer in PARTITION.dynamic if not torch.equal(before[layer], after[layer])] == [1, 2]


def test_a_copy_of_the_modules_shares_its_own_pools() -> None:
    modules = trained_like(PARTITION)
    copied = copy.deepcopy(modules)
    copied.pools["0"].mix.bias += 1.0
    hidden, mask = random_tokens(0)
    assert not torch.equal(copied.adapted(1, hidden, mask), modules.adapted(1, hidden, mask))


@pytest.mark.parametrize("content", [7.0, 1e30, float("inf"), float("nan")])
@pytest.mark.parametrize("queries", [4, 0])
def test_what_stands_in_padding_tokens_changes_nothing_that_is_real(content: float, queries: int) -> None:
    modules = trained_like(PARTITION, queries=queries)
    hidden, mask = random_tokens(1)
    other = hidden.clone()
    other[:, REAL:] = content
    for layer in PARTITION.dynamic:
        ours, others = (modules.adapted(layer, state, mask)[:, :REAL] for state in (hidden, other))
        assert torch.equal(ours, others)
        assert torch.equal(
            controller_logit(modules, layer, hidden, mask), controller_logit(modules, layer, other, mask)
        )


def test_padding_tokens_are_as_good_as_absent() -> None:
    modules = trained_like(PARTITION)
    hidden, mask = random_tokens(1)
    torch.testing.assert_close(modules.adapted(1, hidden, mask)[:, :REAL], modules.adapted(1, hidden[:, :REAL], None))
    torch.testing.assert_close(
        controller_logit(modules, 1, hidden, mask), controller_logit(modules, 1, hidden[:, :REAL], None)
    )


def test_a_batch_gives_each_sample_what_it_gets_alone() -> None:
    modules = trained_like(PARTITION)
    hidden, mask = random_tokens(2, batch=5)
    mask[2, 4:] = False  # another number of real tokens
    for call in (modules.adapted, partial(controller_logit, modules)):
        alone = torch.cat([call(4, hidden[i : i + 1], mask[i : i + 1]) for i in range(5)])
        torch.testing.assert_close(call(4, hidden, mask), alone)


def test_the_pool_lets_tokens_mix() -> None:
    hidden, _ = random_tokens(3)
    moved = hidden.clone()
    moved[:, 0] += 1.0
    for queries, mixes in ((4, True), (0, False)):
        modules = trained_like(PARTITION, queries=queries)
        before, after = (modules.adapted(1, state, None)[:, 1:] for state in (hidden, moved))
        assert torch.equal(before, after) is not mixes


def test_the_offset_is_added_to_the_logit_and_kept_with_the_weights() -> None:
    modules = trained_like(PARTITION)
    hidden, mask = random_tokens(0)
    controller = modules.controller(1)
    summary = modules.summary(1, hidden, mask)
    raw = controller(summary)
    controller.offset.fill_(1.5)
    torch.testing.assert_close(controller(summary), raw + 1.5)
    assert controller.probability(summary) == pytest.approx(torch.sigmoid(raw + 1.5).item(), abs=1e-6)
    assert "controllers.1.offset" in modules.state_dict()
    assert all(controller.offset is not parameter for parameter in modules.parameters())


@pytest.mark.parametrize("logit", [-math.inf, -1e6, -3.0, 0.0, 40.0, 1e6, math.inf, math.nan])
def test_a_probability_is_that_of_any_logit_however_large(logit: float) -> None:
    modules = trained_like(PARTITION)
    controller = modules.controller(1)
    summary = modules.summary(1, *random_tokens(0))
    controller.outer.weight.zero_()
    controller.outer.bias.fill_(logit)
    wanted = torch.sigmoid(torch.tensor(logit, dtype=torch.float64)).item()
    assert controller.probability(summary) == pytest.approx(wanted, rel=1e-6, nan_ok=True)


def test_a_summary_is_of_tokens_scaled_to_a_mean_square_of_one() -> None:
    hidden, mask = random_tokens(0)
    tokens = trained_like(PARTITION).summary(1, hidden * 50.0, mask).tokens
    wanted = functional.rms_norm(hidden * 50.0, (hidden.shape[-1],), eps=NORM_EPSILON)
    torch.testing.assert_close(tokens, torch.where(mask[:, :, None], wanted, 0.0))


def test_every_parameter_learns_once_the_last_layers_have_left_zero() -> None:
    modules = trained_like(PARTITION).requires_grad_(True)
    hidden, mask = random_tokens(0, batch=2)
    loss = sum(modules.adapted(j, hidden, mask)[mask].square().mean() for j in PARTITION.dynamic)
    loss = loss + sum(controller_logit(modules, j, hidden, mask).sum() for j in PARTITION.dynamic)
    loss.backward()
    assert [name for name, p in modules.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_inputs_are_not_changed_in_place() -> None:
    modules = trained_like(PARTITION)
    hidden, mask = random_tokens(0)
    kept = hidden.clone()
    modules.adapted(1, hidden, mask)
    controller_logit(modules, 1, hidden, mask)
    assert torch.equal(hidden, kept)


def test_an_adapter_works_without_modules_around_it() -> None:
    adapter = SkipAdapter(WIDTH, 8)
    hidden, _ = random_tokens(0)
    assert adapter(hidden, BlockPool(WIDTH, 2)(hidden)).shape == hidden.shape


def test_without_queries_the_summary_is_the_mean_of_the_real_tokens() -> None:
    pool = BlockPool(WIDTH, 0)
    assert list(pool.parameters()) == []
    hidden, mask = random_tokens(0)
    summary = pool(hidden, mask)
    torch.testing.assert_close(summary.vector, summary.tokens[:, :REAL].mean(dim=1))
    torch.testing.assert_close(summary.tokens[:, :REAL].square().mean(dim=-1), torch.ones(len(hidden), REAL))


@pytest.mark.parametrize(("per_block", "most"), [("first", 14e6), ("all", 30e6)])
def test_at_the_shapes_of_openvla_oft_no_more_is_trained_than_the_paper_trains(per_block: str, most: float) -> None:
    partition = LayerPartition(32, spread_static(32, static_count(32, 0.2)), per_block)
    with torch.device("meta"):
        modules = DyslModules(partition, (Stream("stack", 4096),), **fitting_sizes(4096, per_block))
    count = sum(parameter.numel() for parameter in modules.parameters())
    assert 0.5 * most < count <= most


def test_a_pool_of_low_rank_sums_up_like_a_full_one() -> None:
    modules = DyslModules(PARTITION, STREAMS, rank=3)
    hidden, mask = random_tokens(1)
    summary = modules.summary(1, hidden, mask)
    assert summary.vector.shape == (1, WIDTH) and summary.tokens.shape == hidden.shape
    spoilt = hidden.clone()
    spoilt[:, TOKENS - PADDING :] = float("nan")
    assert torch.equal(modules.summary(1, spoilt, mask).vector, summary.vector)
