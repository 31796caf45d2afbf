"""Forward passes for training: in batches, one skip position a block for the whole batch.

They begin with what enters the first dynamic layer (see :func:`start_layer`): nothing before it is trained, and all of
that is remembered. How a frozen layer runs (:data:`LayerRun`) is for whoever trains to say.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dysl_vla_ros.engines.torch.devices import quick_on_cpu
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.skipping.modules import DyslModules, Summary
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import StackContext, StackResult, full_result

Positions = Sequence[int]
"""Per block: the dynamic layer from which the rest is skipped; the block's end: nothing is."""
LayerRun = Callable[[VlaPolicy, int, Tensor, Any], Tensor]
"""(policy, layer, hidden (B, T, D) float32, context) -> hidden (B, T, D) float32: runs a frozen layer."""


def sample_positions(partition: LayerPartition, random: np.random.Generator, floor_share: float = 0.5) -> Positions:
    """Draw a position a block: with ``floor_share`` its first layer (the floor), else any skip point or the end.

    At least one block is skipped: there would be nothing to learn otherwise.
    """
    while True:
        positions = [
            first if random.random() < floor_share else _any_of(places, random)
            for places, first in zip(partition.places, partition.floor, strict=True)
        ]
        if any(position < end for position, (_, end) in zip(positions, partition.blocks, strict=True)):
            return positions


def _any_of(places: Sequence[int], random: np.random.Generator) -> int:
    return places[int(random.integers(len(places)))]


def start_layer(partition: LayerPartition, policy: VlaPolicy) -> int:
    """Return the layer with whose input every pass here begins: the first dynamic one; with followers, 0.

    They look at what every layer leaves behind, also at what the static ones in front do.
    """
    return 0 if len(policy.streams) > 1 else partition.blocks[0][0]


def inputs_of(policy: VlaPolicy, *partitions: LayerPartition) -> tuple[int, ...]:
    """Return the layers whose inputs training modules of these partitions needs, rising."""
    needed = {layer for partition in partitions for layer in partition.skip_points}
    needed |= {start_layer(partition, policy) for partition in partitions}
    return tuple(sorted(needed | {end for partition in partitions for _, end in partition.blocks}))


def require_mixture(policy: VlaPolicy) -> None:
    """Refuse controllers that learn by the soft mixture where a stream follows a plan.

    Raises:
        DataError: one does.
    """
    if len(policy.streams) > 1:
        raise DataError(
            f"controllers cannot learn by the mixture with the {policy.family} policy: its "
            f"{policy.streams[1].name} follows a plan, and a mixture is none; leave --controllers at error"
        )


def quick_layer(policy: VlaPolicy, index: int, hidden: Tensor, context: Any) -> Tensor:
    """Run a frozen layer in whatever is quick on this machine: a :data:`LayerRun`."""
    with _quick(policy):
        hidden = policy.layers[index](hidden.to(policy.dtype), context)
    return hidden.float()


def plain_layer(policy: VlaPolicy, index: int, hidden: Tensor, context: Any) -> Tensor:
    """Run a frozen layer in the policy's own numbers: a :data:`LayerRun`."""
    return policy.layers[index](hidden.to(policy.dtype), context).float()


def hard_pass(
    policy: VlaPolicy,
    partition: LayerPartition,
    modules: DyslModules,
    hidden: Tensor,
    context: StackContext,
    positions: Positions,
    state: Any = None,
    **more: Any,
) -> tuple[Tensor, list[Summary | None]]:
    """Run the stack as it is deployed: adapters in place of skipped layers.

    Args:
        hidden: (B, T, D) that enters :func:`start_layer`.
        positions: see :data:`Positions`.
        state: of decoding, before these frames; None: that of an episode's beginning.
        more: ``start`` and ``run``, see :func:`hard_stack`; ``noise`` of decoding, None: the same for all.

    Returns:
        Normalised actions (B, H, A), and for each block the summary at its position, None at its end.
    """
    noise = more.pop("noise", None)
    result, seen = hard_stack(policy, partition, modules, hidden, context, positions, **more)
    return decoded(policy, modules, result, context, state, noise), seen


def hard_stack(
    policy: VlaPolicy,
    partition: LayerPartition,
    modules: DyslModules,
    hidden: Tensor,
    context: StackContext,
    positions: Positions,
    *,
    start: int | None = None,
    run: LayerRun = quick_layer,
) -> tuple[StackResult, list[Summary | None]]:
    """Run the layers of :func:`hard_pass`, without decoding.

    Args:
        start: the layer that ``hidden`` enters; the context has what those before it leave. None: ``start_layer``.
        run: how a frozen layer runs.
    """
    ends = dict(zip(positions, partition.blocks, strict=False))
    seen: list[Summary | None] = [None] * len(partition.blocks)
    index = start_layer(partition, policy) if start is None else start
    executed, skips = [True] * partition.num_layers, []
    while index < partition.num_layers:
        block = partition.block_of(index)
        if block is not None and positions[block] == index:
            seen[block] = summary = modules.summary(index, hidden, context.token_mask)
            hidden = modules.adapter(index)(hidden, summary)
            end = ends[index][1]
            executed[index:end] = [False] * (end - index)
            skips.append((index, end))
            index = end
            continue
        hidden = run(policy, index, hidden, context)
        index += 1
    return StackResult(hidden, tuple(executed), sum(executed), tuple(skips), None), seen


def soft_pass(
    policy: VlaPolicy,
    partition: LayerPartition,
    modules: DyslModules,
    hidden: Tensor,
    context: StackContext,
    positions: Positions,
    logit: float = 0.0,
    state: Any = None,
    *,
    start: int | None = None,
    run: LayerRun = quick_layer,
    noise: Any = None,
) -> tuple[Tensor, list[Tensor]]:
    """Run every layer and mix each block's output with its adapter's by the controller's probability (paper, stage 2).

    ``logit`` is taken from what controllers say: at 0.0 the probability is their own. Followers run every layer: a
    mixture is no plan that they could repeat. Other arguments as of :func:`hard_pass`.

    Returns:
        Normalised actions (B, H, A), and for each block the skip probability (B,) at its position.
    """
    probabilities: list[Tensor] = []
    shortcut: tuple[int, Tensor, Tensor] | None = None
    for index in range(start_layer(partition, policy) if start is None else start, partition.num_layers):
        if shortcut is not None and shortcut[0] == index:
            _, adapted, probability = shortcut
            weight = probability[:, None, None]
            hidden = weight * adapted + (1 - weight) * hidden
            shortcut = None
        block = partition.block_of(index)
        if block is not None and positions[block] == index:
            summary = modules.summary(index, hidden, context.token_mask)
            probability = torch.sigmoid(modules.controller(index)(summary) - logit)
            probabilities.append(probability)
            shortcut = (partition.blocks[block][1], modules.adapter(index)(hidden, summary), probability)
        hidden = run(policy, index, hidden, context)
    result = full_result(hidden, partition.num_layers)
    return decoded(policy, modules, result, context, state, noise), probabilities


@dataclass(frozen=True)
class Decided:
    """What controllers decided, each sample for itself."""

    actions: Tensor  # (B, H, A) normalised
    skipped: Tensor  # (B,) dynamic layers that were skipped


def decided_pass(
    policy: VlaPolicy,
    partition: LayerPartition,
    modules: DyslModules,
    hidden: Tensor,
    context: StackContext,
    logit: float = 0.0,
    rows: Callable[[Tensor], tuple[StackContext, Any]] | None = None,
    state: Any = None,
    *,
    start: int | None = None,
    run: LayerRun = quick_layer,
    noise: Any = None,
    noise_of: Callable[[Tensor], Any] = lambda own: None,
) -> Decided:
    """Run the stack as controllers decide at the hard threshold, every allow point at its block's first layer.

    Followers repeat the plan of their own sample: samples of one plan are run together once more.

    Args:
        policy: the teacher.
        partition: of its stack.
        modules: made for it.
        hidden: as in :func:`hard_pass`.
        context: of the batch.
        logit: a controller must exceed it to skip; 0.0 is a threshold of one half.
        rows: makes context and decoding state of some of the samples; needed where there are followers.
        state: as in :func:`hard_pass`.
        start: as in :func:`hard_stack`.
        run: as there.
        noise: of decoding; None: the same for all.
        noise_of: makes that of some of the samples.
    """
    first = start_layer(partition, policy) if start is None else start
    skipped, entered = hidden.new_zeros(len(hidden)), hidden
    places = torch.tensor([end for _, end in partition.blocks]).repeat(len(hidden), 1)  # (B, blocks)
    gone = torch.zeros(len(hidden), dtype=torch.bool, device=hidden.device)
    adapted = hidden
    for index in range(first, partition.num_layers):
        block = partition.block_of(index)
        if block is None and gone.any():  # the static layer behind a block: both ways meet again
            hidden = torch.where(gone[:, None, None], adapted, hidden)
            gone = torch.zeros_like(gone)
        if partition.block_at(index) is not None and block is not None:
            summary = modules.summary(index, hidden, context.token_mask)
            leaves = ~gone & (modules.controller(index)(summary) > logit)
            instead = modules.adapter(index)(hidden, summary)
            adapted = torch.where(leaves[:, None, None], instead, adapted)
            skipped += leaves * (partition.blocks[block][1] - index)
            gone |= leaves
            places[leaves.cpu(), block] = index
        hidden = run(policy, index, hidden, context)
    if len(policy.streams) == 1:
        result = full_result(hidden, partition.num_layers)
        return Decided(decoded(policy, modules, result, context, state, noise), skipped)
    assert rows is not None, "followers need the contexts of single samples"
    actions: list[Tensor] = [hidden] * len(hidden)
    for plan in places.unique(dim=0):
        own = (places == plan).all(dim=1).nonzero()[:, 0]
        some, before = rows(own)
        more = {"start": start, "run": run, "noise": noise_of(own)}
        chunk, _ = hard_pass(policy, partition, modules, entered[own], some, plan.tolist(), before, **more)
        for place, row in enumerate(own.tolist()):
            actions[row] = chunk[place]
    return Decided(torch.stack(actions), skipped)


def _quick(policy: VlaPolicy) -> AbstractContextManager[Any]:
    """Return where frozen layers run; what they leave for followers keeps its kind of numbers."""
    return quick_on_cpu() if len(policy.streams) == 1 and policy.device.type == "cpu" else nullcontext()


def decoded(
    policy: VlaPolicy, modules: DyslModules, result: StackResult, context: StackContext, state: Any, noise: Any = None
) -> Tensor:
    """Return normalised actions (B, H, A); ``noise`` None: the one that the teacher's cached actions are of."""
    result = replace(result, hidden=result.hidden.to(policy.dtype))
    count = len(result.hidden)
    noise = policy.noise([0] * count) if noise is None else noise
    state = policy.initial_state(count) if state is None else state
    return policy.decode(result, context, state, noise, modules.bridge)[0].float()


def skip_loss(partition: LayerPartition, positions: Positions, probabilities: Sequence[Tensor]) -> Tensor:
    """Return L_skip: mean over blocks of (1 - p_j) * (layers from j to the block's end) / (all dynamic layers)."""
    dynamic = len(partition.dynamic)
    parts = [
        (1 - probability).mean() * (end - position) / dynamic
        for probability, position, (_, end) in zip(probabilities, positions, partition.blocks, strict=True)
    ]
    return torch.stack(parts).mean()
