"""A stack runs what it says, is the model's own forward when nothing is skipped, and resumes to a full pass exactly."""

import dataclasses
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dysl_vla_ros.skipping.depth_rules import DyslRule, FixedPlan, FullDepth, StaticOnly
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import PER_BLOCK, LayerPartition
from dysl_vla_ros.skipping.stack import Layer, Skip, SkippableStack, StackContext
from effort import examples
from small_stacks import LAYERS, STACKS, SmallStack, partitions, random_tokens, trained_like

build = cache(lambda family: STACKS[family]())
families = pytest.mark.parametrize("family", STACKS)
laws = settings(max_examples=examples(12, 40), deadline=None)


class PlannedSkips:
    """A depth rule that skips where a plan says so, and remembers what it was asked."""

    def __init__(self, partition: LayerPartition, modules: DyslModules, plan: Sequence[int]) -> None:
        self.ends = {layer: partition.blocks[block][1] for block, layer in enumerate(plan) if layer >= 0}
        self.modules = modules
        self.asked: list[int] = []

    def skip(self, layer: int, hidden: Tensor, context: StackContext) -> Skip | None:
        self.asked.append(layer)
        if layer not in self.ends:
            return None
        return Skip(self.ends[layer], self.modules.adapted(layer, hidden, context.token_mask))


@st.composite
def plans(draw: st.DrawFn) -> tuple[LayerPartition, list[int]]:
    """Draw a partition, and for each of its blocks the layer to skip at or -1."""
    partition = draw(partitions())
    return partition, [draw(st.sampled_from([-1, *range(first, end)])) for first, end in partition.blocks]


def planned_executed(partition: LayerPartition, plan: list[int]) -> list[bool]:
    left_out = {
        layer for (_, end), at in zip(partition.blocks, plan, strict=True) if at >= 0 for layer in range(at, end)
    }
    return [layer not in left_out for layer in range(LAYERS)]


@families
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("batch", [1, 3])
def test_with_skipping_closed_the_output_is_the_models_own_bit_for_bit(family: str, seed: int, batch: int) -> None:
    small: SmallStack = build(family)
    last, normed, context, hidden = small.own_forward(*random_tokens(seed, batch))
    partition = LayerPartition(LAYERS, (0, 4, 7))
    closed = DyslRule(partition, trained_like(partition), 0.0, tuple(end for _, end in partition.blocks))
    for rule in (FullDepth(), closed):
        with torch.inference_mode():
            result = SkippableStack(small.layers).run(hidden, context, rule)
            assert torch.equal(result.hidden, last)
            assert torch.equal(small.model.norm(result.hidden), normed)
        assert result.executed == (True,) * LAYERS
        assert result.layer_calls == LAYERS
        assert result.skips == () and result.resume_point is None


def in_runs(small: SmallStack, partition: LayerPartition) -> tuple[list[Layer], list[int]]:
    """Return layers that run all behind them up to the next place where something is decided, and how many that is."""
    places = sorted({0, LAYERS, *partition.skip_points, *(end for _, end in partition.blocks)})
    ends = [next(place for place in places if place > layer) for layer in range(LAYERS)]

    def run(first: int, end: int, hidden: Tensor, context: Any) -> Tensor:
        for layer in small.layers[first:end]:
            hidden = layer(hidden, context)
        return hidden

    return [partial(run, layer, end) for layer, end in enumerate(ends)], [end - at for at, end in enumerate(ends)]


@laws
@given(drawn=plans(), per_block=st.sampled_from(PER_BLOCK), seed=st.integers(0, 1000))
def test_layers_that_are_computed_in_runs_give_what_single_ones_give(
    drawn: tuple[LayerPartition, list[int]], per_block: str, seed: int
) -> None:
    partition = dataclasses.replace(drawn[0], per_block=per_block)
    plan = [
        at if at in points else end for at, points, (_, end) in
        zip(drawn[1], partition.points, partition.blocks, strict=True)
    ]  # fmt: skip
    small: SmallStack = build(next(iter(STACKS)))
    _, _, context, hidden = small.own_forward(*random_tokens(seed, 1))
    rule = FixedPlan(partition, trained_like(partition), plan)
    single, together = SkippableStack(small.layers), SkippableStack(*in_runs(small, partition))
    with torch.inference_mode():
        one, other = single.run(hidden, context, rule), together.run(hidden, context, rule)
        assert torch.equal(one.hidden, other.hidden)
        for name in ("executed", "layer_calls", "skips"):
            assert getattr(one, name) == getattr(other, name)
        if one.resume_point and other.resume_point:
            ours, theirs = single.resume(one.resume_point, context), together.resume(other.resume_point, context)
            assert torch.equal(ours.hidden, theirs.hidden) and ours.executed == theirs.executed


@families
@laws
@given(drawn=plans(), seed=st.integers(0, 1000))
def test_what_the_result_says_was_executed_is_what_hooks_on_the_layers_saw(
    family: str, drawn: tuple[LayerPartition, list[int]], seed: int
) -> None:
    (partition, plan), small = drawn, build(family)
    _, _, context, hidden = small.own_forward(*random_tokens(seed))
    with torch.inference_mode():
        result = SkippableStack(small.layers).run(
            hidden, context, PlannedSkips(partition, trained_like(partition), plan)
        )
    assert list(result.executed) == planned_executed(partition, plan)
    assert small.calls == [layer for layer in range(LAYERS) if result.executed[layer]]
    assert result.layer_calls == len(small.calls)
    pairs = zip(plan, partition.blocks, strict=True)
    assert result.skips == tuple((at, end) for at, (_, end) in pairs if at >= 0)


@families
@laws
@given(drawn=plans(), seed=st.integers(0, 1000))
def test_a_resumed_pass_equals_a_full_pass_bit_for_bit(
    family: str, drawn: tuple[LayerPartition, list[int]], seed: int
) -> None:
    (partition, plan), small = drawn, build(family)
    last, _, context, hidden = small.own_forward(*random_tokens(seed))
    stack = SkippableStack(small.layers)
    with torch.inference_mode():
        first = stack.run(hidden, context, PlannedSkips(partition, trained_like(partition), plan))
        if first.resume_point is None:
            assert all(at < 0 for at in plan)
            assert torch.equal(first.hidden, last)
            return
        skipped_at = min(at for at in plan if at >= 0)
        assert first.resume_point.layer == skipped_at
        small.calls.clear()
        second = stack.resume(first.resume_point, context)
    assert torch.equal(second.hidden, last)
    assert small.calls == list(range(skipped_at, LAYERS))
    assert second.layer_calls == len(small.calls)
    assert second.executed == (True,) * LAYERS
    assert second.resume_point is None


@families
@laws
@given(drawn=plans(), seed=st.integers(0, 1000))
def test_hidden_states_are_never_changed_in_place(
    family: str, drawn: tuple[LayerPartition, list[int]], seed: int
) -> None:
    (partition, plan), small = drawn, build(family)
    _, _, context, hidden = small.own_forward(*random_tokens(seed))
    seen: list[tuple[Tensor, Tensor]] = [(hidden, hidden.clone())]

    def watched(layer):
        def run(hidden: Tensor, context: StackContext) -> Tensor:
            seen.append((hidden, hidden.clone()))
            return layer(hidden, context)

        return run

    stack = SkippableStack([watched(layer) for layer in small.layers])
    with torch.inference_mode():
        first = stack.run(hidden, context, PlannedSkips(partition, trained_like(partition), plan))
        if first.resume_point is not None:
            seen.append((first.resume_point.hidden, first.resume_point.hidden.clone()))
            stack.resume(first.resume_point, context)
    assert all(torch.equal(tensor, copy) for tensor, copy in seen)


@families
def test_a_second_run_after_a_skipped_one_is_unaffected_by_it(family: str) -> None:
    small = build(family)
    last, _, context, hidden = small.own_forward(*random_tokens(5))
    partition = LayerPartition(LAYERS, (0, 7))
    stack = SkippableStack(small.layers)
    with torch.inference_mode():
        floor = stack.run(hidden, context, StaticOnly(partition, trained_like(partition)))
        assert not torch.equal(floor.hidden, last)
        assert torch.equal(stack.run(hidden, context, FullDepth()).hidden, last)


@laws
@given(drawn=plans())
def test_a_rule_is_asked_once_before_every_layer_that_is_reached(drawn: tuple[LayerPartition, list[int]]) -> None:
    (partition, plan), small = drawn, build(next(iter(STACKS)))
    _, _, context, hidden = small.own_forward(*random_tokens(0))
    rule = PlannedSkips(partition, trained_like(partition), plan)
    with torch.inference_mode():
        SkippableStack(small.layers).run(hidden, context, rule)
    executed = planned_executed(partition, plan)
    assert rule.asked == [layer for layer in range(LAYERS) if executed[layer] or layer in plan]


class _SkipTo:
    def __init__(self, at: int, to: int) -> None:
        self.at, self.to = at, to

    def skip(self, layer: int, hidden: Tensor, context: StackContext) -> Skip | None:
        return Skip(self.to, hidden) if layer == self.at else None


def test_a_rule_may_leave_out_everything_to_the_end() -> None:
    small = build(next(iter(STACKS)))
    last, _, context, hidden = small.own_forward(*random_tokens(0))
    stack = SkippableStack(small.layers)
    with torch.inference_mode():
        result = stack.run(hidden, context, _SkipTo(5, LAYERS))
        assert result.executed == (True,) * 5 + (False,) * 3
        assert torch.equal(stack.resume(result.resume_point, context).hidden, last)


@pytest.mark.parametrize("to", [0, 3, LAYERS + 1])
def test_a_rule_that_goes_back_or_past_the_end_is_our_own_mistake(to: int) -> None:
    small = build(next(iter(STACKS)))
    _, _, context, hidden = small.own_forward(*random_tokens(0))
    with torch.inference_mode(), pytest.raises(AssertionError, match=f"from layer 3 to {to}"):
        SkippableStack(small.layers).run(hidden, context, _SkipTo(3, to))
