"""``dysl_vla demo``: thin over :func:`dysl_vla_ros.demo.run.run_demo`."""

import argparse
from pathlib import Path

from dysl_vla_ros.commands.argument_checks import require_policy, require_simulated
from dysl_vla_ros.commands.runtime_option import (
    add_runtime_arguments,
    engine_choice,
    require_installed,
    require_runtime,
)
from dysl_vla_ros.engines import ONNX
from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.simulation.tasks import EVALUATION_SEED, TASK_CHOICES, tasks_named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--episodes", type=int, default=2, help="episodes a task")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", default=["easy"], help=f"of {TASK_CHOICES}")
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder for report, video, summary")
    parser.add_argument("--record", type=Path, metavar="DIR", help="record a bag (rosbag2, mcap) into this new folder")
    parser.add_argument("--headless", action="store_true", help="one plain line an episode, no live table")
    parser.add_argument("--checkpoint", type=Path, help="folder of the policy (default: the one that is shipped)")
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED, help="scene of each task's first episode")
    parser.add_argument("--full-depth", action="store_true", help="run every layer, for comparison")
    add_runtime_arguments(parser, default=ONNX)
    parser.add_argument("--max-ticks", type=int, default=200, help="control ticks (50 ms) of an episode")


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers out of range and a checkpoint that is not there."""
    faults = [
        f"{name} must be from {low} to {high}, not {value}"
        for name, value, low, high in (
            ("--episodes", arguments.episodes, 1, 10_000),
            ("--seed", arguments.seed, 0, 2**31 - 10_001),
            ("--max-ticks", arguments.max_ticks, 1, 100_000),
        )
        if not low <= value <= high
    ]
    if faults:
        raise SettingError("; ".join(faults))
    tasks_named(arguments.tasks)
    engine = engine_choice(arguments.runtime, arguments.export, default=ONNX)
    if arguments.checkpoint is None:
        require_installed(engine.runtime)
    else:
        require_policy(arguments.checkpoint)
        require_simulated(arguments.checkpoint)
        require_runtime(engine, arguments.checkpoint)


def run(arguments: argparse.Namespace) -> int:
    """Play the demo; return 0."""
    from dysl_vla_ros.demo.processes import share_folder
    from dysl_vla_ros.demo.run import run_demo
    from dysl_vla_ros.demo.session import DemoOptions

    run_demo(
        DemoOptions(
            tasks=tuple(tasks_named(arguments.tasks)),
            episodes=arguments.episodes,
            seed=arguments.seed,
            checkpoint=arguments.checkpoint or share_folder() / "checkpoints" / "reference",
            output=arguments.out,
            full_depth=arguments.full_depth,
            engine=engine_choice(arguments.runtime, arguments.export, default=ONNX),
            max_ticks=arguments.max_ticks,
            record=arguments.record,
        ),
        headless=arguments.headless,
    )
    return 0
