"""Adapters and controllers for a frozen policy: from paths to a DySL folder, in the order of execution.

The folder has no thresholds; :mod:`dysl_vla_ros.jobs.calibrate` searches them. What is trained on is what the teacher,
the same policy with every layer run, does (:func:`record_teacher`).
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from dysl_vla_ros.distillation import stage_report
from dysl_vla_ros.distillation.activations import Activations, record_activations
from dysl_vla_ros.distillation.initial_weights import chosen_modules, trained_modules
from dysl_vla_ros.distillation.passes import inputs_of
from dysl_vla_ros.distillation.resume import Resume
from dysl_vla_ros.distillation.stage_report import verdicts
from dysl_vla_ros.distillation.stages import Distillation
from dysl_vla_ros.engines.torch.devices import device_named
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.files import require_writable
from dysl_vla_ros.jobs.learning_data import folder_of, open_data, paths_of
from dysl_vla_ros.jobs.results import Distilled
from dysl_vla_ros.jobs.settings import AnyPath, Data, DistillSettings
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.policies.layouts import OURS, layout_of
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.runs.training_data import TrainingData
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.simulation.tasks import tasks_named
from dysl_vla_ros.training.demonstration_data import DemonstrationData

LOG = logging.getLogger(__name__)
HELD_OUT = 512  # frames of episodes that nothing is learned from, to judge by
THREADS = min(2, os.cpu_count() or 1)  # for operations this small more were never tried


def distill(
    checkpoint: AnyPath, data: Data, adapters: AnyPath = "", settings: DistillSettings | None = None
) -> Distilled:
    """Record the teacher, train both stages, write the DySL folder.

    Interrupted, it goes on behind the last finished stage when it is called again.

    Args:
        checkpoint: folder of the base, which stays as it is.
        data: a folder that ``dysl_vla demonstrations`` wrote, or one or more bags; for LeRobot's checkpoints
            LeRobotDataset folders too.
        adapters: DySL folder, in which ``calibrate`` has chosen static layers; "": ``dysl`` in the checkpoint.
        settings: None: the defaults of the command line.

    Raises:
        CheckpointError: the checkpoint, the choice of static layers or the folder to go on from cannot be used.
        DataError: there is too little data, or it is neither demonstrations nor bags; the folder cannot be written to.
        BagError: a bag cannot serve the policy.
        SettingError: the device is not there.
        WorkerError: another project's checkpoint cannot be loaded in its Python; says why.
    """
    settings = settings or DistillSettings()
    if layout_of(Path(checkpoint)) != OURS:
        from dysl_vla_ros.job_worker.opening import opened_worker
        from dysl_vla_ros.jobs import apart

        folder = folder_of(checkpoint, adapters)
        with opened_worker(checkpoint, folder, settings.apart, settings.device) as worker:
            return apart.train(worker, apart.open_here(worker, data, settings.data), folder, settings)
    stages, goes_on = settings.stages, settings.go_on_from
    device = device_named(settings.device, "--device")
    torch.set_num_threads(THREADS)
    torch.manual_seed(stages.seed)
    folder = folder_of(checkpoint, adapters)
    policy = load_policy(Path(checkpoint), device)
    initial = trained_modules(goes_on, policy) if goes_on else chosen_modules(folder, policy, settings.modules)
    require_writable(folder)
    partition, modules = initial.partition, initial.modules.to(policy.device)
    if initial.gone_on_from and initial.gone_on_from["base_sha256"] != policy.weights_hash:
        LOG.info("%s was made for another checkpoint: its adapters are where training begins", goes_on)
    LOG.info("static layers %s; %s", list(partition.static), stage_report.size_sentence(modules, policy))

    opened = open_data(paths_of(data), settings.data, Runtime(policy, None))
    count, layers = opened.learned_count(settings.observations), inputs_of(policy, partition)
    activations = record_teacher(
        policy, opened, count, layers, variants=settings.variants, seed=stages.seed, folder=folder
    )
    held_out = record_teacher(
        policy, opened, HELD_OUT, layers, held_out=True, folder=folder, label="the same, held out"
    )
    aside = _frames_aside(policy, paths_of(data), settings, layers, folder)
    if goes_on:
        stages = replace(stages, hidden_steps=0)
    job = Distillation(partition, modules, activations, stages, held_out, aside)
    plan: list[Any] = [asdict(stages), dict(initial.sizes), list(partition.static), partition.per_block]
    plan += [policy.weights_hash]
    plan += [dict(initial.gone_on_from)] if initial.gone_on_from else []
    plan += [list(settings.controller_tasks), len(aside[0])] if aside else []
    resume = Resume(folder, plan, activations.actions)
    start = job.judge.floor_error()
    LOG.info("before training: floor %.4f", start)
    records = stage_report.run_stages(stage_report.stages_of(job), resume, modules)
    LOG.info("\n".join(stage_report.tables(records)))
    warnings = verdicts(start, records, gone_on=bool(goes_on))
    found = {"floor_error_before": round(start, 5), "warnings": warnings}
    if aside:
        found |= {"controller_tasks": list(settings.controller_tasks), "controller_frames": len(aside[0])}
    report = stage_report.write_folder(folder, job, records, initial, told=opened.told(), found=found)
    resume.remove()
    return Distilled(folder, report, tuple(warnings), opened)


def _frames_aside(
    policy: VlaPolicy, paths: Sequence[Path], settings: DistillSettings, layers: Sequence[int], folder: Path
) -> tuple[Activations, Activations] | None:
    """Record the teacher on tasks that controllers alone learn from: frames to learn from and to judge by, or None."""
    if not settings.controller_tasks or settings.stages.controllers == "mixture":
        return None
    data = DemonstrationData(paths[0], tasks_named(settings.controller_tasks))
    count = data.learned_count(settings.observations)
    label = "tasks of controllers"
    learned = record_teacher(policy, data, count, layers, folder=folder, label=label)
    judged = record_teacher(policy, data, HELD_OUT, layers, held_out=True, folder=folder, label=f"{label}, held out")
    return learned, judged


def record_teacher(
    policy: VlaPolicy,
    data: TrainingData,
    count: int,
    layers: Sequence[int] | None = None,
    *,
    held_out: bool = False,
    variants: int = 0,
    seed: int = 0,
    folder: Path | None = None,
    label: str = "teacher at full depth",
) -> Activations:
    """Run the teacher over data: frames from everywhere, or whole episodes where its decoding has a memory.

    Args:
        policy: the teacher.
        data: what it sees.
        count: frames that are wanted.
        layers: see ``record_activations``.
        held_out: of the frames that nothing is learned from.
        variants: of each frame, beside it.
        seed: of the variants.
        folder: see ``record_activations``.
        label: of the progress bar.

    Raises:
        DataError: too few frames; variants, which would break the order of an episode, for a policy with a memory.
    """
    if policy.initial_state() is None:
        seen = data.held_out_observations(count) if held_out else data.observations(count)
        if variants:
            from dysl_vla_ros.training.augmentation import with_variants

            seen, count = with_variants(seen, variants, seed), count * (1 + variants)
        return record_activations(policy, seen, count, layers, folder=folder, label=label)
    if variants:
        raise DataError(
            f"--variants {variants}: the {policy.family} policy decodes with a memory and learns from whole episodes, "
            "whose order variants would break; give --variants 0"
        )
    seen, begins = data.in_order(count, held_out=held_out)
    return record_activations(policy, seen, len(begins), layers, begins=begins, folder=folder, label=label)
