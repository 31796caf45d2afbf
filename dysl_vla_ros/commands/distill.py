"""``dysl_vla distill``: adapters and controllers for a frozen policy, and then their thresholds."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from dysl_vla_ros.bags.folder import is_bag
from dysl_vla_ros.commands import calibrate
from dysl_vla_ros.commands.argument_checks import (
    require_computable,
    require_data,
    require_device,
    require_dysl,
    require_numbers,
    warn_of_idle_options,
)
from dysl_vla_ros.commands.calibrate import add_device_argument, add_threshold_arguments
from dysl_vla_ros.commands.data_options import (
    OF_APART,
    SIMULATED_RUNS,
    add_apart_arguments,
    apart_settings,
    behind,
    data_settings,
)
from dysl_vla_ros.distillation.chosen_layers import require_choice
from dysl_vla_ros.distillation.settings import DistillationSettings, ModuleSettings
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.jobs.learning_data import ALL_KINDS, folder_of
from dysl_vla_ros.jobs.settings import DistillSettings
from dysl_vla_ros.simulation.tasks import require_learnable, tasks_named

MODULES = tuple(own.name for own in fields(ModuleSettings))
STAGES = tuple(own.name for own in fields(DistillationSettings) if own.name != "floor_share")
KEPT = (*MODULES, "hidden_steps")  # when gone on from another folder
OF_POOLED = ("queries", "pool_rank")
OF_CACHED = ("variants", "compile")
OF_SEARCH = (*calibrate.OF_SEARCH, *SIMULATED_RUNS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; those of the shipped adapters are in their model card."""
    parser.description = (
        "Train adapters and controllers for a frozen policy, then search their thresholds as calibrate does. The "
        "targets are the policy's own actions at full depth. Interrupted, it goes on behind the last finished stage "
        "when it is started again. Another project's checkpoint (LeRobot's, OpenVLA-OFT's) learns with the teacher "
        "beside it, in the Python of its library; it says first what memory that needs, and goes on within a stage."
    )
    parser.add_argument("checkpoint", type=Path, help="folder of the base checkpoint")
    parser.add_argument("data", type=Path, nargs="+", help=ALL_KINDS)
    parser.add_argument("--adapters", type=Path, help="DySL folder (default: `dysl` in the checkpoint)")
    parser.add_argument(
        "--go-on-from",
        type=Path,
        metavar="DYSL",
        help="begin with the adapters and controllers of this DySL folder in place of new ones; its static layers and "
        "sizes are kept, stage 1 leaves out hidden states; it may belong to another checkpoint of the same shape",
    )
    parser.add_argument("--observations", type=int, default=10_000, help="frames to learn from; up to 0.3 MB each")
    parser.add_argument(
        "--variants",
        type=int,
        default=0,
        help="times that each frame is learned from once more with its pictures shifted, in another light and with "
        "noise; the policy says what it would do then",
    )
    parser.add_argument(
        "--controllers",
        choices=("error", "mixture"),
        default="error",
        help="stage 2: taught the action error that skipping makes, or the paper's soft mixture",
    )
    parser.add_argument(
        "--controller-tasks",
        nargs="+",
        metavar="TASK",
        help="simulator: tasks that controllers learn from as well, and adapters do not: what adapters know by heart "
        "tells a controller nothing of the error elsewhere",
    )
    parser.add_argument("--skip-weight", type=float, default=0.1, help="lambda of the mixture")
    parser.add_argument(
        "--large-error",
        type=float,
        default=0.1,
        help="action L1, normalised, that counts twice in the action loss; 0: plain L1, as the paper has it",
    )
    parser.add_argument("--hidden-steps", type=int, default=500, help="stage 1, hidden states")
    parser.add_argument("--action-steps", type=int, default=1800, help="stage 1, action loss through the skipped stack")
    parser.add_argument("--joint-steps", type=int, default=1200, help="stage 2")
    parser.add_argument(
        "--adapter", choices=("pooled", "token"), default="pooled", help="with a few pooled tokens, or token by token"
    )
    parser.add_argument(
        "--adapters-per-block",
        choices=("all", "first"),
        default="all",
        help="at each dynamic layer, or one a block at its first layer: few parameters, no skip from its middle",
    )
    add_module_arguments(parser)
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="highest, of every stage")
    parser.add_argument(
        "--adapter-rate", type=float, default=1.0, help="share of it that adapters take in stage 2; 0: they stay"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="frames a step")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches")
    add_compile_argument(parser)
    add_device_argument(parser)
    parser.add_argument(
        "--no-calibrate", dest="calibrate", action="store_false",
        help="end at the DySL folder, without thresholds; `dysl_vla calibrate` searches them",
    )  # fmt: skip
    add_threshold_arguments(parser)
    add_apart_arguments(parser)


def add_module_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what adapters and controllers are made like, but for the kind of adapter."""
    parser.add_argument(
        "--bottleneck", type=int, help="width of an adapter (96; 64 at each layer of a policy wider than 512)"
    )
    parser.add_argument("--queries", type=int, help="pooled tokens that a block's pooled adapters share (4)")
    parser.add_argument(
        "--pool-rank", type=int,
        help="rank of the mix of pooled tokens; 0: full (0; 48 for a policy wider than 512)",
    )  # fmt: skip
    parser.add_argument("--controller-width", type=int, help="units of a controller (32)")


def add_compile_argument(parser: argparse.ArgumentParser) -> None:
    """Declare whether the frozen layers are compiled."""
    parser.add_argument(
        "--no-compile", dest="compile", action="store_false",
        help="do without torch.compile: half as fast, but at once; compiling needs a C++ compiler",
    )  # fmt: skip


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that make no sense, and what is not there; say which options do nothing."""
    new, given = not arguments.go_on_from, vars(arguments)
    warn_of_idle_options(
        given,
        add_arguments,
        (not new, KEPT, "static layers and sizes are those of --go-on-from, without hidden states"),
        (arguments.controllers == "error", ("skip_weight",), "it is of --controllers mixture"),
        (
            arguments.controllers == "mixture",
            ("controller_tasks",),
            "the mixture teaches adapters and controllers on the same frames",
        ),
        (new and arguments.adapter == "token", OF_POOLED, "--adapter token has no pooled tokens"),
        (not arguments.calibrate, OF_SEARCH, "no thresholds are searched with --no-calibrate"),
        (
            arguments.calibrate and any(map(is_bag, arguments.data)),
            SIMULATED_RUNS,
            "thresholds are searched on what is held out of the bags",
        ),
    )
    numbers = ("hidden_steps", "action_steps", "joint_steps", "batch_size", "observations")
    require_numbers(given, **dict.fromkeys(numbers, 1), variants=0, large_error=0, adapter_rate=0)
    if not 0.0 < arguments.learning_rate < float("inf"):
        raise DataError(f"--learning-rate must be above 0, not {arguments.learning_rate}")
    ModuleSettings(**{name: given[name] for name in MODULES})
    calibrate.check_thresholds(given)
    require_device(arguments.device)
    apart = require_computable(arguments.checkpoint, given)
    warn_of_idle_options(
        given,
        add_arguments,
        (apart, OF_CACHED, "another project's checkpoint is learned from batch by batch"),
        (not apart, OF_APART, "they are of another project's checkpoint"),
    )
    if arguments.go_on_from:
        require_dysl(arguments.go_on_from)
    if new:
        require_choice(folder_of(arguments.checkpoint, arguments.adapters or ""))
    require_data(arguments.data, data_settings(given))
    if arguments.controller_tasks:
        require_controller_tasks(arguments.controller_tasks, arguments.tasks, arguments.data)


def require_controller_tasks(controllers: Sequence[str], tasks: Sequence[str] | None, data: Sequence[Path]) -> None:
    """Refuse tasks for controllers alone that adapters learn from, that are tested with alone, or that bags have not.

    Raises:
        DataError: names them.
    """
    if any(map(is_bag, data)):
        raise DataError("--controller-tasks names simulated tasks, and a bag has none; leave it out")
    own = tasks_named(controllers)
    require_learnable(own)
    learned = {task.name for task in tasks_named(tasks)}
    if both := [task.name for task in own if task.name in learned]:
        raise DataError(
            f"--controller-tasks: adapters learn from {', '.join(both)} as well; name tasks that --tasks does not"
        )


def run(arguments: argparse.Namespace) -> int:
    """Distill; then, unless it is left out, calibrate on what is held out of the same data."""
    from dysl_vla_ros.jobs.distilling import opened_distilling

    checkpoint, adapters, m = arguments.checkpoint, arguments.adapters or "", arguments.actions_per_inference
    settings = calibrate.settings_from(vars(arguments))
    options = calibrate.params_option(arguments.params) + behind(settings.data.recordings.as_options())
    with opened_distilling(checkpoint, adapters, settings_from(vars(arguments))) as job:
        if arguments.calibrate:  # found out now, not after hours of training
            job.require_actions(m)
        made = job.distill(arguments.data)
        if arguments.calibrate:
            print(f"written: {made.folder}; now its thresholds, as `dysl_vla calibrate` searches them", flush=True)
            found = job.search_thresholds(made.data, settings)
    if arguments.calibrate:
        calibrate.print_thresholds(found, checkpoint, arguments.data, options)
    else:
        data = " ".join(map(str, arguments.data))
        print(f"next: dysl_vla calibrate {checkpoint} {data} --adapters {made.folder}{options}", flush=True)
    for warning in made.warnings:  # behind the figures and beside what comes next, where it is read
        print(f"warning: {warning}", flush=True)
    return 0


def settings_from(given: Mapping[str, Any]) -> DistillSettings:
    """Return the settings that arguments say; name -> value."""
    return DistillSettings(
        observations=given["observations"],
        variants=given["variants"],
        stages=DistillationSettings(**{name: given[name] for name in STAGES}),
        modules=ModuleSettings(**{name: given[name] for name in MODULES}),
        controller_tasks=tuple(given["controller_tasks"] or ()),
        go_on_from=given["go_on_from"],
        device=given["device"],
        data=data_settings(given),
        apart=apart_settings(given),
    )
