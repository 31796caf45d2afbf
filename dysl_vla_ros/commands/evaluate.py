"""``dysl_vla evaluate``: closed-loop success in the simulator, of one method or of many side by side."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from dysl_vla_ros.commands import method_comparison
from dysl_vla_ros.commands.argument_checks import (
    require_device,
    require_numbers,
    require_policy,
    require_simulated,
)
from dysl_vla_ros.commands.calibrate import add_device_argument
from dysl_vla_ros.commands.runtime_option import add_runtime_arguments, engine_choice, require_runtime
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.evaluation.conditions import CONDITION_CHOICES, condition_named
from dysl_vla_ros.evaluation.slow_down import SLOW_DOWNS, require_slow_down
from dysl_vla_ros.params_file import read_params_file
from dysl_vla_ros.settings import ControlSettings, RuntimeSettings, SkippingSettings, build
from dysl_vla_ros.simulation.tasks import EVALUATION_SEED, TASK_CHOICES, tasks_named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Measure success, depth and time in simulation. Without --methods: one method, as the DySL folder and the "
        "options have it, or --full-depth. With --methods: all of them on the same scenes, in turns, with intervals; "
        "interrupted, it goes on where it stopped when it is started again, with more --seeds it adds scenes."
    )
    parser.add_argument("checkpoint", type=Path, help="folder of the base checkpoint")
    parser.add_argument("--adapters", default="", help="DySL folder (default: the checkpoint's own `dysl`)")
    parser.add_argument(
        "--tasks",
        nargs="+",
        metavar="TASK",
        help=f"of {TASK_CHOICES} (default: all that the policy was trained on)",
    )
    parser.add_argument("--seeds", "--episodes", type=int, default=20, help="scenes a task")
    parser.add_argument("--first-seed", type=int, default=EVALUATION_SEED, help="of the scenes")
    parser.add_argument("--full-depth", action="store_true", help="run every layer")
    parser.add_argument(
        "--params",
        type=Path,
        help="parameter file, as for params_file:=; skipping, guidance, m and runtime of it are used",
    )
    parser.add_argument("--threshold", type=float, help="of the controllers (default: of --params, else 0.5)")
    parser.add_argument(
        "--actions-per-inference",
        type=int,
        help="actions of a chunk played, 0: automatic (default: of --params, 1)",
    )
    parser.add_argument("--max-ticks", type=int, default=200, help="control ticks of 50 ms before an episode is lost")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds from image to command")
    parser.add_argument(
        "--real-time", type=float, nargs="*", metavar="PERIODS",
        help="the simulator runs on while the policy computes: an inference at full depth takes so many control "
        "periods, any other as much less as it costs less (measured once); with --methods several, success over them "
        f"(default: {' '.join(f'{each:g}' for each in SLOW_DOWNS)})",
    )  # fmt: skip
    parser.add_argument(
        "--chunk", type=int, nargs="+", metavar="N",
        help="play at most N actions of each chunk; with --methods and --real-time several (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--condition", default="plain", metavar="NAME", help=f"what the policy meets, one of {CONDITION_CHOICES}"
    )
    parser.add_argument("--max-linear-seam", type=float, default=ControlSettings.max_linear_seam, metavar="M/S",
                        help="bound on the jump where chunks meet (control.max_linear_seam); 0: none")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    parser.add_argument("--json", type=Path, help="also write the summary to this file (not with --methods)")
    add_device_argument(parser)
    add_runtime_arguments(parser)
    method_comparison.add_arguments(parser)


def check(arguments: argparse.Namespace) -> None:
    """Refuse what does not go together, what is not there, and settings out of range."""
    require_numbers(vars(arguments), seeds=1, jobs=1, max_ticks=1, delay=0)
    require_real_time(
        arguments.real_time, arguments.chunk or [], methods=bool(arguments.methods), delay=arguments.delay
    )
    require_device(arguments.device)
    method_comparison.check(arguments)
    require_policy(arguments.checkpoint, arguments.adapters)
    require_simulated(arguments.checkpoint)
    engine = engine_choice(arguments.runtime, arguments.export, arguments.params)
    if not arguments.methods:
        require_runtime(engine, arguments.checkpoint, arguments.adapters)
    else:
        method_comparison.require_runtimes(arguments.methods, engine, arguments.checkpoint, arguments.adapters)
    runtime_settings(arguments.params, arguments.threshold, arguments.actions_per_inference, arguments.full_depth)
    control_settings(arguments.max_linear_seam)
    condition = condition_named(arguments.condition)
    if arguments.tasks:
        condition.require(*tasks_named(arguments.tasks))


def run(arguments: argparse.Namespace) -> int:
    """Play, show a bar while playing and a table at the end."""
    from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings
    from dysl_vla_ros.evaluation.evaluate import evaluate
    from dysl_vla_ros.evaluation.real_time import RealTime
    from dysl_vla_ros.records.summary import write_summary
    from dysl_vla_ros.records.summary_table import print_table

    settings = EvaluationSettings(
        runtime=runtime_settings(
            arguments.params, arguments.threshold, arguments.actions_per_inference, arguments.full_depth
        ),
        control=control_settings(arguments.max_linear_seam),
        max_ticks=arguments.max_ticks,
        delay=arguments.delay,
        first_seed=arguments.first_seed,
        seeds=arguments.seeds,
        adapters=arguments.adapters,
        tasks=tuple(tasks_named(arguments.tasks)) if arguments.tasks else (),
        condition=arguments.condition,
        deployed=read_params_file(arguments.params).control if arguments.params else None,
        device=arguments.device,
        engine=engine_choice(arguments.runtime, arguments.export, arguments.params),
        chunk=arguments.chunk[0] if arguments.chunk and len(arguments.chunk) == 1 else 0,
    )
    if arguments.methods:
        return method_comparison.run(arguments, settings)
    if arguments.real_time:
        settings = replace(settings, real_time=RealTime(arguments.real_time[0]))
    done = evaluate(arguments.checkpoint, settings, jobs=arguments.jobs)
    print_table(done.summary)
    if arguments.json:
        write_summary(arguments.json, done.summary)
    return 0


def require_real_time(
    slow_downs: Sequence[float] | None, chunks: Sequence[int], *, methods: bool, delay: float
) -> None:
    """Refuse slow-downs and lengths of chunks that are none, or several where one is played.

    Raises:
        DataError, SettingError: which, and why.
    """
    if slow_downs is not None and not methods and len(slow_downs) != 1:
        raise DataError("--real-time: name one number of control periods, as --real-time 2 (several: with --methods)")
    if len(chunks) > 1 and not (methods and slow_downs is not None):
        raise DataError("--chunk: one number; several: with --methods and --real-time")
    for periods in slow_downs or []:
        require_slow_down(periods)
    if slow_downs is not None and delay:
        raise DataError("--real-time and --delay exclude each other: in real time an inference takes its own time")
    if wrong := [each for each in chunks if each < 1]:
        raise DataError(f"--chunk must be at least 1, not {wrong[0]}")


def runtime_settings(
    params: Path | None, threshold: float | None = None, m: int | None = None, full_depth: bool = False
) -> RuntimeSettings:
    """Return the settings of a parameter file, the defaults without one, with what else is given put over them."""
    settings = read_params_file(params).runtime if params else RuntimeSettings()
    skipping = settings.skipping
    if threshold is not None:
        skipping = build(SkippingSettings, asdict(skipping) | {"threshold": threshold})
    if full_depth:
        skipping = replace(skipping, rule="full")
    m = settings.actions_per_inference if m is None else m
    return replace(settings, skipping=skipping, actions_per_inference=m)


def control_settings(max_linear_seam: float) -> ControlSettings:
    """Return how chunks are joined."""
    return build(ControlSettings, {"max_linear_seam": max_linear_seam})
