"""``dysl_vla train``: the reference policy at full depth, from demonstrations."""

import argparse
from pathlib import Path

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.simulation.tasks import TASK_CHOICES, tasks_named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; the defaults made the shipped weights."""
    parser.add_argument("data", type=Path, help="folder that `dysl_vla demonstrations` wrote")
    parser.add_argument("output", type=Path, help="checkpoint folder; an unfinished one is trained on")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help=f"of {TASK_CHOICES} (default: all)")
    parser.add_argument("--steps", type=int, default=2600, help="optimiser steps; about half an hour on two cores")
    parser.add_argument("--batch-size", type=int, default=96, help="frames a step, over all processes")
    parser.add_argument("--processes", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile (a third of the speed)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches")


def run(arguments: argparse.Namespace) -> int:
    """Train, or go on training."""
    from dysl_vla_ros.training.behaviour_cloning import TrainingSettings, train

    if arguments.steps < 1 or arguments.processes < 1 or arguments.batch_size < arguments.processes:
        raise DataError("--steps and --processes must be at least 1, --batch-size at least --processes")
    settings = TrainingSettings(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        processes=arguments.processes,
        compile=not arguments.no_compile,
        seed=arguments.seed,
    )
    train(arguments.data, arguments.output, tasks_named(arguments.tasks), settings)
    print(f"written to {arguments.output}; next: dysl_vla evaluate {arguments.output}")
    return 0
