"""``dysl_vla tune``: settings for a robot and a machine, from a recording of the one on the other."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from dysl_vla_ros.bags.folder import is_bag
from dysl_vla_ros.commands.argument_checks import require_device, require_policy
from dysl_vla_ros.commands.calibrate import add_device_argument
from dysl_vla_ros.commands.data_options import add_recording_arguments, recording_choice
from dysl_vla_ros.commands.runtime_option import add_runtime_arguments, engine_choice, require_runtime
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.jobs.settings import TuneSettings
from dysl_vla_ros.params_file import read_params_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Search thresholds, guidance's step, window and margins on recorded full-depth runs, and write a parameter "
        "file for params_file:=. Milliseconds are the mean of an inference (vision, layers of both passes, head) on "
        "this machine, so tune where the policy will run. The choice is judged on episodes that were not searched on."
    )
    parser.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="recordings of the robot")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of the base checkpoint")
    parser.add_argument("--adapters", default="", help="DySL folder (default: the checkpoint's own `dysl`)")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument(
        "--target-ms", type=float, metavar="MS", help="largest mean time of an inference; the deviation is made small"
    )
    wanted.add_argument(
        "--max-deviation",
        type=float,
        metavar="LIMIT",
        help="largest 95th percentile of the deviation from full depth: mm, of joints degrees, as replay has it",
    )
    parser.add_argument("--params", type=Path, help="parameter file to start from (m, weights and runtime are kept)")
    parser.add_argument("--out", type=Path, default=Path("tuned"), help="folder for the parameter file and the plot")
    parser.add_argument("--force", action="store_true", help="write over an earlier result")
    parser.add_argument("--trials", type=int, default=160, help="settings to try")
    parser.add_argument("--inferences", type=int, default=1500, help="of the recording that are used, evenly spread")
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    parser.add_argument("--threads", type=int, default=1, help="compute threads, as model.threads will have them")
    add_device_argument(parser)
    add_runtime_arguments(parser)
    add_recording_arguments(parser)


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that make no sense, all at once, and what is not there."""
    settings_from(vars(arguments))
    require_device(arguments.device)
    for path in arguments.bags:
        if not is_bag(path):
            raise DataError(f"{path} is no bag (metadata.yaml, .mcap, .db3); name a recording of `ros2 bag record`")
    require_policy(arguments.checkpoint, arguments.adapters)
    if arguments.params:
        read_params_file(arguments.params)
    require_runtime(
        engine_choice(arguments.runtime, arguments.export, arguments.params), arguments.checkpoint, arguments.adapters
    )


def run(arguments: argparse.Namespace) -> int:
    """Tune; 1 where the target cannot be met."""
    from dysl_vla_ros.calibration.tuning_report import PAGE, PARAMS, sentence
    from dysl_vla_ros.jobs.tune import tune

    settings = settings_from(vars(arguments))
    tuned = tune(
        arguments.checkpoint, arguments.bags, arguments.adapters, arguments.out, settings, force=arguments.force
    )
    tuning, params = tuned.tuning, tuned.out / PARAMS
    print(f"before: {sentence(tuning.before.figures, tuned.target.unit)}")
    print(f"choice: {sentence(tuning.choice.figures, tuned.target.unit)}")
    if tuning.choice.settings == tuned.started_from:
        print("nothing that was tried is better than the settings before")
    print(f"plot: {tuned.out / PAGE}")
    print(f"next: ros2 launch dysl_vla_ros dysl_vla.launch.py params_file:={params} ...")
    if tuning.met:
        return 0
    reached, unit = ("milliseconds", "ms") if settings.target_ms else (tuned.target.axis, tuned.target.unit)
    print(
        f"dysl_vla tune: not met: {tuned.target}; the nearest found has "
        f"{getattr(tuning.choice.figures, reached):.2f} {unit} on held-out runs ({params} holds it)",
        file=sys.stderr,
    )
    return 1


def settings_from(given: Mapping[str, Any]) -> TuneSettings:
    """Return the settings that arguments say; name -> value.

    Raises:
        DataError: numbers that make no sense.
        BagError: ``--topic`` or ``--frame`` has another form.
    """
    made = ("recordings", "engine")  # of several options each
    own = {field.name: given[field.name] for field in fields(TuneSettings) if field.name not in made}
    engine = engine_choice(given["runtime"], given["export"], given["params"])
    return TuneSettings(**own, engine=engine, recordings=recording_choice(given))
