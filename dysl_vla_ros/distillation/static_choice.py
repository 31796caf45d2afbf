"""Which layers stay: both candidates of METHOD are built, trained briefly, and the smaller action error wins.

``informative`` takes the layers of lowest cosine similarity, ``spread`` spaces them evenly (*ours*: adapters mix tokens
little, a spread of static layers does it for them).
"""

from dataclasses import dataclass

import torch

from dysl_vla_ros.distillation.activations import Activations
from dysl_vla_ros.distillation.stages import Distillation, DistillationSettings
from dysl_vla_ros.skipping.importance import CosineSimilarity, informative_static, spread_static
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


def measure_similarity(data: Activations) -> tuple[float, ...]:
    """Return the mean cosine similarity between each layer's input and output (L,), over all real tokens."""
    layers = data.hidden.shape[1] - 1
    similarity = CosineSimilarity(layers)
    for rows in torch.arange(len(data)).split(256):
        hidden, context, _ = data.batch(rows)
        for layer in range(layers):
            similarity.update(layer, hidden[:, layer], hidden[:, layer + 1], context.token_mask)
    return tuple(round(float(value), 5) for value in similarity.mean())


def choose_static(
    data: Activations, count: int, wanted: str = "auto", steps: tuple[int, int] = TRIAL_STEPS, seed: int = 0
) -> StaticChoice:
    """Choose ``count`` static layers; ``wanted`` names a candidate or leaves it to the trial ("auto")."""
    similarity = measure_similarity(data)
    layers = len(similarity)
    candidates = {
        "spread": LayerPartition(layers, spread_static(layers, count)),
        "informative": LayerPartition(layers, informative_static(torch.tensor(similarity).numpy(), count)),
    }
    if wanted != "auto":
        return StaticChoice(wanted, candidates[wanted], similarity, {})
    errors = {name: _trial(partition, data, steps, seed) for name, partition in candidates.items()}
    best = min(errors, key=lambda name: errors[name])
    return StaticChoice(best, candidates[best], similarity, errors)


def _trial(partition: LayerPartition, data: Activations, steps: tuple[int, int], seed: int) -> float:
    torch.manual_seed(seed)
    modules = DyslModules(partition, data.policy.width)
    hidden_steps, action_steps = steps
    settings = DistillationSettings(hidden_steps=hidden_steps, action_steps=action_steps, seed=seed)
    trial = Distillation(partition, modules, data, settings)
    trial.train_hidden()
    trial.train_actions()
    return round(trial.floor_error(), 5)
