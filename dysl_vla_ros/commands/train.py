"""``dysl_vla train``: the reference policy at full depth, from demonstrations or from a deeper one."""

import argparse
from pathlib import Path

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.files import require_writable
from dysl_vla_ros.policies.checkpoint import read_config
from dysl_vla_ros.simulation.tasks import require_learnable, tasks_named
from dysl_vla_ros.training import options
from dysl_vla_ros.training.dataset import episode_paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; the defaults made the shipped weights."""
    options.add_arguments(parser)
    parser.add_argument(
        "--processes", type=int, default=0, help="that average their gradients (default: one a GPU, else one a core)"
    )


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be trained with or is not there."""
    settings, tasks = options.settings_from(vars(arguments)), tasks_named(arguments.tasks)
    require_learnable(tasks)
    if arguments.processes < 0:
        raise DataError("--processes must be at least 1")
    origins = {role: folder for role in ("teacher", "base") if (folder := getattr(settings, role))}
    for role, folder in origins.items():
        read_config(Path(folder), f"--{role}")
    if not origins:  # what they are is looked at first, in `run`, which needs torch; nothing is made before
        require_writable(arguments.output)
        for task in tasks:
            episode_paths(arguments.data, task)


def run(arguments: argparse.Namespace) -> int:
    """Train, or go on training."""
    from dysl_vla_ros.training.launching import train_in_processes

    settings, tasks = options.settings_from(vars(arguments)), tasks_named(arguments.tasks)
    train_in_processes(arguments.data, arguments.output, tasks, settings, arguments.processes)
    print(f"written to {arguments.output}; next: dysl_vla evaluate {arguments.output}")
    return 0
