"""``dysl_vla tune``: settings for a robot and a machine, from a recording of the one on the other."""

import argparse
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dysl_vla_ros.commands.argument_checks import require_policy
from dysl_vla_ros.commands.recording_options import (
    add_recording_arguments,
    corrections,
    recording_choice,
    recording_words,
)
from dysl_vla_ros.commands.training_data import is_bag
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.params_file import read_params_file
from dysl_vla_ros.settings import RuntimeSettings

LONGEST = 10_000  # inferences read from the bags at most: their pictures are in memory for a moment


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
        metavar="MM",
        help="largest 95th percentile of the deviation from full depth, as replay has it",
    )
    parser.add_argument("--params", type=Path, help="parameter file to start from (m and weights are kept)")
    parser.add_argument("--out", type=Path, default=Path("tuned"), help="folder for the parameter file and the plot")
    parser.add_argument("--force", action="store_true", help="write over an earlier result")
    parser.add_argument("--trials", type=int, default=160, help="settings to try")
    parser.add_argument("--inferences", type=int, default=1500, help="of the recording that are used, evenly spread")
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    parser.add_argument("--threads", type=int, default=1, help="compute threads, as model.threads will have them")
    add_recording_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Take full-depth runs, measure the machine, search, write; 1 where the target cannot be met."""
    from dysl_vla_ros.calibration.cost_model import measure_cost
    from dysl_vla_ros.calibration.remembered_passes import RememberedPasses
    from dysl_vla_ros.calibration.tuning import Target, tune
    from dysl_vla_ros.calibration.tuning_report import (
        PAGE,
        PARAMS,
        cost_sentence,
        require_new,
        sentence,
        write_results,
    )
    from dysl_vla_ros.control.chunk_time import require_playable
    from dysl_vla_ros.files import require_writable
    from dysl_vla_ros.recordings.full_depth import full_depth_runs
    from dysl_vla_ros.runs.splitting import split_runs, thin_out
    from dysl_vla_ros.runtime.step import Runtime

    runtime = Runtime.load(str(arguments.checkpoint), arguments.adapters, threads=arguments.threads)
    if runtime.dysl is None:
        raise DataError(f"{arguments.checkpoint} has no adapters, so nothing can be skipped; run `dysl_vla distill`")
    start = RuntimeSettings()
    if arguments.params:
        given = read_params_file(arguments.params)
        require_playable(given.control, runtime.policy.action)
        start = given.runtime
    before = _resolved(start, runtime.dysl.calibrated)
    require_new(arguments.out, arguments.force)
    require_writable(arguments.out)

    m = before.actions_per_inference
    choice, notes = recording_choice(arguments, runtime.policy), list[str]()
    recorded = full_depth_runs(arguments.bags, runtime, m, choice=choice, limit=LONGEST, notes=notes)
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    runs = thin_out(recorded, arguments.inferences)
    searched, held_out = split_runs(runs)
    data = (
        f"{len(runs)} of {len(recorded)} episodes of {', '.join(path.name for path in arguments.bags)}: searched on "
        f"{sum(len(run.chunks) for run in searched)} inferences, judged on {sum(len(run.chunks) for run in held_out)}"
    )
    print(data, flush=True)
    cost = measure_cost(runtime, searched)
    print(f"milliseconds of an inference: {cost_sentence(cost)}", flush=True)
    target = Target(arguments.target_ms, arguments.max_deviation)
    passes, judges = RememberedPasses(runtime, searched), RememberedPasses(runtime, held_out)
    tuning = tune(passes, judges, before, target, cost, trials=arguments.trials, seed=arguments.seed)
    limit = f"--target-ms {arguments.target_ms:g}" if arguments.target_ms else f"--max-deviation {target.deviation:g}"
    bags = shlex.join(map(str, arguments.bags))
    command = f"dysl_vla tune {bags} --checkpoint {shlex.quote(str(arguments.checkpoint))} {limit}"
    for name, value in (("--adapters", arguments.adapters), ("--params", arguments.params)):
        command += f" {name} {shlex.quote(str(value))}" if value else ""
    command += recording_words(arguments)
    write_results(arguments.out, tuning, target, cost, command=command, data=[data, *notes], seed=arguments.seed)
    print(f"before: {sentence(tuning.before.figures)}")
    print(f"choice: {sentence(tuning.choice.figures)}")
    if tuning.choice.settings == before:
        print("nothing that was tried is better than the settings before")
    print(f"plot: {arguments.out / PAGE}")
    print(f"next: ros2 launch dysl_vla_ros dysl_vla.launch.py params_file:={arguments.out / PARAMS} ...")
    if not tuning.met:
        reached = "milliseconds" if arguments.target_ms else target.axis
        best = getattr(tuning.choice.figures, reached)
        unit = "ms" if arguments.target_ms else "mm"
        print(
            f"dysl_vla tune: not met: {target}; the nearest found has {best:.2f} {unit} on held-out runs "
            f"({arguments.out / PARAMS} holds it)",
            file=sys.stderr,
        )
        return 1
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that make no sense, all at once, and what is not there."""
    from dysl_vla_ros.recordings.topics import remaps

    faults = [
        f"{name} must be {low:g} or more, not {value:g}"
        for name, value, low in (
            ("--trials", arguments.trials, 10),
            ("--inferences", arguments.inferences, 20),
            ("--seed", arguments.seed, 0),
            ("--threads", arguments.threads, 1),
        )
        if value < low
    ]
    faults += [
        f"{name} must be a positive number, not {value:g}"
        for name, value in (("--target-ms", arguments.target_ms), ("--max-deviation", arguments.max_deviation))
        if value is not None and not 0.0 < value < float("inf")
    ]
    if faults:
        raise DataError("; ".join(faults))
    for path in arguments.bags:
        if not is_bag(path):
            raise DataError(f"{path} is no bag (metadata.yaml, .mcap, .db3); name a recording of `ros2 bag record`")
    remaps(arguments.topic)
    corrections(arguments)
    require_policy(arguments.checkpoint, arguments.adapters)
    if arguments.params:
        read_params_file(arguments.params)


def _resolved(settings: RuntimeSettings, calibrated: Mapping[str, float | str]) -> RuntimeSettings:
    """Return the settings with skipping on and every "as calibrated" value put in."""
    return replace(
        settings,
        skipping=replace(settings.skipping, rule="dysl", enabled=True),
        guidance=settings.guidance.resolved(calibrated),
    )
