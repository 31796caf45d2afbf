"""``dysl_vla replay``: thin over :func:`dysl_vla_ros.replay.job.replay`."""

import argparse
import sys
from pathlib import Path

from dysl_vla_ros.commands.argument_checks import (
    require_bag,
    require_computable,
    require_dysl,
    require_there,
    warn_of_idle_options,
)
from dysl_vla_ros.commands.data_options import add_recording_arguments, recording_choice
from dysl_vla_ros.commands.runtime_option import add_runtime_arguments, engine_choice, require_runtime
from dysl_vla_ros.engines import ONNX
from dysl_vla_ros.errors import SettingError

CRITERIA_FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Run a recording through the policy at full depth and with skipping, in bag time, and report what skipping "
        "costs and saves. Exit code 0: within the criteria; 1: not, the first that failed is named; 2: the bag, or "
        "what it is to be compared with, cannot serve."
    )
    parser.add_argument("bag", type=Path, help="folder of `ros2 bag record`, or one .mcap or .db3 file")
    parser.add_argument("--checkpoint", type=Path, help="folder of the policy (default: the one that is shipped)")
    parser.add_argument("--adapters", default="", help="DySL folder (default: the checkpoint's own `dysl`)")
    parser.add_argument(
        "--params", type=Path, metavar="FILE", help="ROS parameter file: skipping, guidance, control, model.runtime"
    )
    parser.add_argument(
        "--python",
        default="",
        metavar="PATH",
        help="interpreter to compute another project's checkpoint in (default: model.python of --params)",
    )
    add_runtime_arguments(parser)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="use each n-th frame of the first camera")
    parser.add_argument(
        "--against", type=Path, metavar="OTHER", help="checkpoint, DySL folder, parameter file or replay.json"
    )
    parser.add_argument("--out", type=Path, default=Path("replay_out"), help="folder for replay.json and replay.html")
    parser.add_argument("--rerun", type=Path, metavar="FILE.rrd", help="also write a recording for the Rerun viewer")
    parser.add_argument(
        "--max-deviation",
        type=float,
        metavar="LIMIT",
        help="largest p95 of the first action's deviation: mm of the translation; of joints degrees (docs/replay.md)",
    )
    parser.add_argument("--max-p99-ms", type=float, metavar="MS", help="largest p99 of an inference with skipping")
    parser.add_argument(
        "--min-layer-reduction", type=float, metavar="SHARE", help="least share of the layers saved, such as 0.5"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="a bag with losses, or whose clock was set back, cannot serve (exit code 2)",
    )
    parser.add_argument("--threads", type=int, default=1, help="compute threads; the figures' last bits depend on it")
    add_recording_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Replay, print a summary; return 0, or 1 where a criterion failed."""
    from dysl_vla_ros.files import shared
    from dysl_vla_ros.replay.job import ReplaySettings, replay
    from dysl_vla_ros.replay.table import print_outcome

    recorded = recording_choice(vars(arguments))
    outcome = replay(
        arguments.bag,
        arguments.checkpoint or shared("checkpoints/reference"),
        ReplaySettings(
            adapters=arguments.adapters,
            parameters=arguments.params,
            engine=engine_choice(arguments.runtime, arguments.export, arguments.params),
            python=arguments.python,
            against=arguments.against,
            remapped=recorded.remapped,
            instruction=recorded.instruction,
            corrections=recorded.corrections,
            every=arguments.every,
            output=arguments.out,
            rerun=arguments.rerun,
            max_deviation=arguments.max_deviation,
            max_p99_ms=arguments.max_p99_ms,
            min_layer_reduction=arguments.min_layer_reduction,
            strict=arguments.strict,
            threads=arguments.threads,
        ),
    )
    print_outcome(outcome, arguments.out)
    if outcome.failure is None:
        return 0
    print(f"dysl_vla replay: failed: {outcome.failure.text} (--{outcome.failure.name})", file=sys.stderr)
    return CRITERIA_FAILED


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that make no sense, all at once, and what is not there."""
    from dysl_vla_ros.files import require_writable, shared
    from dysl_vla_ros.replay.parameters import read_parameters

    faults = [
        f"--{name} must be {what}, not {value}"
        for name, value, good, what in (
            ("every", arguments.every, arguments.every >= 1, "at least 1"),
            ("threads", arguments.threads, arguments.threads >= 1, "at least 1"),
            *(
                (name, value, value is None or low <= value <= high, f"from {low:g} to {high:g}")
                for name, value, low, high in (
                    ("max-deviation", arguments.max_deviation, 0.0, 1e4),
                    ("max-p99-ms", arguments.max_p99_ms, 0.0, 1e6),
                    ("min-layer-reduction", arguments.min_layer_reduction, 0.0, 1.0),
                )
            ),
        )
        if not good
    ]
    if faults:
        raise SettingError("; ".join(faults))
    recording_choice(vars(arguments))
    require_bag(arguments.bag)
    if arguments.params:
        read_parameters(arguments.params)
    apart = require_computable(arguments.checkpoint or shared("checkpoints/reference"), vars(arguments))
    warn_of_idle_options(
        vars(arguments), add_arguments, (not apart, ("python",), "it is of another project's checkpoint")
    )
    if arguments.adapters:
        require_dysl(Path(arguments.adapters))
    engine = engine_choice(arguments.runtime, arguments.export, arguments.params)
    if not apart or engine.runtime == ONNX:
        require_runtime(engine, arguments.checkpoint or shared("checkpoints/reference"), arguments.adapters)
    if arguments.against:
        require_there(arguments.against, "--against", "a checkpoint, DySL folder, parameter file or replay.json")
    require_writable(arguments.out, "name another folder with --out")
