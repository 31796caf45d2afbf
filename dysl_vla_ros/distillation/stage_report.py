"""What each stage of a distillation did, as plain values: kept across interruptions, written to ``distillation.json``.

A record has ``stage``, ``steps``, ``seconds``, ``loss``, and: stage 1, hidden states: ``reconstruction`` (skip point ->
share of the skipped change left unexplained); stage 1, actions: ``floor_error``; stage 2: ``floor_error``, ``kind`` and
``judgements``; where controllers learned from frames aside also ``judgements_aside``, on others of those. Errors are
action L1, normalised, on the frames to judge by.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from dysl_vla_ros.distillation.initial_weights import InitialWeights
from dysl_vla_ros.distillation.judging import Judge, Judgement, SeenTeacher
from dysl_vla_ros.distillation.resume import Resume
from dysl_vla_ros.distillation.settings import DistillationSettings
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.runtime.folder import save_dysl
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition

LOG = logging.getLogger(__name__)
REPORT = "distillation.json"
LARGEST_SHARE = 0.1  # of the policy's parameters
Record = dict[str, Any]
USEFUL_FLOOR = 0.05  # action L1, normalised; above it most layers have to run, whatever controllers have learned
BETTER = 0.99  # times the floor at the start: less than that has been learned
HARMED = 1.25  # times the floor of stage 1: what stage 2 may lose of it, which evens out in no run that was of use


class DistillationJob(Protocol):
    """A distillation, however it sees its teacher."""

    partition: LayerPartition
    modules: DyslModules
    settings: DistillationSettings
    judge: Judge
    judgements: list[Judgement]
    judgements_aside: list[Judgement]

    @property
    def data(self) -> SeenTeacher:
        """The frames that it learns from."""
        ...

    def train_hidden(self) -> float:
        """Stage 1, first part."""
        ...

    def train_actions(self) -> float:
        """Stage 1, second part."""
        ...

    def train_joint(self) -> float:
        """Stage 2."""
        ...


def stages_of(job: DistillationJob) -> list[Callable[[], Record]]:
    """Return the stages in their order; each trains and returns its record. One of no steps is left out."""
    settings, judge = job.settings, job.judge

    def hidden() -> Record:
        loss = job.train_hidden()
        shares = {str(layer): round(share, 4) for layer, share in judge.reconstruction().items()}
        return {
            "stage": "stage 1, hidden states",
            "steps": settings.hidden_steps,
            "loss": loss,
            "reconstruction": shares,
        }

    def actions() -> Record:
        loss, floor = job.train_actions(), judge.floor_error()
        return {"stage": "stage 1, actions", "steps": settings.action_steps, "loss": loss, "floor_error": floor}

    def controllers() -> Record:
        loss, floor = job.train_joint(), judge.floor_error()
        judgements = [_rounded(asdict(own)) for own in job.judgements]
        what = {
            "stage": f"stage 2, {settings.controllers}",
            "kind": settings.controllers,
            "steps": settings.joint_steps,
        }
        aside = [_rounded(asdict(own)) for own in job.judgements_aside]
        more = {"judgements_aside": aside} if aside else {}
        return what | {"loss": loss, "floor_error": floor, "judgements": judgements} | more

    return [hidden, actions, controllers] if settings.hidden_steps else [actions, controllers]


def run_stages(stages: Sequence[Callable[[], Record]], resume: Resume, modules: nn.Module) -> list[Record]:
    """Run the stages that are not finished, keep what each leaves, say what came of each; return all records."""
    resume.load(modules)
    for record in resume.records:
        LOG.info("%s (finished before)", sentence(record))
    for stage in stages[len(resume.records) :]:
        begun = time.monotonic()
        record = _rounded(stage()) | {"seconds": round(time.monotonic() - begun, 3)}
        LOG.info(sentence(record))
        resume.save(modules, record)
    return list(resume.records)


def write_folder(
    folder: Path,
    job: DistillationJob,
    records: Sequence[Record],
    initial: InitialWeights,
    *,
    calibration: Mapping[str, Any] | None = None,
    told: Mapping[str, Any] | None = None,
    found: Mapping[str, Any] | None = None,
) -> Record:
    """Write what a distillation has made: the DySL folder, and ``distillation.json`` in it.

    Args:
        folder: the DySL folder.
        job: whose modules they are.
        records: of its stages.
        initial: what it began with; the steps and seconds of an earlier training count.
        calibration: of ``calibration.json``; None: thresholds are not searched yet.
        told: the recordings that were learned from and what the user said of them, plain values.
        found: what else is to be kept in ``distillation.json``: the floor before training, warnings.

    Returns:
        What ``distillation.json`` holds.
    """
    policy = job.data.policy
    about = {
        "settings": asdict(job.settings),
        "frames": len(job.data),
        "frames_held_out": len(job.judge.data),
    }
    about |= {"recordings": dict(told)} if told else {}
    written = report(records, job.modules, policy, **about, **(found or {}))
    if before := initial.gone_on_from:
        written["training_steps"] += before["steps"]
        written["training_seconds"] = round(written["training_seconds"] + before["seconds"], 3)
        written["gone_on_from"] = dict(before)
    save_dysl(
        folder,
        job.partition,
        job.modules,
        family=policy.family,
        base_sha256=policy.weights_hash,
        choice=initial.choice,
        module_sizes=initial.sizes,
        calibration=calibration,
        training={"steps": written["training_steps"], "seconds": written["training_seconds"]},
        beside={REPORT: written},
    )
    return written


def sentence(record: Record) -> str:
    """Return what came of a stage in one line."""
    parts = [f"loss {record['loss']:.4f}"]
    if shares := record.get("reconstruction"):
        mean = sum(shares.values()) / len(shares)
        parts.append(f"{mean:.3f} of the skipped change is left unexplained")
    if "floor_error" in record:
        parts.append(f"floor {record['floor_error']:.4f}")
    return f"{record['stage']}: {', '.join(parts)}; {record['steps']} steps, {record['seconds']:.0f} s"


def report(records: Sequence[Record], modules: nn.Module, policy: VlaPolicy, **more: Any) -> Record:
    """Return what ``distillation.json`` holds; ``more`` is put in as it is."""
    return {
        "training_steps": sum(record["steps"] for record in records),
        "training_seconds": round(sum(record["seconds"] for record in records), 3),
        "trainable_parameters": parameters_of(modules),
        "policy_parameters": policy.weight_count,
        **more,
        "stages": list(records),
    }


def tables(records: Sequence[Record]) -> list[str]:
    """Return the lines of two short tables: what adapters leave unexplained, what stage 2 did on its way."""
    lines: list[str] = []
    for record in records:
        if shares := record.get("reconstruction"):
            lines.append("left unexplained of the skipped change, by layer (1: as without an adapter):")
            cells = [f"{layer:>3} {share:.3f}" for layer, share in shares.items()]
            lines += ["  ".join(cells[start : start + 8]) for start in range(0, len(cells), 8)]
        for name, where in (("judgements", ""), ("judgements_aside", "on tasks that adapters do not learn from:")):
            if not (judgements := record.get(name)):
                continue
            heads = ("step", "skipped", "soft mixture", "hard threshold", "rank correlation")
            lines += [where] if where else []
            lines.append("".join(f"{head:>18}" for head in heads))
            for own in judgements:
                related = own["rank_correlation"]
                cells = [str(own["step"]), f"{own['skip_rate']:.0%}", f"{own['soft_error']:.4f}"]
                cells += [f"{own['hard_error']:.4f}", "flat" if related is None else f"{related:.2f}"]
                lines.append("".join(f"{cell:>18}" for cell in cells))
    return lines


def parameters_of(modules: nn.Module) -> int:
    """Return how many parameters are trained."""
    return sum(parameter.numel() for parameter in modules.parameters())


def size_sentence(modules: nn.Module, policy: VlaPolicy) -> str:
    """Return how much is trained, with a warning where it is more than a tenth of the policy."""
    own, whole = parameters_of(modules), policy.weight_count
    said = f"{own:,} parameters to train, {own / whole:.1%} of the policy's {whole:,}"
    if own <= LARGEST_SHARE * whole:
        return said
    return (
        f"{said}\nwarning: that is more than a tenth; --adapters-per-block first, a smaller --bottleneck or "
        "--adapter token make it less"
    )


def _rounded(values: Record) -> Record:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()}


def verdicts(start: float, records: Sequence[Mapping[str, Any]], *, gone_on: bool) -> list[str]:
    """Return a sentence for each thing that is wrong with a distillation, with what to do.

    Args:
        start: action L1 of the floor before training, on the frames to judge by, normalised.
        records: of the stages, first to last (see above).
        gone_on: it began with the adapters of an earlier one; else with new ones, which are the identity.
    """
    floors = [record["floor_error"] for record in records if "floor_error" in record]
    if not floors:
        return []
    found, end = [], floors[-1]
    if end > BETTER * start:
        begun = "the adapters that it went on from have" if gone_on else "the identity has, without any training,"
        remedy = "keep those" if gone_on else "do not use them"
        found.append(
            f"the floor is {end:.4f}, no better than the {start:.4f} that {begun} on the same held-out frames: "
            f"{remedy}; train again with more --observations and --action-steps, or a smaller --learning-rate"
        )
    if len(floors) > 1 and end > HARMED * floors[0]:
        found.append(
            f"stage 2 has made the floor worse, {floors[0]:.4f} before it and {end:.4f} after: train again with a "
            "smaller --adapter-rate (0: adapters stay as stage 1 has left them), or with --controllers error"
        )
    if end > USEFUL_FLOOR:
        found.append(
            f"the floor is {end:.4f}; above {USEFUL_FLOOR:g} controllers and verification have to run most layers: "
            "record more, train longer (--action-steps), or choose more static layers (`dysl_vla calibrate "
            "--static-ratio 0.3`)"
        )
    return found
