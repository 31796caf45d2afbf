"""Forward passes for training: in batches, one skip position a block for the whole batch.

They begin with what enters the first dynamic layer: nothing before it is trained, and all of that is remembered.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.skipping.modules import DyslModules, Summary
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import StackContext
from dysl_vla_ros.training.precision import quick_on_cpu

Positions = Sequence[int]
"""Per block: the dynamic layer from which the rest is skipped; the block's end: nothing is."""


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


def start_layer(partition: LayerPartition) -> int:
    """Return the first dynamic layer, with whose input every pass here begins."""
    return partition.blocks[0][0]


def hard_pass(
    policy: VlaPolicy,
    partition: LayerPartition,
    modules: DyslModules,
    hidden: Tensor,
    context: StackContext,
    positions: Positions,
) -> tuple[Tensor, list[Summary | None]]:
    """Run the stack as it is deployed: adapters in place of skipped layers.

    Args:
        hidden: (B, T, D) that enters the first dynamic layer (:func:`start_layer`).
        positions: see :data:`Positions`.

    Returns:
        Normalised actions (B, H, A), and for each block the summary at its position, None at its end.
    """
    layers, ends = policy.layers, dict(zip(positions, partition.blocks, strict=False))
    seen: list[Summary | None] = [None] * len(partition.blocks)
    index = start_layer(partition)
    while index < partition.num_layers:
        block = partition.block_of(index)
        if block is not None and positions[block] == index:
            seen[block] = summary = modules.summary(index, hidden, context.token_mask)
            hidden = modules.adapter(index)(hidden, summary)
            index = ends[index][1]
            continue
        with quick_on_cpu():
            hidden = layers[index](hidden, context)
        hidden = hidden.float()
        index += 1
    actions, _ = policy.decode(hidden, context, policy.initial_state())
    return actions, seen


def soft_pass(
    policy: VlaPolicy,
    partition: LayerPartition,
    modules: DyslModules,
    hidden: Tensor,
    context: StackContext,
    positions: Positions,
    logit: float = 0.0,
) -> tuple[Tensor, list[Tensor]]:
    """Run every layer and mix each block's output with its adapter's by the controller's probability (paper, stage 2).

    ``logit`` is taken from what controllers say: at 0.0 the probability is their own.

    Returns:
        Normalised actions (B, H, A), and for each block the skip probability (B,) at its position.
    """
    layers = policy.layers
    probabilities: list[Tensor] = []
    shortcut: tuple[int, Tensor, Tensor] | None = None
    for index in range(start_layer(partition), partition.num_layers):
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
        with quick_on_cpu():
            hidden = layers[index](hidden, context)
        hidden = hidden.float()
    actions, _ = policy.decode(hidden, context, policy.initial_state())
    return actions, probabilities


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
) -> Decided:
    """Run the stack as controllers decide at the hard threshold, every allow point at its block's first layer.

    Args:
        policy: the teacher.
        partition: of its stack.
        modules: made for it.
        hidden: as in :func:`hard_pass`.
        context: of the batch.
        logit: a controller must exceed it to skip; 0.0 is a threshold of one half.
    """
    layers, skipped = policy.layers, hidden.new_zeros(len(hidden))
    gone = torch.zeros(len(hidden), dtype=torch.bool, device=hidden.device)
    adapted = hidden
    for index in range(start_layer(partition), partition.num_layers):
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
        with quick_on_cpu():
            hidden = layers[index](hidden, context)
        hidden = hidden.float()
    actions, _ = policy.decode(hidden, context, policy.initial_state())
    return Decided(actions, skipped)


def action_error(actions: Tensor, teacher: Tensor) -> Tensor:
    """Return the L1 distance of each chunk to the teacher's (B,), normalised: the family's own training metric."""
    return (actions - teacher).abs().mean(dim=(1, 2))


def skip_loss(partition: LayerPartition, positions: Positions, probabilities: Sequence[Tensor]) -> Tensor:
    """Return L_skip: mean over blocks of (1 - p_j) * (layers from j to the block's end) / (all dynamic layers)."""
    dynamic = len(partition.dynamic)
    parts = [
        (1 - probability).mean() * (end - position) / dynamic
        for probability, position, (_, end) in zip(probabilities, positions, partition.blocks, strict=True)
    ]
    return torch.stack(parts).mean()
