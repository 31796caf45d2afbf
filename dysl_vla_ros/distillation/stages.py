"""Skip-aware two-stage distillation (paper, section on training; the additions marked *ours*).

Stage 1 teaches each adapter the hidden state that enters the next static layer, then (*ours*, decisive) the teacher's
actions through the hard-skipped stack, skip positions sampled. Stage 2 trains controllers and adapters together:
``mixture`` is the paper's soft mixture with a loss on layers not skipped; ``error`` (*ours*, default) teaches each
controller the logarithm of the action error that a pass skipping there ends in, so that its output can be compared
with a tolerated error.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from dysl_vla_ros.distillation.activations import Activations, sample_rows
from dysl_vla_ros.distillation.passes import action_error, hard_pass, sample_positions, skip_loss, soft_pass
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import StackContext

ERROR_FLOOR = 0.01  # added before the logarithm: smaller errors do not matter and are noise


@dataclass(frozen=True)
class DistillationSettings:
    """What a run may change; the defaults made the shipped adapters."""

    hidden_steps: int = 500  # stage 1, hidden states
    action_steps: int = 1800  # stage 1, action loss
    joint_steps: int = 1200  # stage 2
    batch_size: int = 64
    learning_rate: float = 2e-3
    controllers: str = "error"  # or "mixture"
    skip_weight: float = 0.1  # lambda of the mixture
    seed: int = 0


class Distillation:
    """One run over recorded activations; call the stages in their order."""

    def __init__(
        self, partition: LayerPartition, modules: DyslModules, data: Activations, settings: DistillationSettings
    ) -> None:
        """Train ``modules`` in place; the policy stays frozen."""
        self.partition, self.modules, self.data, self.settings = partition, modules, data, settings
        self._random = np.random.default_rng(settings.seed)

    def train_hidden(self) -> float:
        """Stage 1, first part; return the last loss (share of the skipped change that is not explained)."""
        return self._train("stage 1: hidden states", self.settings.hidden_steps, self._adapters(), self._hidden_loss)

    def train_actions(self) -> float:
        """Stage 1, second part: action loss through the hard-skipped stack; return the last L1."""
        return self._train("stage 1: actions", self.settings.action_steps, self._adapters(), self._action_loss)

    def train_joint(self) -> float:
        """Stage 2: controllers and adapters together; return the last loss."""
        kind = self.settings.controllers
        loss = self._error_loss if kind == "error" else self._mixture_loss
        return self._train(f"stage 2: {kind}", self.settings.joint_steps, list(self.modules.parameters()), loss)

    def _train(self, label: str, steps: int, parameters: list[nn.Parameter], loss_of: Callable[[], Tensor]) -> float:
        """Take ``steps`` steps down ``loss_of``; return its running mean at the end."""
        optimiser = torch.optim.AdamW(parameters, lr=self.settings.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _share_of_rate(step, steps))
        # A stream of the stage's own, so that a run that goes on behind a finished stage gives the same bits.
        self._random = np.random.default_rng([self.settings.seed, *label.encode()])
        running = 0.0
        progress = tqdm(range(steps), desc=label, unit="step", mininterval=2.0)
        for _ in progress:
            loss = loss_of()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            running = 0.95 * running + 0.05 * float(loss.detach()) if running else float(loss.detach())
            progress.set_postfix(loss=f"{running:.4f}", refresh=False)
        return running

    def floor_error(self, rows: Tensor | None = None) -> float:
        """Return the action L1 of the floor (every block skipped) against full depth."""
        rows = torch.arange(min(len(self.data), 512)) if rows is None else rows
        floor = [first for first, _ in self.partition.blocks]
        errors = []
        with torch.no_grad():
            for part in rows.split(64):
                hidden, context, teacher = self.data.batch(part)
                actions, _ = hard_pass(self.data.policy, self.partition, self.modules, hidden[:, 1], context, floor)
                errors.append(action_error(actions, teacher))
        return float(torch.cat(errors).mean())

    def _hidden_loss(self) -> Tensor:
        hidden, context, _ = self._batch()
        losses = []
        for first, end in self.partition.blocks:
            target = hidden[:, end]
            unit = (hidden[:, first] - target).square().mean()  # what skipping without an adapter would leave
            for layer in range(first, end):
                adapted = self.modules.adapter(layer)(hidden[:, layer], context.token_mask)
                losses.append((adapted - target).square().mean() / unit)
        return torch.stack(losses).mean()

    def _action_loss(self) -> Tensor:
        hidden, context, teacher = self._batch()
        positions = sample_positions(self.partition, self._random)
        actions, _ = hard_pass(self.data.policy, self.partition, self.modules, hidden[:, 1], context, positions)
        return action_error(actions, teacher).mean()

    def _error_loss(self) -> Tensor:
        hidden, context, teacher = self._batch()
        positions = sample_positions(self.partition, self._random)
        actions, seen = hard_pass(self.data.policy, self.partition, self.modules, hidden[:, 1], context, positions)
        error = action_error(actions, teacher)
        target = -torch.log(error.detach() + ERROR_FLOOR)  # a higher logit skips: the negative logarithm of the error
        regressions = [
            (self.modules.controller(position)(state.detach(), context.token_mask) - target).square().mean()
            for position, state in zip(positions, seen, strict=True)
            if state is not None
        ]
        controllers = torch.stack(regressions).mean() if regressions else error.new_zeros(())
        return error.mean() + controllers  # the two share no parameters: neither weight matters

    def _mixture_loss(self) -> Tensor:
        hidden, context, teacher = self._batch()
        positions = [int(self._random.integers(first, end)) for first, end in self.partition.blocks]
        actions, probabilities = soft_pass(
            self.data.policy, self.partition, self.modules, hidden[:, 1], context, positions
        )
        skipped = skip_loss(self.partition, positions, probabilities)
        return action_error(actions, teacher).mean() + self.settings.skip_weight * skipped

    def _batch(self) -> tuple[Tensor, StackContext, Tensor]:
        return self.data.batch(sample_rows(len(self.data), self.settings.batch_size, self._random))

    def _adapters(self) -> list[nn.Parameter]:
        return [*self.modules.adapters.parameters(), *self.modules.pools.parameters()]


def _share_of_rate(step: int, steps: int) -> float:
    """Return the learning rate as a share of the highest: 5% of warm-up, then a cosine down to 5%."""
    warm = max(1, steps // 20)
    return min(1.0, (step + 1) / warm) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / max(1, steps))))
