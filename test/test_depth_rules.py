"""Every depth rule runs the static layers and closes what it skips; each one's own law besides."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dysl_vla_ros.skipping.depth_rules import DyslRule, FixedPlan, FullDepth, Oracle, RandomSkipping, StaticOnly
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import DepthRule, SkippableStack, StackResult
from small_stacks import LAYERS, STACKS, partitions, random_tokens, trained_like

PARTITION = LayerPartition(LAYERS, (0, 4, 7))  # blocks (1, 4) and (5, 7)
FIRST_ONLY = LayerPartition(LAYERS, (0, 4, 7), "first")
OPEN = (1, 5)
small = cache(STACKS["llama"])


def firsts(partition: LayerPartition) -> tuple[int, ...]:
    return tuple(first for first, _ in partition.blocks)


def middles(partition: LayerPartition) -> tuple[int, ...]:
    return tuple((first + end) // 2 for first, end in partition.blocks)


def oracle(partition: LayerPartition, modules: DyslModules, threshold: float) -> Oracle:
    def apart(floor: StackResult, full: StackResult, context: object) -> float:
        return float((floor.hidden - full.hidden).abs().mean())

    return Oracle(partition, modules, small().layers, apart, threshold)


RULES: dict[str, Callable[[LayerPartition, DyslModules, int], DepthRule]] = {
    "full": lambda partition, modules, seed: FullDepth(),
    "static": lambda partition, modules, seed: StaticOnly(partition, modules),
    "random": lambda partition, modules, seed: RandomSkipping(partition, modules, 0.4, np.random.default_rng(seed)),
    "dysl": lambda partition, modules, seed: DyslRule(partition, modules, 0.5, firsts(partition)),
    "fixed": lambda partition, modules, seed: FixedPlan(partition, modules, middles(partition)),
    "oracle": lambda partition, modules, seed: oracle(partition, modules, 0.5),
}


def run(rule: DepthRule, seed: int = 0) -> StackResult:
    _, _, context, hidden = small().own_forward(*random_tokens(seed))
    with torch.inference_mode():
        return SkippableStack(small().layers).run(hidden, context, rule)


def deciding(partition: LayerPartition, logits: dict[int, float]) -> DyslModules:
    """Return modules whose controllers say the given logits, whatever they see; -9 where none is given."""
    modules = trained_like(partition)
    for layer in partition.skip_points:
        controller = modules.controller(layer)
        controller.outer.weight.zero_()
        controller.outer.bias.zero_()
        controller.offset.fill_(logits.get(layer, -9.0))
    return modules


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=30, deadline=None)
@given(partition=partitions(), seed=st.integers(0, 1000))
def test_every_rule_runs_the_static_layers_and_skips_to_the_end_of_a_block(
    name: str, partition: LayerPartition, seed: int
) -> None:
    result = run(RULES[name](partition, trained_like(partition, seed=seed), seed), seed)
    assert all(result.executed[layer] for layer in partition.static)
    for first, end in partition.blocks:
        flags = result.executed[first:end]
        assert flags == tuple(sorted(flags, reverse=True)), "a layer ran after its block was left"
    assert torch.isfinite(result.hidden).all()


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_deterministic(name: str) -> None:
    one, two = (run(RULES[name](PARTITION, trained_like(PARTITION), 7)) for _ in range(2))
    assert one.executed == two.executed
    assert torch.equal(one.hidden, two.hidden)


def test_without_dynamic_layers_every_rule_is_the_full_model() -> None:
    partition = LayerPartition.full(LAYERS)
    full = run(FullDepth()).hidden
    for make in RULES.values():
        assert torch.equal(run(make(partition, trained_like(partition), 0)).hidden, full)


def test_static_only_runs_the_static_layers_alone() -> None:
    result = run(StaticOnly(PARTITION, trained_like(PARTITION)))
    assert result.executed == tuple(layer in PARTITION.static for layer in range(LAYERS))


def test_a_fixed_plan_skips_at_its_positions_and_nowhere_else() -> None:
    modules = trained_like(PARTITION)
    assert run(FixedPlan(PARTITION, modules, (2, 7))).skips == ((2, 4),)
    floor, full = run(FixedPlan(PARTITION, modules, (1, 5))), run(FixedPlan(PARTITION, modules, (4, 7)))
    assert torch.equal(floor.hidden, run(StaticOnly(PARTITION, modules)).hidden)
    assert torch.equal(full.hidden, run(FullDepth()).hidden)
    with pytest.raises(AssertionError, match="no place in the block"):
        FixedPlan(PARTITION, modules, (0, 5))


def test_the_oracle_runs_the_floor_or_everything_and_counts_no_look() -> None:
    modules = trained_like(PARTITION)
    floor, full = run(StaticOnly(PARTITION, modules)), run(FullDepth())
    apart = float((floor.hidden - full.hidden).abs().mean())
    for threshold, wanted in ((apart, floor), (apart * 0.999, full)):
        result = run(oracle(PARTITION, modules, threshold))
        assert result.executed == wanted.executed
        assert result.layer_calls == wanted.layer_calls
        assert torch.equal(result.hidden, wanted.hidden)


@pytest.mark.parametrize(("probability", "calls"), [(0.0, LAYERS), (1.0, 3)])
def test_chance_of_none_and_of_one_are_the_two_extremes(probability: float, calls: int) -> None:
    rule = RandomSkipping(PARTITION, trained_like(PARTITION), probability, np.random.default_rng(0))
    assert run(rule).layer_calls == calls


def test_chance_takes_every_place_of_a_block() -> None:
    generator = np.random.default_rng(0)
    modules = trained_like(PARTITION)
    skipped_at = {
        at for _ in range(60) for at, _ in run(RandomSkipping(PARTITION, modules, 0.4, generator)).skips
    }  # fmt: skip
    assert skipped_at == set(PARTITION.dynamic)


def test_dysl_skips_at_the_first_controller_that_exceeds_the_threshold() -> None:
    modules = deciding(PARTITION, {1: -1.0, 2: 0.1, 3: 5.0, 5: -0.1, 6: -0.2})
    rule = DyslRule(PARTITION, modules, 0.5, OPEN)
    result = run(rule)
    assert result.skips == ((2, 4),)
    assert rule.skip_points == [2, -1]
    assert rule.controller_outputs == pytest.approx([1 / (1 + math.exp(-0.1)), 1 / (1 + math.exp(0.1))])


def test_the_adapter_of_the_skipped_layer_stands_in_for_the_rest_of_the_block() -> None:
    modules = deciding(PARTITION, {2: 3.0})
    result = run(DyslRule(PARTITION, modules, 0.5, OPEN))
    _, _, context, hidden = small().own_forward(*random_tokens(0))
    layers = small().layers
    with torch.inference_mode():
        for layer in (0, 1):
            hidden = layers[layer](hidden, context)
        hidden = modules.adapted(2, hidden, context.token_mask)
        for layer in (4, 5, 6, 7):
            hidden = layers[layer](hidden, context)
    assert torch.equal(result.hidden, hidden)


def test_a_probability_equal_to_the_threshold_does_not_skip() -> None:
    assert run(DyslRule(PARTITION, deciding(PARTITION, {1: 0.0}), 0.5, OPEN)).skips == ()


def test_a_threshold_of_one_skips_nothing_and_of_zero_everything() -> None:
    modules = deciding(PARTITION, {1: 50.0, 5: -20.0})
    assert run(DyslRule(PARTITION, modules, 1.0, OPEN)).layer_calls == LAYERS
    assert run(DyslRule(PARTITION, modules, 0.0, OPEN)).layer_calls == 3


@pytest.mark.parametrize("points", [(1, 5), (2, 6), (3, 7), (4, 5), (4, 7)])
def test_controllers_before_the_allow_point_are_not_even_evaluated(points: tuple[int, int]) -> None:
    modules = deciding(PARTITION, {})
    evaluated: list[int] = []
    hooks = [
        modules.controller(layer).register_forward_hook(lambda *_, layer=layer: evaluated.append(layer))
        for layer in PARTITION.dynamic
    ]
    rule = DyslRule(PARTITION, modules, 0.5, points)
    run(rule)
    for hook in hooks:
        hook.remove()
    assert evaluated == [*range(points[0], 4), *range(points[1], 7)]
    for output, point, (_, end) in zip(rule.controller_outputs, points, PARTITION.blocks, strict=True):
        assert math.isnan(output) is (point == end)


def test_an_allow_point_moves_the_skip_of_an_eager_controller() -> None:
    modules = deciding(PARTITION, {layer: 9.0 for layer in PARTITION.dynamic})
    for points, skips in (((1, 5), ((1, 4), (5, 7))), ((3, 7), ((3, 4),)), ((4, 7), ())):
        assert run(DyslRule(PARTITION, modules, 0.5, points)).skips == skips


@pytest.mark.parametrize(
    ("points", "skips"), [((1, 5), ((1, 4), (5, 7))), ((2, 5), ((5, 7),)), ((3, 6), ()), ((4, 7), ())]
)
def test_with_one_adapter_a_block_it_is_left_at_its_first_layer_or_not_at_all(
    points: tuple[int, int], skips: tuple[tuple[int, int], ...]
) -> None:
    modules = deciding(FIRST_ONLY, {1: 9.0, 5: 9.0})
    assert run(DyslRule(FIRST_ONLY, modules, 0.5, points)).skips == skips


def test_with_one_adapter_a_block_chance_and_the_floor_take_the_first_layers_alone() -> None:
    modules, generator = trained_like(FIRST_ONLY), np.random.default_rng(0)
    skips = {at for _ in range(40) for at, _ in run(RandomSkipping(FIRST_ONLY, modules, 0.5, generator)).skips}
    assert skips == {1, 5}
    assert run(StaticOnly(FIRST_ONLY, modules)).layer_calls == 3


def test_a_controller_that_says_nan_does_not_skip() -> None:
    rule = DyslRule(PARTITION, deciding(PARTITION, {1: math.nan}), 0.5, OPEN)
    assert run(rule).skips == ()


def test_a_batch_cannot_be_decided_together() -> None:
    _, _, context, hidden = small().own_forward(*random_tokens(0, batch=2))
    rule = DyslRule(PARTITION, trained_like(PARTITION), 0.5, OPEN)
    with torch.inference_mode(), pytest.raises(AssertionError, match="batch of 2"):
        SkippableStack(small().layers).run(hidden, context, rule)
