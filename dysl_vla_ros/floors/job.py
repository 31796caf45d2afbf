"""Floors from a checkpoint to table and picture: trained, played, drawn. What ``dysl_vla floors`` does."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from dysl_vla_ros.distillation.activations import Activations, inputs_of
from dysl_vla_ros.distillation.stages import DistillationSettings
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings, play_episodes
from dysl_vla_ros.files import require_writable, write_text
from dysl_vla_ros.floors.baselines import BaselineTable, fitting, read_tables
from dysl_vla_ros.floors.plots import write_floors_picture
from dysl_vla_ros.floors.records import comparable
from dysl_vla_ros.floors.training import PARAMETER_FILE, PARAMETERS, Progress, combinations, train_floor
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.settings import AT_FLOOR, FULL_DEPTH, RuntimeSettings
from dysl_vla_ros.simulation.seeds import calibration_seeds
from dysl_vla_ros.simulation.tasks import Task
from dysl_vla_ros.skipping.importance import check_count

LOG = logging.getLogger(__name__)
SIMILARITY_FRAMES = 1000


class Teacher(Protocol):
    """What the policy does at full depth with the data that floors learn from."""

    def count(self, wanted: int) -> int:
        """Return how many frames there are of ``wanted``."""
        ...

    def record(
        self, count: int, layers: Sequence[int] | None, *, held_out: bool, folder: Path | None, label: str
    ) -> Activations:
        """Run the policy over ``count`` frames; see ``record_activations``."""
        ...


@dataclass(frozen=True)
class FloorSettings:
    """Which floors are trained, alike, and how they are played."""

    sizes: Callable[[int], dict[str, int]]  # of the modules, of the hidden states' width
    static_layers: tuple[int, ...] = (2, 3, 4, 5, 7)  # numbers of static layers
    choices: tuple[str, ...] = ("informative", "spread")  # how they are chosen
    adapters: tuple[str, ...] = ("token", "pooled")  # kinds of adapter
    observations: int = 10_000  # frames to learn from
    held_out: int = 512  # frames of episodes that nothing is learned from, to judge by
    hidden_steps: int = 300  # of each floor, on hidden states
    action_steps: int = 1500  # of each, on the action through the floor
    batch_size: int = 64  # frames a step
    seed: int = 0  # of weights and batches
    compile: bool = True  # the frozen layers
    threads: int = 2  # compute threads
    evaluate: int = 0  # scenes a task that are played at each floor and at full depth; 0: none
    tasks: tuple[Task, ...] = ()  # that are played
    max_ticks: int = 200  # control ticks of 50 ms before an episode is lost
    jobs: int = 1  # processes that play
    beside: tuple[Path, ...] = ()  # table.json of comparisons, whose methods are drawn beside the floors
    told: Mapping[str, Any] = field(default_factory=dict)  # plain values on where the data is and how it is read


@dataclass(frozen=True)
class Floors:
    """What was found out."""

    records: Mapping[str, Mapping[str, Any]]  # of each floor, by the name of its DySL folder
    full_depth: Mapping[str, Any] | None  # what full depth did in closed loop; None: not played
    layers: int  # of the whole policy
    picture: Path | None  # None: nothing was played
    notes: tuple[str, ...]  # what is to be said of the picture


def train_floors(
    checkpoint: str | Path,
    open_teacher: Callable[[VlaPolicy], Teacher],
    out: str | Path,
    settings: FloorSettings,
) -> Floors:
    """Train the floors that are not trained yet, play what is not played yet, draw all that was played.

    Everything that is finished is kept in ``out/floors.json`` and in a DySL folder a floor, so that it goes on where it
    stopped; ``out/floor.yaml`` is the parameter file that runs each of them at its floor. Bars and the log show how far
    it is.

    Args:
        checkpoint: folder of the base checkpoint.
        open_teacher: opens the data for the policy; not called where every floor was trained before.
        out: folder for the results.
        settings: which floors, how they are trained and played.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        SettingError, DataError: a number of static layers leaves nothing to skip, a table cannot be drawn, the data
            cannot serve, or ``out`` holds floors made with other settings.
    """
    tables = read_tables(settings.beside)
    torch.set_num_threads(settings.threads)
    out, policy = Path(out), load_policy(Path(checkpoint))
    layers, sizes = len(policy.layers), settings.sizes(policy.streams[0].width)
    for count in settings.static_layers:
        if check_count(layers, count) == layers:
            raise DataError(f"--static-layers {count} of {layers} leaves nothing to skip")
    require_writable(out)
    stages = DistillationSettings(
        hidden_steps=settings.hidden_steps,
        action_steps=settings.action_steps,
        batch_size=settings.batch_size,
        floor_share=1.0,
        seed=settings.seed,
        compile=settings.compile,
    )
    plan = {
        "base_sha256": policy.weights_hash, **settings.told, "observations": settings.observations, "sizes": sizes,
        "settings": asdict(stages),
    }  # fmt: skip
    progress = Progress(out, plan)
    _train(policy, open_teacher, out, settings, stages, sizes, progress)
    write_text(out / PARAMETERS, PARAMETER_FILE)
    if settings.evaluate:
        _play(str(checkpoint), out, settings, progress)
    floors, full_depth = progress.values["floors"], progress.values["full_depth"]
    picture, notes = _draw(out, floors, full_depth, layers, tables)
    return Floors(floors, full_depth, layers, picture, notes)


def _train(
    policy: VlaPolicy,
    open_teacher: Callable[[VlaPolicy], Teacher],
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
    teacher = open_teacher(policy)
    frames = teacher.count(settings.observations)
    if not similarity:
        few = min(frames, SIMILARITY_FRAMES)
        similarity = teacher.record(few, (), held_out=False, folder=None, label="similarity").similarity
        progress.keep(similarity=list(similarity))
    floors = combinations(similarity, *wanted)
    left = [floor for floor in floors if not progress.finished(floor)]
    steps = stages.hidden_steps + stages.action_steps
    LOG.info("%d of %d floors to train, %d steps each", len(left), len(floors), steps)
    layers = inputs_of(policy, *(floor.partition(len(policy.layers)) for floor in left))
    learned = teacher.record(frames, layers, held_out=False, folder=out, label="teacher at full depth")
    held_out = teacher.record(settings.held_out, layers, held_out=True, folder=out, label="the same, held out")
    progress.keep(frames=len(learned), frames_held_out=len(held_out))
    for number, floor in enumerate(left):
        LOG.info("%d of %d: %s, static layers %s", number + 1, len(left), floor.name, list(floor.static))
        progress.keep_floor(train_floor(floor, policy, learned, held_out, stages, sizes, out / floor.name))


def _play(checkpoint: str, out: Path, settings: FloorSettings, progress: Progress) -> None:
    """Play full depth and every floor that was not played in as many scenes of the same tasks before."""
    seeds = calibration_seeds(settings.evaluate)
    about = {
        "seeds": [seeds.start, seeds.stop],
        "tasks": [task.name for task in settings.tasks],
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
            tasks=settings.tasks,
        )
        episodes = play_episodes(evaluation, settings.jobs)
        bar = tqdm(episodes, desc=label, total=len(settings.tasks) * len(seeds), unit="episode")
        ended = {(episode.task, episode.seed): bool(episode.success) for episode in bar}
        by_task = {task.name: [ended[task.name, seed] for seed in seeds] for task in settings.tasks}
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
