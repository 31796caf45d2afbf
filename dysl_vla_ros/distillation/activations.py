"""The teacher's hidden states, computed once: every training step after that needs no vision and no full pass."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.skipping.stack import StackContext

BATCH = 32


@dataclass
class Activations:
    """What the teacher did with N observations."""

    hidden: Tensor  # (N, L + 1, T, D) float16: what enters each layer, last what leaves the stack
    contexts: list[Any]  # N contexts of batch 1
    actions: Tensor  # (N, H, A) normalised, at full depth
    policy: VlaPolicy

    def __len__(self) -> int:
        return len(self.contexts)

    def batch(self, rows: Tensor) -> tuple[Tensor, StackContext, Tensor]:
        """Return hidden (B, L + 1, T, D) float32, a joined context and the teacher's actions (B, H, A)."""
        context = self.policy.collate([self.contexts[row] for row in rows.tolist()])
        return self.hidden[rows].float(), context, self.actions[rows]


def record_activations(policy: VlaPolicy, observations: Iterable[Observation], count: int) -> Activations:
    """Run the teacher at full depth over ``count`` observations.

    Raises:
        DataError: there are fewer than two.
    """
    hiddens: list[Tensor] = []
    contexts: list[Any] = []
    actions: list[Tensor] = []
    progress = tqdm(total=count, desc="teacher at full depth", unit="observation")
    with torch.inference_mode():
        for part in _parts(observations, BATCH):
            prepared = [policy.prepare(observation) for observation in part]
            context = policy.collate([own for _, own in prepared])
            states = [torch.cat([hidden for hidden, _ in prepared])]
            for layer in policy.layers:
                states.append(layer(states[-1], context))
            chunk, _ = policy.decode(states[-1], context, policy.initial_state())
            hiddens.append(torch.stack(states, dim=1).half())
            contexts += [own for _, own in prepared]
            actions.append(chunk.float())
            progress.update(len(part))
    progress.close()
    if len(contexts) < 2:
        raise DataError(f"{len(contexts)} observations are too few to learn from; name a data folder with episodes")
    with torch.no_grad():  # clones: tensors made in inference mode cannot be trained through
        return Activations(
            torch.cat(hiddens).clone(), [_clone(c) for c in contexts], torch.cat(actions).clone(), policy
        )


def _parts(observations: Iterable[Observation], size: int) -> Iterator[list[Observation]]:
    source = iter(observations)
    while part := list(islice(source, size)):
        yield part


def _clone(context: Any) -> Any:
    return type(context)(
        **{
            name: v.clone() if isinstance(v, Tensor) else tuple(t.clone() for t in v)
            for name, v in vars(context).items()
        }
    )


def sample_rows(count: int, size: int, random: np.random.Generator) -> Tensor:
    """Draw a batch of rows."""
    return torch.from_numpy(random.integers(0, count, size))
