"""``dysl_vla floors``: how good every floor is by itself, before controllers are trained on one."""

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dysl_vla_ros.bags.folder import is_bag
from dysl_vla_ros.commands.argument_checks import require_data, require_numbers, require_policy, require_there
from dysl_vla_ros.commands.data_options import data_settings
from dysl_vla_ros.commands.distill import add_compile_argument, add_module_arguments
from dysl_vla_ros.commands.idle_options import warn_of_idle_options
from dysl_vla_ros.commands.recording_options import add_recording_arguments
from dysl_vla_ros.distillation.settings import LEAST_SIZES, ModuleSettings
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.jobs.learning_data import WHAT, open_data
from dysl_vla_ros.recordings.corrections import Corrections
from dysl_vla_ros.settings import AT_FLOOR, FULL_DEPTH, RuntimeSettings
from dysl_vla_ros.simulation.seeds import calibration_seeds
from dysl_vla_ros.simulation.tasks import TASK_CHOICES, tasks_named

SIMILARITY_FRAMES = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Train the floor (static layers, one adapter a block) of every combination of static layers and kind of "
        "adapter for equal steps, and say what each loses. Interrupted, it goes on where it stopped when it is started "
        "again. Each becomes a DySL folder in OUT. What was played in closed loop is drawn into OUT/floors.png."
    )
    parser.add_argument("checkpoint", type=Path, help="folder of the base checkpoint")
    parser.add_argument("data", type=Path, nargs="+", help=WHAT)
    parser.add_argument("--out", type=Path, required=True, help="folder for floors.json and the DySL folders")
    parser.add_argument(
        "--static-layers", type=int, nargs="+", default=[2, 3, 4, 5, 7], metavar="N", help="numbers of static layers"
    )
    parser.add_argument(
        "--static", nargs="+", choices=("informative", "spread"), default=["informative", "spread"],
        help="how they are chosen",
    )  # fmt: skip
    parser.add_argument(
        "--adapter", nargs="+", choices=("token", "pooled"), default=["token", "pooled"],
        help="token by token, or with a few pooled tokens",
    )  # fmt: skip
    parser.add_argument("--observations", type=int, default=10_000, help="frames to learn from")
    parser.add_argument("--hidden-steps", type=int, default=300, help="of each, on hidden states")
    parser.add_argument("--action-steps", type=int, default=1500, help="of each, on the action through the floor")
    parser.add_argument("--batch-size", type=int, default=64, help="frames a step")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches")
    add_module_arguments(parser)
    add_compile_argument(parser)
    parser.add_argument(
        "--evaluate", type=int, default=0, metavar="N",
        help="also play N scenes a task at each floor and at full depth, in closed loop (calibration scenes: no table "
        "has them)",
    )  # fmt: skip
    parser.add_argument(
        "--beside", type=Path, nargs="+", metavar="TABLE",
        help="draw the methods (m = 1) of these table.json, which `dysl_vla evaluate --methods` wrote, into floors.png",
    )  # fmt: skip
    parser.add_argument("--max-ticks", type=int, default=200, help="closed loop: ticks before an episode is lost")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help=f"simulator: of {TASK_CHOICES} (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="closed loop: processes")
    add_recording_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train what is not trained yet, play what is not played yet, show all."""
    import torch

    from dysl_vla_ros.distillation.stages import DistillationSettings
    from dysl_vla_ros.files import require_writable, write_text
    from dysl_vla_ros.floors.baselines import read_tables
    from dysl_vla_ros.floors.text import print_floors
    from dysl_vla_ros.floors.training import PARAMETER_FILE, PARAMETERS, Progress
    from dysl_vla_ros.jobs.distill import THREADS
    from dysl_vla_ros.policies.registry import load_policy
    from dysl_vla_ros.skipping.importance import check_count

    tables = read_tables(arguments.beside or [])
    torch.set_num_threads(THREADS)
    policy = load_policy(arguments.checkpoint)
    modules = ModuleSettings(**{name: getattr(arguments, name) for name in LEAST_SIZES})
    sizes = modules.sizes(policy.streams[0].width)
    for count in arguments.static_layers:
        if check_count(len(policy.layers), count) == len(policy.layers):
            raise DataError(f"--static-layers {count} of {len(policy.layers)} leaves nothing to skip")
    require_writable(arguments.out)
    settings = DistillationSettings(
        hidden_steps=arguments.hidden_steps,
        action_steps=arguments.action_steps,
        batch_size=arguments.batch_size,
        floor_share=1.0,
        seed=arguments.seed,
        compile=arguments.compile,
    )
    data = [str(path.resolve()) for path in arguments.data]
    plan = {
        "base_sha256": policy.weights_hash, "data": data, "tasks": arguments.tasks, "topic": arguments.topic,
        "instruction": arguments.instruction, "observations": arguments.observations, "sizes": sizes,
        "settings": asdict(settings),
    }  # fmt: skip
    told = data_settings(vars(arguments)).recordings.corrections
    plan |= {} if told == Corrections() else asdict(told)
    progress = Progress(arguments.out, plan)
    _train(arguments, policy, settings, sizes, progress)
    write_text(arguments.out / PARAMETERS, PARAMETER_FILE)
    if arguments.evaluate:
        _play(arguments, progress)
    floors, full_depth = progress.values["floors"], progress.values["full_depth"]
    print_floors(floors, full_depth, len(policy.layers))
    _draw(arguments.out, floors, full_depth, len(policy.layers), tables)
    print("in closed loop, in the scenes of the tables:")
    tasks = f" --tasks {shlex.join(arguments.tasks)}" if arguments.tasks else ""
    for name in floors:
        folder, params = (shlex.quote(str(arguments.out / own)) for own in (name, PARAMETERS))
        print(f"  dysl_vla evaluate {arguments.checkpoint} --adapters {folder} --params {params}{tasks}")
    return 0


def _train(arguments: argparse.Namespace, policy: Any, settings: Any, sizes: dict[str, int], progress: Any) -> None:
    from dysl_vla_ros.distillation.activations import inputs_of
    from dysl_vla_ros.floors.training import combinations, train_floor
    from dysl_vla_ros.jobs.distill import HELD_OUT
    from dysl_vla_ros.jobs.teacher import record_teacher
    from dysl_vla_ros.runtime.step import Runtime

    wanted = (arguments.static_layers, arguments.static, arguments.adapter)
    if (similarity := progress.values["similarity"]) and all(
        progress.finished(floor) for floor in combinations(similarity, *wanted)
    ):
        print("every floor was trained before")
        return
    data = open_data(arguments.data, data_settings(vars(arguments)), Runtime(policy, None))
    frames = data.learned_count(arguments.observations)
    if not similarity:
        few = min(frames, SIMILARITY_FRAMES)
        similarity = record_teacher(policy, data, few, (), label="similarity").similarity
        progress.keep(similarity=list(similarity))
    floors = combinations(similarity, *wanted)
    left = [floor for floor in floors if not progress.finished(floor)]
    print(f"{len(left)} of {len(floors)} floors to train, {settings.hidden_steps + settings.action_steps} steps each")
    layers = inputs_of(policy, *(floor.partition(len(policy.layers)) for floor in left))
    learned = record_teacher(policy, data, frames, layers, folder=arguments.out)
    held_out = record_teacher(
        policy, data, HELD_OUT, layers, held_out=True, folder=arguments.out, label="the same, held out"
    )
    progress.keep(frames=len(learned), frames_held_out=len(held_out))
    for number, floor in enumerate(left):
        print(f"{number + 1} of {len(left)}: {floor.name}, static layers {list(floor.static)}", flush=True)
        folder = arguments.out / floor.name
        progress.keep_floor(train_floor(floor, policy, learned, held_out, settings, sizes, folder))


def _play(arguments: argparse.Namespace, progress: Any) -> None:
    """Play full depth and every floor that was not played in as many scenes of the same tasks before."""
    seeds = calibration_seeds(arguments.evaluate)
    about = {
        "seeds": [seeds.start, seeds.stop],
        "tasks": [task.name for task in tasks_named(arguments.tasks)],
        "max_ticks": arguments.max_ticks,
    }

    def left(before: Mapping[str, Any] | None) -> bool:
        return {key: (before or {}).get(key) for key in about} != about

    floors = dict(progress.values["floors"])
    if left(progress.values["full_depth"]):
        any_floor = next(iter(floors))  # nothing of it runs
        progress.keep(full_depth=_played(arguments, about, FULL_DEPTH, any_floor, "full depth"))
    for name, record in floors.items():
        if left(record.get("closed_loop")):
            progress.keep_floor(record | {"closed_loop": _played(arguments, about, AT_FLOOR, name, name)})


def _played(
    arguments: argparse.Namespace, about: dict[str, Any], runtime: RuntimeSettings, folder: str, label: str
) -> dict[str, Any]:
    """Play ``about``'s scenes; return its closed-loop record."""
    from tqdm import tqdm

    from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings, play_episodes

    first, end = about["seeds"]
    settings = EvaluationSettings(
        runtime=runtime,
        max_ticks=arguments.max_ticks,
        first_seed=first,
        seeds=end - first,
        checkpoint=str(arguments.checkpoint),
        adapters=str(arguments.out / folder),
        tasks=tuple(tasks_named(arguments.tasks)),
    )
    bar = tqdm(
        play_episodes(settings, arguments.jobs), desc=label, total=len(settings.tasks) * (end - first), unit="episode"
    )
    ended = {(episode.task, episode.seed): bool(episode.success) for episode in bar}
    by_task = {task: [ended[task, seed] for seed in range(first, end)] for task in about["tasks"]}
    return about | {
        "episodes": len(ended),
        "successes": sum(ended.values()),
        "successes_by_task": {task: sum(own) for task, own in by_task.items()},
        "outcomes": {task: "".join("01"[success] for success in own) for task, own in by_task.items()},
    }


def _draw(
    out: Path, floors: Mapping[str, Any], full_depth: Mapping[str, Any] | None, layers: int, tables: Sequence[Any]
) -> None:
    """Write the picture where something was played, and say so."""
    from dysl_vla_ros.floors.baselines import fitting
    from dysl_vla_ros.floors.plots import write_floors_picture
    from dysl_vla_ros.floors.records import comparable

    played = comparable(floors, full_depth)
    if not played and not full_depth:
        if tables:
            print("no picture: nothing was played in closed loop; --evaluate N plays it")
        return
    points, said = fitting(tables, full_depth or played[0]["closed_loop"])
    for line in said:
        print(line)
    print(f"written: {write_floors_picture(out, floors, full_depth, layers, points)}")


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that make no sense, all at once, and what is not there."""
    ones = dict.fromkeys(("hidden_steps", "action_steps", "batch_size", "jobs", "max_ticks"), 1)
    require_numbers(vars(arguments), observations=2, **ones, evaluate=0)
    ModuleSettings(**{name: getattr(arguments, name) for name in LEAST_SIZES})
    closed_loop = ("jobs", "max_ticks")
    warn_of_idle_options(
        vars(arguments), add_arguments, (not arguments.evaluate, closed_loop, "nothing is played without --evaluate")
    )
    if arguments.evaluate:
        calibration_seeds(arguments.evaluate)
        if any(is_bag(path) for path in arguments.data):
            raise DataError("--evaluate plays in the simulator, which knows nothing of bags; leave it out")
    require_policy(arguments.checkpoint)
    require_data(arguments.data, data_settings(vars(arguments)))
    for path in arguments.beside or []:
        require_there(path, "--beside", "a table.json that `dysl_vla evaluate --methods` wrote")
