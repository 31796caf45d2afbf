"""What the teacher does with every frame, computed once: no training step after that needs vision or a full pass.

Kept are what enters the layers that a partition trains between, the contexts and the teacher's chunks. Up to
:data:`LARGEST_IN_MEMORY` they stay in memory; above it they lie in a file beside the result, which has no name and so
is gone when the process ends, however it ends.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.skipping.importance import CosineSimilarity
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import StackContext

BATCH = 32
LARGEST_IN_MEMORY = 2_000_000_000  # bytes


@dataclass(frozen=True)
class Batch:
    """Some of the frames."""

    data: "Activations"
    rows: Tensor  # (B,)
    context: StackContext
    actions: Tensor  # (B, H, A) normalised, the teacher's

    def hidden(self, layer: int) -> Tensor:
        """Return what enters ``layer``, (B, T, D) float32."""
        return self.data.hidden[layer][self.rows].float()


@dataclass(frozen=True)
class Activations:
    """What the teacher did with N observations."""

    hidden: dict[int, Tensor]  # layer -> (N, T, D) that enters it, float16 unless asked for otherwise
    contexts: Sequence[Any]  # N contexts of batch 1
    actions: Tensor  # (N, H, A) normalised, at full depth
    policy: VlaPolicy
    similarity: tuple[float, ...]  # (L,) mean cosine similarity between each layer's input and output, over real tokens

    def __len__(self) -> int:
        return len(self.contexts)

    def batch(self, rows: Tensor) -> Batch:
        """Return the frames of ``rows`` (B,)."""
        context = self.policy.collate([self.contexts[row] for row in rows.tolist()])
        return Batch(self, rows, context, self.actions[rows])


def inputs_of(*partitions: LayerPartition) -> tuple[int, ...]:
    """Return the layers whose inputs training modules of these partitions needs, rising."""
    needed = {layer for partition in partitions for layer in partition.skip_points}
    return tuple(sorted(needed | {end for partition in partitions for _, end in partition.blocks}))


def record_activations(
    policy: VlaPolicy,
    observations: Iterable[Observation],
    count: int,
    layers: Sequence[int] | None = None,
    *,
    folder: Path | None = None,
    dtype: torch.dtype = torch.float16,
    batch: int = BATCH,
    label: str = "teacher at full depth",
) -> Activations:
    """Run the teacher at full depth over observations.

    Args:
        policy: the teacher.
        observations: no more than ``count`` are taken.
        count: how many there are, or an upper bound.
        layers: those whose inputs are kept (:func:`inputs_of`); None: all.
        folder: where a file for what does not fit into memory is made; None: the system's temporary folder.
        dtype: of the hidden states that are kept.
        batch: observations of one pass.
        label: of the progress bar.

    Raises:
        DataError: there are fewer than two observations, or no space for the file.
    """
    total = len(policy.layers)
    kept = tuple(range(total)) if layers is None else tuple(layers)
    similarity = CosineSimilarity(total)
    hidden: dict[int, Tensor] = {}
    contexts: list[Any] = []
    actions: list[Tensor] = []
    progress = tqdm(total=count, desc=label, unit="observation")
    for part in _parts(islice(observations, count), batch):
        states, own, chunk = teacher_pass(policy, part)
        if not hidden:
            hidden = _room(kept, (count, *states[0].shape[1:]), dtype, folder)
        mask = policy.collate(own).token_mask
        for layer, (before, after) in enumerate(zip(states[:-1], states[1:], strict=True)):
            similarity.update(layer, before, after, mask)
        start = len(contexts)
        for layer in kept:
            hidden[layer][start : start + len(part)] = states[layer]
        contexts += [_clone(context) for context in own]
        actions.append(chunk.clone())
        progress.update(len(part))
    progress.close()
    if len(contexts) < 2:
        raise DataError(f"{len(contexts)} observations are too few to learn from; name a data folder with episodes")
    values = tuple(round(float(value), 5) for value in similarity.mean())
    trimmed = {layer: state[: len(contexts)] for layer, state in hidden.items()}
    return Activations(trimmed, contexts, torch.cat(actions), policy, values)


def teacher_pass(policy: VlaPolicy, observations: Sequence[Observation]) -> tuple[list[Tensor], list[Any], Tensor]:
    """Run every layer on some observations.

    Returns:
        What enters each layer and, last, what leaves the stack, (B, T, D) each; the contexts of batch 1; the teacher's
        normalised actions (B, H, A), float32.
    """
    with torch.inference_mode():
        prepared = [policy.prepare(observation) for observation in observations]
        contexts = [own for _, own in prepared]
        context = policy.collate(contexts)
        states = [torch.cat([hidden for hidden, _ in prepared])]
        for layer in policy.layers:
            states.append(layer(states[-1], context))
        chunk, _ = policy.decode(states[-1], context, policy.initial_state())
        return states, contexts, chunk.float()


def _room(layers: Sequence[int], shape: tuple[int, ...], dtype: torch.dtype, folder: Path | None) -> dict[int, Tensor]:
    """Return a tensor of ``shape`` for each layer, in memory or in a file."""
    size = dtype.itemsize * int(np.prod(shape))
    if size * len(layers) <= LARGEST_IN_MEMORY:
        return {layer: torch.empty(shape, dtype=dtype) for layer in layers}
    try:
        with tempfile.TemporaryFile(dir=folder) as file:  # the mapping outlives the handle
            os.posix_fallocate(file.fileno(), 0, size * len(layers))  # a full disk is met now, not in the middle
            mapped = np.memmap(file, np.uint8, "r+", shape=(len(layers), size))
    except OSError as error:
        raise DataError(
            f"{folder}: no room for {size * len(layers) / 1e9:.1f} GB of hidden states: {error.strerror or error}; "
            "take fewer --observations or free space"
        ) from error
    return {layer: torch.from_numpy(mapped[i]).view(dtype).view(shape) for i, layer in enumerate(layers)}


def _parts(observations: Iterable[Observation], size: int) -> Iterator[list[Observation]]:
    source = iter(observations)
    while part := list(islice(source, size)):
        yield part


def _clone(context: Any) -> Any:
    """Return a copy that can be trained through: tensors made in inference mode cannot."""
    return type(context)(
        **{
            name: v.clone() if isinstance(v, Tensor) else tuple(t.clone() for t in v)
            for name, v in vars(context).items()
        }
    )


def sample_rows(count: int, size: int, random: np.random.Generator) -> Tensor:
    """Draw a batch of rows."""
    return torch.from_numpy(random.integers(0, count, size))
