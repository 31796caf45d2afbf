"""Which layers stay: both candidates of METHOD are built, trained briefly, and the smaller action error wins.

``informative`` takes the layers of lowest cosine similarity, ``spread`` spaces them evenly (*ours*: adapters mix tokens
little, a spread of static layers does it for them).
"""

import torch

from dysl_vla_ros.distillation.activations import Activations
from dysl_vla_ros.distillation.candidates import TRIAL_STEPS, StaticChoice, decide
from dysl_vla_ros.distillation.stages import Distillation, DistillationSettings
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition


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
    return decide(data.similarity, count, wanted, lambda partition: _trial(partition, data, held_out, steps, seed))


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
