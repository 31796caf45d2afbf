"""``dysl_vla demonstrations``: record scripted experts in the simulator."""

import argparse
import os
from pathlib import Path

from dysl_vla_ros.commands.argument_checks import require_policy
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.files import require_writable
from dysl_vla_ros.simulation.seeds import DEMONSTRATION_SEEDS
from dysl_vla_ros.simulation.tasks import TASK_CHOICES, require_learnable, tasks_named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", type=Path, help="where episodes are written; what is there already is kept")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help=f"of {TASK_CHOICES} (default: easy, hard)")
    parser.add_argument(
        "--episodes", type=int, default=68,
        help="successful episodes a task; of the experts' own the last 4 are for validation",
    )  # fmt: skip
    parser.add_argument(
        "--first-scene", type=int, metavar="SEED",
        help="begin with this scene: the experts go up from it (default: the first), a policy and the expert down "
        "(default: the last)",
    )  # fmt: skip
    parser.add_argument(
        "--policy", type=Path, metavar="CHECKPOINT",
        help="let this policy take turns with the expert, which labels all: shows the way back from its own mistakes",
    )  # fmt: skip
    parser.add_argument(
        "--adapters", type=Path, metavar="DYSL", help="with --policy: it acts at the floor of this DySL folder"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that make no sense, and what is not there or cannot be written to."""
    require_learnable(tasks_named(arguments.tasks))
    if arguments.episodes < 1 or arguments.jobs < 1:
        raise DataError("--episodes and --jobs must be at least 1")
    if arguments.episodes > len(DEMONSTRATION_SEEDS):
        raise DataError(f"--episodes {arguments.episodes}: {len(DEMONSTRATION_SEEDS)} scenes a task are for recording")
    if arguments.adapters and not arguments.policy:
        raise DataError("--adapters goes with --policy, the checkpoint that they belong to")
    first = arguments.first_scene
    if first is not None and first not in DEMONSTRATION_SEEDS:
        least, most = DEMONSTRATION_SEEDS[0], DEMONSTRATION_SEEDS[-1]
        raise DataError(f"--first-scene {first}: the scenes for recording are {least} to {most}")
    if arguments.policy:
        require_policy(arguments.policy, arguments.adapters)
    require_writable(arguments.folder)


def run(arguments: argparse.Namespace) -> int:
    """Record until every task has its episodes; interrupted, it goes on where it stopped."""
    from dysl_vla_ros.training.demonstrations import DemonstrationSettings, record_demonstrations

    settings = DemonstrationSettings(
        tasks=tuple(tasks_named(arguments.tasks)),
        episodes=arguments.episodes,
        first_scene=arguments.first_scene,
        policy=arguments.policy,
        adapters=arguments.adapters,
    )
    for line in record_demonstrations(arguments.folder, settings, jobs=arguments.jobs):
        print(line, flush=True)
    if arguments.adapters:
        print(f"next: dysl_vla distill {arguments.policy} {arguments.folder} --adapters OTHER_DYSL")
    else:
        base = f" --base {arguments.policy}" if arguments.policy else ""
        print(f"next: dysl_vla train {arguments.folder} OUTPUT{base}")
    return 0
