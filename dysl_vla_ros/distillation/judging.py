"""What adapters and controllers do, measured on frames that they did not learn from: nothing here trains."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dysl_vla_ros.calibration.signals import ERROR_FLOOR, rank_correlation
from dysl_vla_ros.distillation.losses import action_error
from dysl_vla_ros.distillation.passes import LayerRun, decided_pass, hard_pass, soft_pass
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import StackContext

TOLERATED = 0.05  # action L1, normalised: where controllers that foresee an error are judged as they learn
FLOOR_ROWS = 512
CONTROLLER_ROWS = 128  # few, or judging would cost as much as training


class SeenFrames(Protocol):
    """Some frames, and what the teacher did with them."""

    @property
    def context(self) -> StackContext:
        """Of these frames."""
        ...

    @property
    def actions(self) -> Tensor:
        """The teacher's, (B, H, A) normalised."""
        ...

    @property
    def state(self) -> Any:
        """Of decoding, before these frames; None where the family has none."""
        ...

    @property
    def noise(self) -> Any:
        """What the actions were decoded from; None where nothing is drawn."""
        ...

    def hidden(self, layer: int) -> Tensor:
        """Return what enters ``layer``, (B, T, D) float32."""
        ...

    def some(self, places: Tensor) -> tuple[StackContext, Any]:
        """Return context and decoding state of some of the frames, ``places`` (n,) among them."""
        ...

    def some_noise(self, places: Tensor) -> Any:
        """Return what the actions of some of the frames were decoded from."""
        ...


class SeenTeacher(Protocol):
    """A teacher that was seen on frames, or is while they are asked for."""

    @property
    def policy(self) -> VlaPolicy:
        """The teacher."""
        ...

    @property
    def run(self) -> LayerRun:
        """How its layers run where something is trained through them."""
        ...

    def __len__(self) -> int:
        """Return how many frames there are."""
        ...

    def start(self, partition: LayerPartition) -> int:
        """Return the layer with whose input passes over these frames begin."""
        ...

    def parts(self, most: int) -> Iterator[SeenFrames]:
        """Yield the frames in batches, evenly chosen, no more than ``most``."""
        ...


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

    def __init__(
        self,
        partition: LayerPartition,
        modules: DyslModules,
        data: SeenTeacher,
        rows: tuple[int, int] = (FLOOR_ROWS, CONTROLLER_ROWS),
    ) -> None:
        """Keep what is measured and what it is measured on: so many ``rows`` for the floor and for controllers."""
        self.partition, self.modules, self.data = partition, modules, data
        self._floor_rows, self._controller_rows = rows

    def floor_error(self) -> float:
        """Return the action L1 of the floor (every block skipped whole) against full depth."""
        errors = []
        for batch in self._parts(self._floor_rows):
            actions, _ = hard_pass(positions=self.partition.floor, **self._given(batch))
            errors.append(action_error(actions, batch.actions))
        return float(torch.cat(errors).mean())

    def reconstruction(self) -> dict[int, float]:
        """Return for each skip point the share of the skipped change that its adapter leaves unexplained.

        Over real tokens: the squared distance to what enters the next static layer, as a share of the distance that
        the hidden state before the skip has. 1 is what the identity leaves.
        """
        left: dict[int, float] = {}
        skipped: dict[int, float] = {}
        for batch in self._parts(self._floor_rows):
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
        for batch in self._parts(self._controller_rows):
            given = self._given(batch)
            at_floor, seen = hard_pass(positions=floor, **given)
            mixed, _ = soft_pass(positions=floor, logit=logit, **given)
            decided = decided_pass(logit=logit, rows=batch.some, noise_of=batch.some_noise, **given)
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

    def _given(self, batch: SeenFrames) -> dict[str, Any]:
        """Return the arguments that every pass over a batch has."""
        start = self.data.start(self.partition)
        return {
            "policy": self.data.policy, "partition": self.partition, "modules": self.modules,
            "hidden": batch.hidden(start), "context": batch.context, "state": batch.state, "noise": batch.noise,
            "start": start, "run": self.data.run,
        }  # fmt: skip

    def _parts(self, most: int) -> Iterator[SeenFrames]:
        with torch.no_grad():
            yield from self.data.parts(most)


def _distance(state: Tensor, target: Tensor, mask: Tensor | None) -> float:
    squared = (state - target).square().mean(dim=-1)  # (B, T)
    return float((squared if mask is None else squared[mask]).sum())
