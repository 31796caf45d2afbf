"""One stage's way down its loss: AdamW, a short warm-up and cosine, gradients of each kind of module at most 1 long."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from dysl_vla_ros.skipping.modules import DyslModules

LONGEST_GRADIENT = 1.0


def adapters_of(modules: DyslModules) -> list[nn.Parameter]:
    """Return all parameters but the controllers': of adapters and pools, followers' among them."""
    own = (modules.adapters, modules.pools, modules.followers)
    return [parameter for part in own for parameter in part.parameters()]


class Descent:
    """The optimiser of a stage. Gradients are made by whoever takes the steps.

    Attributes:
        parameters: that learn, in the order in which the optimiser has them.
        optimiser: with their moments.
        running: mean of the last losses.
    """

    def __init__(
        self,
        adapters: Sequence[nn.Parameter],
        controllers: Sequence[nn.Parameter],
        highest: float,
        adapter_rate: float,
        steps: int,
    ) -> None:
        """Let ``controllers`` learn at a rate of at most ``highest``, ``adapters`` at ``adapter_rate`` of it."""
        self.parameters = [*adapters, *controllers]
        self._steps, self._rates = steps, (adapter_rate * highest, highest)
        kinds = zip((adapters, controllers), self._rates, strict=True)
        groups = [{"params": list(own), "lr": rate} for own, rate in kinds]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))
        self.running = 0.0

    def clear(self) -> None:
        """Forget the gradients of the step before."""
        self.optimiser.zero_grad()

    def step(self, number: int, loss: float) -> None:
        """Take step ``number``, from 0 on, along the gradients that there are; ``loss``: of this step."""
        share = share_of_rate(number, self._steps)
        for group, rate in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        for group in self.optimiser.param_groups:  # each by itself: how wrong controllers are is nothing to adapters
            nn.utils.clip_grad_norm_(group["params"], LONGEST_GRADIENT)
        self.optimiser.step()
        self.running = 0.95 * self.running + 0.05 * loss if self.running else loss


def share_of_rate(step: int, steps: int) -> float:
    """Return the learning rate as a share of the highest: 5% of warm-up, then a cosine down to 5%."""
    warm = max(1, steps // 20)
    return min(1.0, (step + 1) / warm) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / max(1, steps))))
