"""What adapters and controllers do, measured on frames that they did not learn from: nothing here trains."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dysl_vla_ros.calibration.signals import ERROR_FLOOR, rank_correlation
from dysl_vla_ros.distillation.activations import Activations, Batch
from dysl_vla_ros.distillation.passes import (
    action_error,
    decided_pass,
    hard_pass,
    soft_pass,
    start_layer,
)
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition

TOLERATED = 0.05  # action L1, normalised: where controllers that foresee an error are judged as they learn
FLOOR_ROWS = 512
CONTROLLER_ROWS = 128  # few, or judging would cost as much as training
PART = 64


@dataclass(frozen=True)
class Judgement:
    """What controllers and adapters do together, allow points at the blocks' first layers."""

    step: int
    skip_rate: float  # of the dynamic layers, at the hard threshold
    soft_error: float  # action L1 of the soft mixture at each block's first layer, normalised
    hard_error: float  # of what would run
    rank_correlation: float | None  # of the error that controllers foresee with the floor's; None: all say one thing


class Judge:
    """Measures modules, whatever they are at the time, on some frames."""

    def __init__(self, partition: LayerPartition, modules: DyslModules, data: Activations) -> None:
        """Keep what is measured and what it is measured on."""
        self.partition, self.modules, self.data = partition, modules, data

    def floor_error(self) -> float:
        """Return the action L1 of the floor (every block skipped whole) against full depth."""
        floor = self.partition.floor
        errors = []
        for batch in self._parts(FLOOR_ROWS):
            policy, hidden = self.data.policy, batch.hidden(start_layer(self.partition, self.data.policy))
            arguments = (policy, self.partition, self.modules, hidden, batch.context, floor, batch.state)
            actions, _ = hard_pass(*arguments)
            errors.append(action_error(actions, batch.actions))
        return float(torch.cat(errors).mean())

    def reconstruction(self) -> dict[int, float]:
        """Return for each skip point the share of the skipped change that its adapter leaves unexplained.

        Over real tokens: the squared distance to what enters the next static layer, as a share of the distance that
        the hidden state before the skip has. 1 is what the identity leaves.
        """
        left: dict[int, float] = {}
        skipped: dict[int, float] = {}
        for batch in self._parts(FLOOR_ROWS):
            mask = batch.context.token_mask
            for points, (_, end) in zip(self.partition.points, self.partition.blocks, strict=True):
                target = batch.hidden(end)
                for layer in points:
                    hidden = batch.hidden(layer)
                    adapted = self.modules.adapted(layer, hidden, mask)
                    left[layer] = left.get(layer, 0.0) + _distance(adapted, target, mask)
                    skipped[layer] = skipped.get(layer, 0.0) + _distance(hidden, target, mask)
        return {layer: left[layer] / max(skipped[layer], 1e-12) for layer in left}

    def controllers(self, kind: str, step: int = 0) -> Judgement:
        """Measure what would run at the hard threshold.

        Args:
            kind: how they were trained: with ``mixture`` they skip above 0.5, with ``error`` where they foresee less
                than :data:`TOLERATED`.
            step: of the training, for the record.
        """
        logit = -math.log(TOLERATED + ERROR_FLOOR) if kind == "error" else 0.0
        floor = self.partition.floor
        rows = []
        for batch in self._parts(CONTROLLER_ROWS):
            hidden = batch.hidden(start_layer(self.partition, self.data.policy))
            arguments = (self.data.policy, self.partition, self.modules, hidden, batch.context)
            at_floor, seen = hard_pass(*arguments, floor, batch.state)
            mixed, _ = soft_pass(*arguments, floor, logit, batch.state)
            decided = decided_pass(*arguments, logit, batch.some, batch.state)
            says = [
                self.modules.controller(position)(summary)
                for position, summary in zip(floor, seen, strict=True)
                if summary is not None
            ]
            columns = (
                decided.skipped / len(self.partition.dynamic),
                action_error(mixed, batch.actions),
                action_error(decided.actions, batch.actions),
                action_error(at_floor, batch.actions),
                -torch.stack(says).min(dim=0).values,  # of the block that foresees the largest error
            )
            rows.append(torch.stack(columns))
        skipped, soft, hard, error, foreseen = torch.cat(rows, dim=1).double().cpu().numpy()
        related = rank_correlation(foreseen, error)
        return Judgement(step, float(skipped.mean()), float(soft.mean()), float(hard.mean()), related)

    def _parts(self, most: int) -> Iterator[Batch]:
        """Yield the frames, evenly chosen, no more than ``most``."""
        count = len(self.data)
        rows = torch.from_numpy(np.linspace(0, count - 1, min(most, count)).astype(np.int64))
        with torch.no_grad():
            for part in rows.split(PART):
                yield self.data.batch(part)


def _distance(state: Tensor, target: Tensor, mask: Tensor | None) -> float:
    squared = (state - target).square().mean(dim=-1)  # (B, T)
    return float((squared if mask is None else squared[mask]).sum())
