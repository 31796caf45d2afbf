"""Skip-aware two-stage distillation (paper, section on training; the additions marked *ours*).

Stage 1 teaches each adapter the hidden state that enters the next static layer, then (*ours*, decisive) the teacher's
actions through the hard-skipped stack, skip positions sampled. Stage 2 trains controllers and adapters together:
``mixture`` is the paper's soft mixture with a loss on layers not skipped; ``error`` (*ours*, default) teaches each
controller the logarithm of the action error that a pass skipping there ends in, so that its output can be compared
with a tolerated error.

What adapters learned by heart tells controllers nothing of the error elsewhere: with frames *aside* (*ours*) half as
many of those are in each batch of stage 2, and they teach controllers alone.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from dysl_vla_ros.distillation.activations import Activations, Batch, sample_rows
from dysl_vla_ros.distillation.descent import Descent, adapters_of
from dysl_vla_ros.distillation.judging import Judge, Judgement
from dysl_vla_ros.distillation.losses import action_error, controller_loss, weighted
from dysl_vla_ros.distillation.passes import (
    Positions,
    hard_pass,
    require_mixture,
    sample_positions,
    skip_loss,
    soft_pass,
    start_layer,
)
from dysl_vla_ros.distillation.settings import DistillationSettings
from dysl_vla_ros.policies.reference import ReferencePolicy
from dysl_vla_ros.skipping.modules import DyslModules, Summary
from dysl_vla_ros.skipping.partition import LayerPartition

JUDGEMENTS = 6  # of a stage 2


class Distillation:
    """One run over recorded activations; call the stages in their order.

    Attributes:
        judge: measures what was trained.
        judgements: what stage 2 did on its way.
        judgements_aside: the same on frames aside that nothing was learned from; empty where there are none.
    """

    def __init__(
        self,
        partition: LayerPartition,
        modules: DyslModules,
        data: Activations,
        settings: DistillationSettings,
        held_out: Activations | None = None,
        aside: tuple[Activations, Activations] | None = None,
    ) -> None:
        """Train ``modules`` in place on ``data``; the policy stays frozen.

        Args:
            partition: of the policy's layers.
            modules: adapters and controllers.
            data: what both learn from.
            settings: of the stages.
            held_out: frames to judge by; None: ``data``.
            aside: frames that controllers alone learn from, and others of their kind to judge by; with controllers of
                kind ``error`` only.
        """
        assert partition.blocks, "there is nothing to train where every layer is static"
        if settings.controllers == "mixture":
            require_mixture(data.policy)
        self.partition, self.modules, self.data, self.settings = partition, modules, data, settings
        self.judge = Judge(partition, modules, data if held_out is None else held_out)
        self.judgements: list[Judgement] = []
        self.judgements_aside: list[Judgement] = []
        self._aside = aside[0] if aside else None
        self._judge_aside = Judge(partition, modules, aside[1]) if aside else None
        self._policy = data.policy
        if settings.compile and isinstance(data.policy, ReferencePolicy):
            data.policy.network.compile_layers()
        self._random = self._random_aside = np.random.default_rng(settings.seed)

    def train_hidden(self) -> float:
        """Stage 1, first part; return the last loss (share of the skipped change that is not explained)."""
        return self._train("stage 1: hidden states", self.settings.hidden_steps, self._hidden_loss)

    def train_actions(self) -> float:
        """Stage 1, second part: the action through the hard-skipped stack; return the last loss, weighted."""
        return self._train("stage 1: actions", self.settings.action_steps, self._action_loss)

    def train_joint(self) -> float:
        """Stage 2: controllers and adapters together; return the last loss."""
        kind, steps = self.settings.controllers, self.settings.joint_steps
        loss = self._error_loss if kind == "error" else self._mixture_loss
        self.judgements, self.judgements_aside = [], []
        every = max(1, steps // JUDGEMENTS)

        def judge(step: int) -> None:
            if step % every == 0 or step == steps:
                self.judgements.append(self.judge.controllers(kind, step))
                if self._judge_aside:
                    self.judgements_aside.append(self._judge_aside.controllers(kind, step))

        return self._train(
            f"stage 2: {kind}", steps, loss, judge,
            adapter_rate=self.settings.adapter_rate, controllers=list(self.modules.controllers.parameters()),
        )  # fmt: skip

    def _train(
        self,
        label: str,
        steps: int,
        loss_of: Callable[[], Tensor],
        after_step: Callable[[int], None] | None = None,
        *,
        adapter_rate: float = 1.0,
        controllers: Sequence[nn.Parameter] = (),
    ) -> float:
        """Take ``steps`` steps down ``loss_of``; return its running mean at the end.

        Adapters learn at a share ``adapter_rate`` of the learning rate, ``controllers`` at all of it.
        """
        adapters = adapters_of(self.modules)
        descent = Descent(adapters, controllers, self.settings.learning_rate, adapter_rate, steps)
        # A stream of the stage's own, so that a run that goes on behind a finished stage gives the same bits.
        self._random = np.random.default_rng([self.settings.seed, *label.encode()])
        self._random_aside = np.random.default_rng([self.settings.seed, *label.encode(), 1])
        progress = tqdm(range(steps), desc=label, unit="step", mininterval=2.0)
        for step in progress:
            loss = loss_of()
            descent.clear()
            loss.backward()
            descent.step(step, float(loss.detach()))
            said = {"loss": f"{descent.running:.4f}"}
            if after_step:
                after_step(step + 1)
                if self.judgements:
                    last = self.judgements[-1]
                    said |= {"skipped": f"{last.skip_rate:.0%}", "soft": f"{last.soft_error:.4f}"}
                    said |= {"hard": f"{last.hard_error:.4f}"}
            progress.set_postfix(said, refresh=False)
        return descent.running

    def _hard(self, batch: Batch, positions: Positions) -> tuple[Tensor, list[Summary | None]]:
        hidden = batch.hidden(start_layer(self.partition, self.data.policy))
        return hard_pass(self._policy, self.partition, self.modules, hidden, batch.context, positions, batch.state)

    def _hidden_loss(self) -> Tensor:
        batch = self._batch()
        losses = []
        for points, (first, end) in zip(self.partition.points, self.partition.blocks, strict=True):
            target = batch.hidden(end)
            unit = (batch.hidden(first) - target).square().mean()  # what skipping without an adapter would leave
            for layer in points:
                adapted = self.modules.adapted(layer, batch.hidden(layer), batch.context.token_mask)
                losses.append((adapted - target).square().mean() / unit)
        return torch.stack(losses).mean()

    def _action_loss(self) -> Tensor:
        batch = self._batch()
        actions, _ = self._hard(batch, self._positions())
        return self._weighted(action_error(actions, batch.actions))

    def _error_loss(self) -> Tensor:
        batch, positions = self._batch(), self._positions()
        actions, seen = self._hard(batch, positions)
        error = action_error(actions, batch.actions)
        controllers = controller_loss(self.modules, positions, seen, error)
        loss = self._weighted(error) + controllers  # the two share no parameters: neither weight matters
        if self._aside is None:
            return loss
        rows = sample_rows(len(self._aside), max(1, self.settings.batch_size // 2), self._random_aside)
        with torch.no_grad():
            aside = self._aside.batch(rows)
            positions = sample_positions(self.partition, self._random_aside, self.settings.floor_share)
            actions, seen = self._hard(aside, positions)
            error = action_error(actions, aside.actions)
        return loss + controller_loss(self.modules, positions, seen, error)

    def _mixture_loss(self) -> Tensor:
        batch = self._batch()
        positions = [points[int(self._random.integers(len(points)))] for points in self.partition.points]
        hidden = batch.hidden(start_layer(self.partition, self.data.policy))
        arguments = (self._policy, self.partition, self.modules, hidden, batch.context, positions)
        actions, probabilities = soft_pass(*arguments, state=batch.state)
        skipped = skip_loss(self.partition, positions, probabilities)
        return action_error(actions, batch.actions).mean() + self.settings.skip_weight * skipped

    def _weighted(self, error: Tensor) -> Tensor:
        return weighted(error, self.settings.large_error)

    def _batch(self) -> Batch:
        return self.data.batch(sample_rows(len(self.data), self.settings.batch_size, self._random))

    def _positions(self) -> Positions:
        return sample_positions(self.partition, self._random, self.settings.floor_share)
