"""Floors from a checkpoint to table and picture: trained, played, drawn. What ``dysl_vla floors`` does."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dysl_vla_ros.comparison.floor_records import comparable
from dysl_vla_ros.distillation.passes import inputs_of
from dysl_vla_ros.distillation.settings import DistillationSettings
from dysl_vla_ros.engines.torch.devices import device_named
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings, play_episodes
from dysl_vla_ros.files import require_writable, write_text
from dysl_vla_ros.floors.baselines import BaselineTable, fitting, read_tables
from dysl_vla_ros.floors.plots import write_floors_picture
from dysl_vla_ros.floors.training import PARAMETER_FILE, PARAMETERS, Progress, combinations, train_floor
from dysl_vla_ros.jobs.distill import HELD_OUT, THREADS, record_teacher
from dysl_vla_ros.jobs.learning_data import open_data, paths_of
from dysl_vla_ros.jobs.settings import AnyPath, Data, FloorSettings
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.recordings.corrections import Corrections
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import AT_FLOOR, FULL_DEPTH, RuntimeSettings
from dysl_vla_ros.simulation.seeds import calibration_seeds
from dysl_vla_ros.simulation.tasks import require_learnable, tasks_named
from dysl_vla_ros.skipping.importance import check_count

LOG = logging.getLogger(__name__)
SIMILARITY_FRAMES = 1000


@dataclass(frozen=True)
class Floors:
    """What was found out."""

    records: Mapping[str, Mapping[str, Any]]  # of each floor, by the name of its DySL folder
    full_depth: Mapping[str, Any] | None  # what full depth did in closed loop; None: not played
    layers: int  # of the whole policy
    picture: Path | None  # None: nothing was played
    notes: tuple[str, ...]  # what is to be said of the picture


def train_floors(checkpoint: AnyPath, data: Data, out: AnyPath, settings: FloorSettings | None = None) -> Floors:
    """Train the floors that are not trained yet, play what is not played yet, draw all that was played.

    Everything that is finished is kept in ``out/floors.json`` and in a DySL folder a floor, so that it goes on where it
    stopped; ``out/floor.yaml`` is the parameter file that runs each of them at its floor. Bars and the log show how far
    it is.

    Args:
        checkpoint: folder of the base checkpoint.
        data: a folder that ``dysl_vla demonstrations`` wrote, or one or more bags.
        out: folder for the results.
        settings: which floors, how they are trained and played; None: the defaults of the command line.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        SettingError, DataError: the device is not there, a number of static layers leaves nothing to skip, a table
            cannot be drawn, the data cannot serve, or ``out`` holds floors made with other settings.
        BagError: a bag cannot serve the policy.
    """
    settings = settings or FloorSettings()
    stages = replace(settings.stages, floor_share=1.0)
    tables = read_tables(settings.beside)
    require_learnable(tasks_named(settings.evaluate_tasks or settings.data.tasks))  # floors are chosen on them
    device = device_named(settings.device, "--device")
    torch.set_num_threads(THREADS)
    out, paths, policy = Path(out), paths_of(data), load_policy(Path(checkpoint), device)
    layers, sizes = len(policy.layers), settings.modules.sizes(policy.streams[0].width)
    for count in settings.static_layers:
        if check_count(layers, count) == layers:
            raise DataError(f"--static-layers {count} of {layers} leaves nothing to skip")
    require_writable(out)
    progress = Progress(out, _plan(policy, paths, settings, stages, sizes))
    _train(policy, paths, out, settings, stages, sizes, progress)
    write_text(out / PARAMETERS, PARAMETER_FILE)
    if settings.evaluate:
        _play(str(checkpoint), out, settings, progress)
    floors, full_depth = progress.values["floors"], progress.values["full_depth"]
    picture, notes = _draw(out, floors, full_depth, layers, tables)
    return Floors(floors, full_depth, layers, picture, notes)


def _plan(
    policy: VlaPolicy,
    paths: Sequence[Path],
    settings: FloorSettings,
    stages: DistillationSettings,
    sizes: dict[str, int],
) -> dict[str, Any]:
    """Return all that a floor's figures depend on, but for the combination, as plain values."""
    read = settings.data.recordings
    plan = {
        "base_sha256": policy.weights_hash, "data": [str(path.resolve()) for path in paths],
        "tasks": list(settings.data.tasks) or None, "topic": [":=".join(own) for own in read.remapped.items()],
        "instruction": read.instruction, "observations": settings.observations, "sizes": sizes,
        "settings": asdict(stages),
    }  # fmt: skip
    plan |= {} if settings.device == "cpu" else {"device": settings.device}  # results before there was one go on
    return plan | ({} if read.corrections == Corrections() else asdict(read.corrections))


def _train(
    policy: VlaPolicy,
    paths: Sequence[Path],
    out: Path,
    settings: FloorSettings,
    stages: DistillationSettings,
    sizes: dict[str, int],
    progress: Progress,
) -> None:
    wanted = (settings.static_layers, settings.choices, settings.adapters)
    if (similarity := progress.values["similarity"]) and all(
        progress.finished(floor) for floor in combinations(similarity, *wanted)
    ):
        LOG.info("every floor was trained before")
        return
    data = open_data(paths, settings.data, Runtime(policy, None))
    frames = data.learned_count(settings.observations)
    if not similarity:
        few = min(frames, SIMILARITY_FRAMES)
        similarity = record_teacher(policy, data, few, (), label="similarity").similarity
        progress.keep(similarity=list(similarity))
    floors = combinations(similarity, *wanted)
    left = [floor for floor in floors if not progress.finished(floor)]
    steps = stages.hidden_steps + stages.action_steps
    LOG.info("%d of %d floors to train, %d steps each", len(left), len(floors), steps)
    layers = inputs_of(policy, *(floor.partition(len(policy.layers)) for floor in left))
    learned = record_teacher(policy, data, frames, layers, folder=out)
    held_out = record_teacher(policy, data, HELD_OUT, layers, held_out=True, folder=out, label="the same, held out")
    progress.keep(frames=len(learned), frames_held_out=len(held_out))
    for number, floor in enumerate(left):
        LOG.info("%d of %d: %s, static layers %s", number + 1, len(left), floor.name, list(floor.static))
        progress.keep_floor(train_floor(floor, policy, learned, held_out, stages, sizes, out / floor.name))


def _play(checkpoint: str, out: Path, settings: FloorSettings, progress: Progress) -> None:
    """Play full depth and every floor that was not played in as many scenes of the same tasks before."""
    seeds = calibration_seeds(settings.evaluate)
    tasks = tuple(tasks_named(settings.evaluate_tasks or settings.data.tasks))
    about = {
        "seeds": [seeds.start, seeds.stop],
        "tasks": [task.name for task in tasks],
        "max_ticks": settings.max_ticks,
    }

    def left(before: Mapping[str, Any] | None) -> bool:
        return {key: (before or {}).get(key) for key in about} != about

    def played(runtime: RuntimeSettings, folder: str, label: str) -> dict[str, Any]:
        evaluation = EvaluationSettings(
            runtime=runtime,
            max_ticks=settings.max_ticks,
            first_seed=seeds.start,
            seeds=len(seeds),
            checkpoint=checkpoint,
            adapters=str(out / folder),
            tasks=tasks,
            device=settings.device,
        )
        episodes = play_episodes(evaluation, settings.jobs)
        bar = tqdm(episodes, desc=label, total=len(tasks) * len(seeds), unit="episode")
        ended = {(episode.task, episode.seed): bool(episode.success) for episode in bar}
        by_task = {task.name: [ended[task.name, seed] for seed in seeds] for task in tasks}
        return about | {
            "episodes": len(ended),
            "successes": sum(ended.values()),
            "successes_by_task": {task: sum(own) for task, own in by_task.items()},
            "outcomes": {task: "".join("01"[success] for success in own) for task, own in by_task.items()},
        }

    floors = dict(progress.values["floors"])
    if left(progress.values["full_depth"]):
        any_floor = next(iter(floors))  # nothing of it runs
        progress.keep(full_depth=played(FULL_DEPTH, any_floor, "full depth"))
    for name, record in floors.items():
        if left(record.get("closed_loop")):
            progress.keep_floor(record | {"closed_loop": played(AT_FLOOR, name, name)})


def _draw(
    out: Path,
    floors: Mapping[str, Any],
    full_depth: Mapping[str, Any] | None,
    layers: int,
    tables: Sequence[BaselineTable],
) -> tuple[Path | None, tuple[str, ...]]:
    """Write the picture where something was played; return it, and what is to be said of it."""
    played = comparable(floors, full_depth)
    if not played and not full_depth:
        nothing = "no picture: nothing was played in closed loop; --evaluate N plays it"
        return None, (nothing,) if tables else ()
    points, notes = fitting(tables, full_depth or played[0]["closed_loop"])
    return write_floors_picture(out, floors, full_depth, layers, points), tuple(notes)
