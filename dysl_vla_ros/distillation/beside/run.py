"""A whole distillation with the teacher beside: from frames to a DySL folder, in the order of execution."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from dysl_vla_ros.distillation import stage_report
from dysl_vla_ros.distillation.beside.memory import MemorySizes, memory_lines, memory_need
from dysl_vla_ros.distillation.beside.plan import DistillationPlan
from dysl_vla_ros.distillation.beside.progress import ResumeWithin, RunProgress
from dysl_vla_ros.distillation.beside.stages import DistillationBeside
from dysl_vla_ros.distillation.beside.teacher import TeacherBeside
from dysl_vla_ros.distillation.initial_weights import chosen_modules, trained_modules
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.policies.interface import VlaPolicy

LOG = logging.getLogger(__name__)


def distill_beside(
    policy: VlaPolicy,
    learned: Sequence[Observation],
    held_out: Sequence[Observation],
    plan: DistillationPlan,
    progress: RunProgress,
) -> tuple[stage_report.Record, list[str]]:
    """Train both stages and write the folder; return the report and what is wrong with the result.

    Raises:
        Interrupted: it was asked to end; called again with the same plan it goes on.
        CheckpointError: the choice of static layers or the folder to go on from cannot be used.
        DataError: the policy or its values cannot be learned from, or the folder cannot be written to.
    """
    folder, goes_on, stages = Path(plan.folder), plan.go_on_from, plan.stages
    torch.manual_seed(stages.seed)
    initial = trained_modules(Path(goes_on), policy) if goes_on else chosen_modules(folder, policy, plan.modules)
    stages = replace(stages, hidden_steps=0) if goes_on else stages
    partition, modules = initial.partition, initial.modules.to(policy.device)
    LOG.info("static layers %s; %s", list(partition.static), stage_report.size_sentence(modules, policy))
    own, others = (TeacherBeside(policy, seen, partition, together=plan.together) for seen in (learned, held_out))
    say_memory(own, stage_report.parameters_of(modules))

    settings: list[Any] = [
        asdict(stages),
        dict(initial.sizes),
        list(partition.static),
        partition.per_block,
        policy.weights_hash,
    ]
    settings += [plan.together, dict(initial.gone_on_from or {})]
    resume = ResumeWithin(folder, settings, plan.digest)
    job = DistillationBeside(partition, modules, own, stages, others, progress, resume)
    start = job.judge.floor_error()
    LOG.info("before training: floor %.4f", start)
    records = stage_report.run_stages(stage_report.stages_of(job), resume, modules)
    LOG.info("\n".join(stage_report.tables(records)))
    warnings = stage_report.verdicts(start, records, gone_on=bool(goes_on))
    found = {"floor_error_before": round(start, 5), "warnings": warnings}
    report = stage_report.write_folder(folder, job, records, initial, told=plan.told, found=found)
    resume.remove()
    return report, warnings


def say_memory(teacher: TeacherBeside, trained: int) -> None:
    """Say what memory a run needs and what there is."""
    policy = teacher.policy
    with torch.no_grad():
        hidden, _ = policy.prepare([teacher.frames[0]], policy.noise([0]))
    sizes = MemorySizes.of(policy, hidden.shape[1])
    need = memory_need(sizes, teacher.partition, trained, teacher.together)
    LOG.info("\n".join(memory_lines(need, free_memory(policy.device, sizes.parameters * sizes.value_bytes))))


def free_memory(device: torch.device, loaded: int) -> float | None:
    """Return the GB that are free, with ``loaded`` bytes that the policy has already; None: nobody knows."""
    if device.type == "cuda":
        return (torch.cuda.mem_get_info(device)[0] + loaded) / 1e9
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    return (free + loaded) / 1e9
