"""Skip-aware two-stage distillation (paper, section on training; the additions marked *ours*).

Stage 1 teaches each adapter the hidden state that enters the next static layer, then (*ours*, decisive) the teacher's
actions through the hard-skipped stack, skip positions sampled. Stage 2 trains controllers and adapters together:
``mixture`` is the paper's soft mixture with a loss on layers not skipped; ``error`` (*ours*, default) teaches each
controller the logarithm of the action error that a pass skipping there ends in, so that its output can be compared
with a tolerated error.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
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
    action_steps: int = 1200  # stage 1, action loss
    joint_steps: int = 800  # stage 2
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
        """Stage 1, first part; return the last loss (share of the target's variance that is not explained)."""
        optimiser, schedule = self._optimiser(self._adapters(), self.settings.hidden_steps)
        running = 0.0
        progress = tqdm(range(self.settings.hidden_steps), desc="stage 1: hidden states", unit="step", mininterval=2.0)
        for _ in progress:
            hidden, context, _ = self._batch()
            losses = []
            for first, end in self.partition.blocks:
                target = hidden[:, end]
                for layer in range(first, end):
                    adapted = self.modules.adapter(layer)(hidden[:, layer], context.token_mask)
                    # relative to what skipping without an adapter would leave
                    losses.append((adapted - target).square().mean() / (hidden[:, first] - target).square().mean())
            loss = torch.stack(losses).mean()
            self._step(loss, optimiser, schedule)
            running = 0.95 * running + 0.05 * float(loss.detach()) if running else float(loss.detach())
            progress.set_postfix(loss=f"{running:.3f}", refresh=False)
        return running

    def train_actions(self) -> float:
        """Stage 1, second part: action loss through the hard-skipped stack; return the last L1."""
        optimiser, schedule = self._optimiser(self._adapters(), self.settings.action_steps)
        running = 0.0
        progress = tqdm(range(self.settings.action_steps), desc="stage 1: actions", unit="step", mininterval=2.0)
        for _ in progress:
            hidden, context, teacher = self._batch()
            positions = sample_positions(self.partition, self._random)
            actions, _ = hard_pass(self.data.policy, self.partition, self.modules, hidden[:, 1], context, positions)
            loss = action_error(actions, teacher).mean()
            self._step(loss, optimiser, schedule)
            running = 0.95 * running + 0.05 * float(loss.detach()) if running else float(loss.detach())
            progress.set_postfix(l1=f"{running:.4f}", refresh=False)
        return running

    def train_joint(self) -> float:
        """Stage 2: controllers and adapters together; return the last loss."""
        settings = self.settings
        optimiser, schedule = self._optimiser(list(self.modules.parameters()), settings.joint_steps)
        running = 0.0
        progress = tqdm(
            range(settings.joint_steps), desc=f"stage 2: {settings.controllers}", unit="step", mininterval=2.0
        )
        for _ in progress:
            loss = self._error_loss() if settings.controllers == "error" else self._mixture_loss()
            self._step(loss, optimiser, schedule)
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

    def _adapters(self) -> list[torch.nn.Parameter]:
        return [*self.modules.adapters.parameters(), *self.modules.pools.parameters()]

    def _optimiser(
        self, parameters: list[torch.nn.Parameter], steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        optimiser = torch.optim.AdamW(parameters, lr=self.settings.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
        warm = max(1, steps // 20)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser,
            lambda step: min(1.0, (step + 1) / warm) * (0.05 + 0.475 * (1 + np.cos(np.pi * step / max(1, steps)))),
        )
        return optimiser, schedule

    @staticmethod
    def _step(loss: Tensor, optimiser: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
        optimiser.zero_grad()
        loss.backward()
        for group in optimiser.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimiser.step()
        schedule.step()
