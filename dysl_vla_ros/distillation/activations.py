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

from dysl_vla_ros.distillation.passes import LayerRun, quick_layer, start_layer
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.skipping.importance import CosineSimilarity
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import StackContext, full_result
from dysl_vla_ros.skipping.streams import no_bridge

BATCH = 32
PART = 64  # frames that are judged at once
ROOM = 16.0  # by which later hidden states may exceed those of the first batch in float16
LARGEST_IN_MEMORY = 2_000_000_000  # bytes


@dataclass(frozen=True)
class Batch:
    """Some of the frames."""

    data: "Activations"
    rows: Tensor  # (B,)
    context: StackContext
    actions: Tensor  # (B, H, A) normalised, the teacher's

    @property
    def noise(self) -> Any:
        """What the teacher's actions were decoded from."""
        return self.data.policy.noise([0] * len(self.rows))

    @property
    def state(self) -> Any:
        """The teacher's decoding state before these frames; None where the family has none."""
        memories = self.data.memories
        return None if memories is None else joined([memories[row] for row in self.rows.tolist()])

    def hidden(self, layer: int) -> Tensor:
        """Return what enters ``layer``, (B, T, D) float32."""
        return self.data.hidden[layer][self.rows].to(self.data.policy.device).float()

    def some(self, places: Tensor) -> tuple[StackContext, Any]:
        """Return context and decoding state of some of this batch's frames, ``places`` (n,) in it."""
        own = self.data.batch(self.rows[places])
        return own.context, own.state

    def some_noise(self, places: Tensor) -> Any:
        """Return what the actions of some of this batch's frames were decoded from."""
        return self.data.policy.noise([0] * len(places))


@dataclass(frozen=True)
class Activations:
    """What the teacher did with N observations."""

    hidden: dict[int, Tensor]  # layer -> (N, T, D) that enters it, float16 unless asked for otherwise
    contexts: Sequence[Any]  # N contexts of batch 1
    actions: Tensor  # (N, H, A) normalised, at full depth
    policy: VlaPolicy
    similarity: tuple[float, ...]  # (L,) mean cosine similarity between each layer's input and output, over real tokens
    memories: Sequence[Any] | None = None  # N decoding states of batch 1, the teacher's before each frame
    run: LayerRun = quick_layer  # how frozen layers run in training

    def start(self, partition: LayerPartition) -> int:
        """Return the layer with whose input passes over these frames begin."""
        return start_layer(partition, self.policy)

    def parts(self, most: int) -> Iterator[Batch]:
        """Yield the frames in batches, evenly chosen, no more than ``most``."""
        rows = torch.from_numpy(np.linspace(0, len(self) - 1, min(most, len(self))).astype(np.int64))
        for part in rows.split(PART):
            yield self.batch(part)

    def __len__(self) -> int:
        return len(self.contexts)

    def batch(self, rows: Tensor) -> Batch:
        """Return the frames of ``rows`` (B,)."""
        context = self.policy.collate([self.contexts[row] for row in rows.tolist()])
        return Batch(self, rows, context, self.actions[rows])


def record_activations(
    policy: VlaPolicy,
    observations: Iterable[Observation],
    count: int,
    layers: Sequence[int] | None = None,
    *,
    begins: Sequence[bool] | None = None,
    folder: Path | None = None,
    dtype: torch.dtype | None = None,
    batch: int = BATCH,
    label: str = "teacher at full depth",
) -> Activations:
    """Run the teacher at full depth over observations.

    Args:
        policy: the teacher.
        observations: no more than ``count`` are taken.
        count: how many there are, or an upper bound.
        layers: those whose inputs are kept (:func:`~dysl_vla_ros.distillation.passes.inputs_of`); None: all.
        begins: whether each observation is the first of its episode; of a policy whose decoding has a memory, which is
            carried through an episode; None: each is.
        folder: where a file for what does not fit into memory is made; None: the system's temporary folder.
        dtype: of the hidden states that are kept; None: float16, bfloat16 where that would overflow or is the policy's.
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
    state = policy.initial_state()
    memories: list[Any] | None = None if state is None else []
    batch = batch if state is None else 1  # each depends on the one before
    progress = tqdm(total=count, desc=label, unit="observation")
    for part in _parts(islice(observations, count), batch):
        if memories is not None:
            state = policy.initial_state() if begins is None or begins[len(contexts)] else state
            memories.append(state)
        states, own, chunk, state = teacher_pass(policy, part, state)
        if not hidden:
            hidden = _room(kept, (count, *states[0].shape[1:]), dtype or _kind(policy, states), folder)
        mask = policy.collate(own).token_mask
        for layer, (before, after) in enumerate(zip(states[:-1], states[1:], strict=True)):
            similarity.update(layer, before, after, mask)
        start = len(contexts)
        for layer in kept:
            hidden[layer][start : start + len(part)] = states[layer]
            if not torch.isfinite(hidden[layer][start : start + len(part)]).all():
                raise DataError(
                    f"what enters layer {layer} is not finite in {hidden[layer].dtype}; the policy's weights or these "
                    "observations are at fault"
                )
        contexts += own
        actions.append(chunk.clone())
        progress.update(len(part))
    progress.close()
    if len(contexts) < 2:
        raise DataError(f"{len(contexts)} observations are too few to learn from; name a data folder with episodes")
    values = tuple(round(float(value), 5) for value in similarity.mean())
    trimmed = {layer: state[: len(contexts)] for layer, state in hidden.items()}
    return Activations(trimmed, contexts, torch.cat(actions), policy, values, memories)


def teacher_pass(
    policy: VlaPolicy, observations: Sequence[Observation], state: Any = None
) -> tuple[list[Tensor], list[Any], Tensor, Any]:
    """Run every layer on some observations; ``state``: of decoding, None: that of an episode's beginning.

    Returns:
        What enters each layer and, last, what leaves the stack, (B, T, D) each; the contexts of batch 1; the teacher's
        normalised actions (B, H, A), float32; the next decoding state.
    """
    with torch.no_grad():  # what inference mode makes cannot be trained through later
        prepared = [policy.prepare([observation]) for observation in observations]
        contexts = [own for _, own in prepared]
        context = policy.collate(contexts)
        states = [torch.cat([hidden for hidden, _ in prepared])]
        for layer in policy.layers:
            states.append(layer(states[-1], context))
        result = full_result(states[-1], len(policy.layers))
        state = policy.initial_state(len(contexts)) if state is None else state
        chunk, state = policy.decode(result, context, state, policy.noise([0] * len(contexts)), no_bridge)
        return states, contexts, chunk.float(), state


def joined(states: Sequence[Any]) -> Any:
    """Join decoding states of batch 1, tensors or tuples, lists and dictionaries of them, into one of their batch."""
    first = states[0]
    if isinstance(first, Tensor):
        return torch.cat(list(states))
    if isinstance(first, dict):
        return {name: joined([state[name] for state in states]) for name in first}
    return type(first)(joined(parts) for parts in zip(*states, strict=True))


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


def _kind(policy: VlaPolicy, states: Sequence[Tensor]) -> torch.dtype:
    """Return in which numbers hidden states like these are kept: two bytes each, with room above the largest."""
    largest = max(float(state.abs().max()) for state in states)
    roomy = policy.dtype == torch.bfloat16 or largest > torch.finfo(torch.float16).max / ROOM
    return torch.bfloat16 if roomy else torch.float16


def _parts(observations: Iterable[Observation], size: int) -> Iterator[list[Observation]]:
    source = iter(observations)
    while part := list(islice(source, size)):
        yield part


def sample_rows(count: int, size: int, random: np.random.Generator) -> Tensor:
    """Draw a batch of rows."""
    return torch.from_numpy(random.integers(0, count, size))
