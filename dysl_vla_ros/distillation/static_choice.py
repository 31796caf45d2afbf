"""Which layers stay: both candidates of METHOD are built, trained briefly, and the smaller action error wins.

``informative`` takes the layers of lowest cosine similarity, ``spread`` spaces them evenly (*ours*: adapters mix tokens
little, a spread of static layers does it for them).
"""

from dataclasses import dataclass

import numpy as np
import torch

from dysl_vla_ros.distillation.activations import Activations
from dysl_vla_ros.distillation.stages import Distillation, DistillationSettings
from dysl_vla_ros.skipping.importance import informative_static, spread_static
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition

TRIAL_STEPS = (150, 150)  # of the two parts of stage 1: enough to tell the floors apart


@dataclass(frozen=True)
class StaticChoice:
    """The partition that was chosen, and what it was chosen by."""

    choice: str  # "spread" or "informative"
    partition: LayerPartition
    similarity: tuple[float, ...]  # (L,)
    floor_errors: dict[str, float]  # candidate -> action L1 of its floor after the trial


def choose_static(
    data: Activations,
    count: int,
    wanted: str = "auto",
    steps: tuple[int, int] = TRIAL_STEPS,
    seed: int = 0,
    held_out: Activations | None = None,
) -> StaticChoice:
    """Choose ``count`` static layers; ``wanted`` names a candidate or leaves it to the trial ("auto").

    The floors are judged on ``held_out``, where there is that.
    """
    candidates, similarity = candidates_of(data, count), data.similarity
    if wanted != "auto":
        return StaticChoice(wanted, candidates[wanted], similarity, {})
    errors = {name: _trial(partition, data, held_out, steps, seed) for name, partition in candidates.items()}
    best = min(errors, key=lambda name: errors[name])
    return StaticChoice(best, candidates[best], similarity, errors)


def candidates_of(data: Activations, count: int, per_block: str = "all") -> dict[str, LayerPartition]:
    """Return both choices of ``count`` static layers, by name."""
    similarity = np.array(data.similarity)
    layers = len(similarity)
    return {
        "spread": LayerPartition(layers, spread_static(layers, count), per_block),
        "informative": LayerPartition(layers, informative_static(similarity, count), per_block),
    }


def _trial(
    partition: LayerPartition, data: Activations, held_out: Activations | None, steps: tuple[int, int], seed: int
) -> float:
    torch.manual_seed(seed)
    modules = DyslModules(partition, data.policy.streams).to(data.policy.device)
    hidden_steps, action_steps = steps
    settings = DistillationSettings(hidden_steps=hidden_steps, action_steps=action_steps, seed=seed)
    trial = Distillation(partition, modules, data, settings, held_out)
    trial.train_hidden()
    trial.train_actions()
    return round(trial.judge.floor_error(), 5)
