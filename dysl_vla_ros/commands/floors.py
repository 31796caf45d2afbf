"""``dysl_vla floors``: thin over :func:`dysl_vla_ros.jobs.floors.train_floors`."""

import argparse
import os
import shlex
from pathlib import Path

from dysl_vla_ros.bags.folder import is_bag
from dysl_vla_ros.commands.argument_checks import (
    require_data,
    require_device,
    require_numbers,
    require_policy,
    require_there,
    warn_of_idle_options,
)
from dysl_vla_ros.commands.calibrate import add_device_argument
from dysl_vla_ros.commands.data_options import add_recording_arguments, data_settings
from dysl_vla_ros.commands.distill import add_compile_argument, add_module_arguments
from dysl_vla_ros.distillation.settings import LEAST_SIZES, DistillationSettings, ModuleSettings
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.jobs.learning_data import WHAT
from dysl_vla_ros.jobs.settings import FloorSettings
from dysl_vla_ros.simulation.seeds import calibration_seeds
from dysl_vla_ros.simulation.tasks import TASK_CHOICES, require_learnable, tasks_named


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
    add_device_argument(parser)
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
    parser.add_argument(
        "--tasks", nargs="+", metavar="TASK", help=f"simulator: of {TASK_CHOICES} (default: easy, hard)"
    )
    parser.add_argument(
        "--evaluate-tasks", nargs="+", metavar="TASK",
        help="closed loop: tasks to play, those set aside too (default: --tasks); none that are held out",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="closed loop: processes")
    add_recording_arguments(parser)


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that make no sense, all at once, and what is not there."""
    ones = dict.fromkeys(("hidden_steps", "action_steps", "batch_size", "jobs", "max_ticks"), 1)
    require_numbers(vars(arguments), observations=2, **ones, evaluate=0)
    require_device(arguments.device)
    ModuleSettings(**{name: getattr(arguments, name) for name in LEAST_SIZES})
    closed_loop = ("jobs", "max_ticks", "evaluate_tasks")
    warn_of_idle_options(
        vars(arguments), add_arguments, (not arguments.evaluate, closed_loop, "nothing is played without --evaluate")
    )
    if arguments.evaluate:
        calibration_seeds(arguments.evaluate)
        require_learnable(tasks_named(arguments.evaluate_tasks or arguments.tasks))
        if any(is_bag(path) for path in arguments.data):
            raise DataError("--evaluate plays in the simulator, which knows nothing of bags; leave it out")
    require_policy(arguments.checkpoint)
    require_data(arguments.data, data_settings(vars(arguments)))
    for path in arguments.beside or []:
        require_there(path, "--beside", "a table.json that `dysl_vla evaluate --methods` wrote")


def run(arguments: argparse.Namespace) -> int:
    """Train what is not trained yet, play what is not played yet, show all."""
    from dysl_vla_ros.floors.text import print_floors
    from dysl_vla_ros.floors.training import PARAMETERS
    from dysl_vla_ros.jobs.floors import train_floors

    settings = FloorSettings(
        static_layers=tuple(arguments.static_layers),
        choices=tuple(arguments.static),
        adapters=tuple(arguments.adapter),
        observations=arguments.observations,
        stages=DistillationSettings(
            hidden_steps=arguments.hidden_steps,
            action_steps=arguments.action_steps,
            batch_size=arguments.batch_size,
            seed=arguments.seed,
            compile=arguments.compile,
        ),
        modules=ModuleSettings(**{name: getattr(arguments, name) for name in LEAST_SIZES}),
        evaluate=arguments.evaluate,
        evaluate_tasks=tuple(arguments.evaluate_tasks or ()),
        max_ticks=arguments.max_ticks,
        jobs=arguments.jobs,
        device=arguments.device,
        beside=tuple(arguments.beside or ()),
        data=data_settings(vars(arguments)),
    )
    found = train_floors(arguments.checkpoint, arguments.data, arguments.out, settings)
    print_floors(found.records, found.full_depth, found.layers)
    for note in found.notes:
        print(note)
    if found.picture:
        print(f"written: {found.picture}")
    print("in closed loop, in the scenes of the tables:")
    tasks = f" --tasks {shlex.join(arguments.tasks)}" if arguments.tasks else ""
    for name in found.records:
        folder, params = (shlex.quote(str(arguments.out / own)) for own in (name, PARAMETERS))
        print(f"  dysl_vla evaluate {arguments.checkpoint} --adapters {folder} --params {params}{tasks}")
    return 0
