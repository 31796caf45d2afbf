"""Which layers stay, with the teacher beside: similarity over some frames, then short trainings of both candidates."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from dysl_vla_ros.distillation.beside.progress import Interrupted, RunProgress
from dysl_vla_ros.distillation.beside.stages import DistillationBeside
from dysl_vla_ros.distillation.beside.teacher import TeacherBeside, alike
from dysl_vla_ros.distillation.candidates import StaticChoice, decide
from dysl_vla_ros.distillation.settings import DistillationSettings, ModuleSettings
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.skipping.importance import CosineSimilarity
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition

LOOKED_AT = 256  # frames whose pictures are in memory at once


def measure_similarity(
    policy: VlaPolicy, frames: Sequence[Observation], progress: RunProgress, together: int = 1
) -> tuple[float, ...]:
    """Return the mean cosine similarity between each layer's input and output over real tokens, (L,).

    Raises:
        Interrupted: it was asked to end.
        DataError: what the teacher computes is not finite.
    """
    layers = len(policy.layers)
    teacher = TeacherBeside(policy, frames, LayerPartition.full(layers), together=together)
    similarity, done = CosineSimilarity(layers), 0
    for first in range(0, len(frames), LOOKED_AT):
        seen = [frames[row] for row in range(first, min(first + LOOKED_AT, len(frames)))]
        for places in alike(seen, together):
            if progress.interrupted():
                raise Interrupted
            teacher.see([seen[place] for place in places], [0] * len(places), watch=similarity.update, decodes=False)
            done += len(places)
            progress.tell("teacher at full depth", done, len(frames), "")
    return tuple(round(float(value), 5) for value in similarity.mean())


def choose_static_beside(
    policy: VlaPolicy,
    learned: Sequence[Observation],
    held_out: Sequence[Observation],
    count: int,
    wanted: str,
    settings: DistillationSettings,
    progress: RunProgress,
    together: int = 1,
) -> StaticChoice:
    """Choose ``count`` static layers, as :func:`~dysl_vla_ros.distillation.static_choice.choose_static` does.

    Args:
        policy: the teacher.
        learned: frames that similarity is measured on and trials learn from.
        held_out: frames that trials are judged on.
        count: of static layers.
        wanted: "spread", "informative", or "auto": by the trials.
        settings: of the trials.
        progress: hears of it.
        together: frames of a pass at most.

    Raises:
        Interrupted: it was asked to end.
    """

    def trial(partition: LayerPartition) -> float:
        torch.manual_seed(settings.seed)
        sizes = ModuleSettings().sizes(policy.streams[0].width)
        modules = DyslModules(partition, policy.streams, **sizes).to(policy.device)
        own, others = (TeacherBeside(policy, frames, partition, together=together) for frames in (learned, held_out))
        named = replace(progress, tell=lambda label, *more: progress.tell(f"{list(partition.static)}: {label}", *more))
        job = DistillationBeside(partition, modules, own, settings, others, named)
        job.train_hidden()
        job.train_actions()
        return round(job.judge.floor_error(), 5)

    similarity = measure_similarity(policy, learned, progress, together)
    return decide(similarity, count, wanted, trial)
