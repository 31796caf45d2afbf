"""``dysl_vla floors``: how good every floor is by itself, before controllers are trained on one."""

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dysl_vla_ros.commands.distill import HELD_OUT, add_module_arguments, module_sizes
from dysl_vla_ros.commands.training_data import WHAT, add_bag_arguments, is_bag, open_data
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.simulation.seeds import calibration_seeds
from dysl_vla_ros.simulation.tasks import TASK_CHOICES, tasks_named

SIMILARITY_FRAMES = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Train the floor (static layers, one adapter a block) of every combination of static layers and kind of "
        "adapter for equal steps, and say what each loses. Interrupted, it goes on where it stopped when it is started "
        "again. Each becomes a DySL folder in OUT."
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
    parser.add_argument(
        "--evaluate", type=int, default=0, metavar="N",
        help="also play N scenes a task at each floor, in closed loop (calibration scenes: no table has them)",
    )  # fmt: skip
    parser.add_argument("--max-ticks", type=int, default=200, help="closed loop: ticks before an episode is lost")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help=f"simulator: of {TASK_CHOICES} (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="closed loop: processes")
    add_bag_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train what is not trained yet, play what is not played yet, show all."""
    import torch

    from dysl_vla_ros.distillation.floors import PARAMETER_FILE, PARAMETERS, Progress
    from dysl_vla_ros.distillation.stages import DistillationSettings
    from dysl_vla_ros.files import require_writable, write_text
    from dysl_vla_ros.policies.registry import load_policy
    from dysl_vla_ros.skipping.importance import check_count

    _check(arguments)
    sizes = module_sizes(arguments, "pooled")
    torch.set_num_threads(1)
    policy = load_policy(arguments.checkpoint)
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
    )
    data = [str(path.resolve()) for path in arguments.data]
    plan = {
        "base_sha256": policy.model_hash, "data": data, "tasks": arguments.tasks, "topic": arguments.topic,
        "instruction": arguments.instruction, "observations": arguments.observations, "sizes": sizes,
        "settings": asdict(settings),
    }  # fmt: skip
    progress = Progress(arguments.out, plan)
    _train(arguments, policy, settings, sizes, progress)
    write_text(arguments.out / PARAMETERS, PARAMETER_FILE)
    if arguments.evaluate:
        _play(arguments, progress)
    show(progress.values["floors"], len(policy.layers))
    print("in closed loop, in the scenes of the tables:")
    tasks = f" --tasks {shlex.join(arguments.tasks)}" if arguments.tasks else ""
    for name in progress.values["floors"]:
        folder, params = (shlex.quote(str(arguments.out / own)) for own in (name, PARAMETERS))
        print(f"  dysl_vla evaluate {arguments.checkpoint} --adapters {folder} --params {params}{tasks}")
    return 0


def _train(arguments: argparse.Namespace, policy: Any, settings: Any, sizes: dict[str, int], progress: Any) -> None:
    from dysl_vla_ros.distillation.activations import inputs_of, record_activations
    from dysl_vla_ros.distillation.floors import combinations, train_floor
    from dysl_vla_ros.runtime.step import Runtime

    wanted = (arguments.static_layers, arguments.static, arguments.adapter)
    if (similarity := progress.values["similarity"]) and all(
        progress.finished(floor) for floor in combinations(similarity, *wanted)
    ):
        print("every floor was trained before")
        return
    data = open_data(arguments.data, arguments, Runtime(policy, None).description)
    frames = data.count(arguments.observations)
    if not similarity:
        few = min(frames, SIMILARITY_FRAMES)
        similarity = record_activations(policy, data.observations(few), few, (), label="similarity").similarity
        progress.keep(similarity=list(similarity))
    floors = combinations(similarity, *wanted)
    left = [floor for floor in floors if not progress.finished(floor)]
    print(f"{len(left)} of {len(floors)} floors to train, {settings.hidden_steps + settings.action_steps} steps each")
    layers = inputs_of(*(floor.partition(len(policy.layers)) for floor in left))
    learned = record_activations(policy, data.observations(frames), frames, layers, folder=arguments.out)
    held_out = record_activations(
        policy, data.held_out(HELD_OUT), HELD_OUT, layers, folder=arguments.out, label="the same, held out"
    )
    progress.keep(frames=len(learned), frames_held_out=len(held_out))
    for number, floor in enumerate(left):
        print(f"{number + 1} of {len(left)}: {floor.name}, static layers {list(floor.static)}", flush=True)
        folder = arguments.out / floor.name
        progress.keep_floor(train_floor(floor, policy, learned, held_out, settings, sizes, folder))


def _play(arguments: argparse.Namespace, progress: Any) -> None:
    """Play every floor that was not played in as many scenes of the same tasks before."""
    from tqdm import tqdm

    from dysl_vla_ros.distillation.floors import AT_FLOOR
    from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings, evaluate

    seeds, tasks = calibration_seeds(arguments.evaluate), tuple(tasks_named(arguments.tasks))
    about = {
        "seeds": [seeds.start, seeds.stop],
        "tasks": [task.name for task in tasks],
        "max_ticks": arguments.max_ticks,
    }
    for name, record in list(progress.values["floors"].items()):
        before = record.get("closed_loop", {})
        if {key: before.get(key) for key in about} == about:
            continue
        settings = EvaluationSettings(
            runtime=AT_FLOOR,
            max_ticks=arguments.max_ticks,
            first_seed=seeds.start,
            seeds=len(seeds),
            checkpoint=str(arguments.checkpoint),
            adapters=str(arguments.out / name),
            tasks=tasks,
        )
        bar = tqdm(evaluate(settings, arguments.jobs), desc=name, total=len(tasks) * len(seeds), unit="episode")
        played = [(episode.task, bool(episode.success)) for episode in bar]
        by_task = {task.name: sum(success for own, success in played if own == task.name) for task in tasks}
        result = about | {"episodes": len(played), "successes": sum(by_task.values()), "successes_by_task": by_task}
        progress.keep_floor(record | {"closed_loop": result})


def show(floors: Mapping[str, Mapping[str, Any]], layers: int) -> None:
    """Print every floor, in the order of its layers."""
    heads = ("floor", "layers", "parameters", "steps", "seconds", "action L1", "closed loop")
    widths = (24, 10, 12, 8, 9, 11, 13)
    rows: list[Sequence[str]] = [heads]
    for name, own in sorted(floors.items(), key=lambda item: (item[1]["layers"], item[1]["floor_error"])):
        played = own.get("closed_loop")
        label = name if len(own["choices"]) == 1 else f"{name} (both)"
        closed = f"{played['successes']}/{played['episodes']}" if played else "not played"
        rows.append(
            (
                label, f"{own['layers']}/{layers}", f"{own['trainable_parameters']:,}", str(own["training_steps"]),
                f"{own['training_seconds']:.0f}", f"{own['floor_error']:.4f}", closed,
            )
        )  # fmt: skip
    for label, *cells in rows:
        print(f"{label:<{widths[0]}}" + "".join(f"{cell:>{w}}" for cell, w in zip(cells, widths[1:], strict=True)))


def _check(arguments: argparse.Namespace) -> None:
    least = {
        "observations": 2,
        "hidden_steps": 1,
        "action_steps": 1,
        "batch_size": 1,
        "jobs": 1,
        "max_ticks": 1,
        "evaluate": 0,
    }
    faults = [
        f"--{name.replace('_', '-')} must be at least {low}, not {getattr(arguments, name)}"
        for name, low in least.items()
        if getattr(arguments, name) < low
    ]
    if faults:
        raise DataError("; ".join(faults))
    if arguments.evaluate:
        calibration_seeds(arguments.evaluate)
        if any(is_bag(path) for path in arguments.data):
            raise DataError("--evaluate plays in the simulator, which knows nothing of bags; leave it out")
