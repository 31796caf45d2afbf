"""``dysl_vla distill``: adapters and controllers for a frozen policy."""

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dysl_vla_ros.commands.argument_checks import require_data, require_numbers, require_policy
from dysl_vla_ros.commands.calibrate import (
    add_threshold_arguments,
    check_thresholds,
    read_choice,
    require_choice,
    search_thresholds,
)
from dysl_vla_ros.commands.idle_options import warn_of_idle_options
from dysl_vla_ros.commands.training_data import SIMULATED_RUNS, WHAT, is_bag, open_data, record_teacher
from dysl_vla_ros.control.chunk_time import require_actions
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.skipping.module_sizes import fitting_sizes

if TYPE_CHECKING:
    from dysl_vla_ros.distillation.initial_weights import Beginning
    from dysl_vla_ros.policies.interface import VlaPolicy

HELD_OUT = 512  # frames of episodes that nothing is learned from, to judge by
KEPT = ("adapter", "adapters_per_block", "bottleneck", "queries", "controller_width", "hidden_steps")  # when gone on
THREADS = min(2, os.cpu_count() or 1)  # for operations this small more were never tried


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; those of the shipped adapters are in their model card."""
    parser.description = (
        "Train adapters and controllers for a frozen policy, then search thresholds. The targets are the policy's own "
        "actions at full depth. Interrupted, it goes on behind the last finished stage when it is started again."
    )
    parser.add_argument("checkpoint", type=Path, help="folder of the base checkpoint")
    parser.add_argument("data", type=Path, nargs="+", help=WHAT)
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
    add_threshold_arguments(parser)


def add_module_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what adapters and controllers are made like, but for the kind of adapter."""
    parser.add_argument(
        "--bottleneck", type=int, help="width of an adapter (96; 64 at each layer of a policy wider than 1024)"
    )
    parser.add_argument("--queries", type=int, help="pooled tokens that a block's pooled adapters share (4)")
    parser.add_argument(
        "--pool-rank", type=int,
        help="rank of the mix of pooled tokens; 0: full (0; 48 for a policy wider than 1024)",
    )  # fmt: skip
    parser.add_argument("--controller-width", type=int, help="units of a controller (32)")


def add_compile_argument(parser: argparse.ArgumentParser) -> None:
    """Declare whether the frozen layers are compiled."""
    parser.add_argument(
        "--no-compile", dest="compile", action="store_false",
        help="do without torch.compile: half as fast, but at once; compiling needs a C++ compiler",
    )  # fmt: skip


def module_sizes(arguments: argparse.Namespace, adapter: str, per_block: str, width: int = 0) -> dict[str, int]:
    """Return the sizes of modules with one kind of adapter, for hidden states of ``width``.

    Raises:
        DataError: a size is below what there is.
    """
    least = {"bottleneck": 1, "queries": 1, "controller_width": 1, "pool_rank": 0}
    given = {name: size for name in least if (size := getattr(arguments, name)) is not None}
    faults = [
        f"--{name.replace('_', '-')} must be at least {least[name]}, not {size}"
        for name, size in given.items()
        if size < least[name]
    ]
    if faults:
        raise DataError(f"{'; '.join(faults)} (adapters without pooled tokens: --adapter token)")
    sizes = fitting_sizes(width, per_block) | {name.removeprefix("pool_"): size for name, size in given.items()}
    return sizes if adapter == "pooled" else sizes | {"queries": 0, "rank": 0}


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that make no sense, and what is not there; say which options do nothing."""
    new = not arguments.go_on_from
    warn_of_idle_options(
        arguments,
        add_arguments,
        (not new, KEPT, "static layers and sizes are those of --go-on-from, without hidden states"),
        (arguments.controllers == "error", ("skip_weight",), "it is of --controllers mixture"),
        (new and arguments.adapter == "token", ("queries",), "--adapter token has no pooled tokens"),
        (any(map(is_bag, arguments.data)), SIMULATED_RUNS, "thresholds are searched on what is held out of the bags"),
    )
    numbers = ("hidden_steps", "action_steps", "joint_steps", "batch_size", "observations")
    require_numbers(arguments, **dict.fromkeys(numbers, 1), variants=0, large_error=0, adapter_rate=0)
    if not 0.0 < arguments.learning_rate < float("inf"):
        raise DataError(f"--learning-rate must be above 0, not {arguments.learning_rate}")
    module_sizes(arguments, arguments.adapter, arguments.adapters_per_block)
    check_thresholds(arguments)
    require_policy(arguments.checkpoint, arguments.go_on_from)
    if not arguments.go_on_from:
        require_choice(arguments.adapters or arguments.checkpoint / "dysl")
    require_data(arguments.data, arguments)


def run(arguments: argparse.Namespace) -> int:
    """Record the teacher, train both stages, search thresholds, write the DySL folder."""
    import torch

    from dysl_vla_ros.distillation import stage_report
    from dysl_vla_ros.distillation.activations import inputs_of
    from dysl_vla_ros.distillation.initial_weights import trained_modules
    from dysl_vla_ros.distillation.resume import Unfinished
    from dysl_vla_ros.distillation.stages import Distillation, DistillationSettings
    from dysl_vla_ros.distillation.verdict import verdicts
    from dysl_vla_ros.files import require_writable
    from dysl_vla_ros.policies.registry import load_policy
    from dysl_vla_ros.runtime.step import Runtime

    torch.set_num_threads(THREADS)
    torch.manual_seed(arguments.seed)
    folder = arguments.adapters or arguments.checkpoint / "dysl"
    policy = load_policy(arguments.checkpoint)
    require_actions(arguments.actions_per_inference, policy.action.horizon)
    goes_on = arguments.go_on_from
    begun = trained_modules(goes_on, policy) if goes_on else _new_modules(arguments, folder, policy)
    require_writable(folder)
    partition, modules = begun.partition, begun.modules
    if begun.gone_on_from and begun.gone_on_from["base_sha256"] != policy.weights_hash:
        print(f"{goes_on} was made for another checkpoint: its adapters are where training begins", flush=True)
    print(f"static layers {list(partition.static)}; {stage_report.size_sentence(modules, policy)}", flush=True)

    data = open_data(arguments.data, arguments, Runtime(policy, None))
    count, layers = data.count(arguments.observations), inputs_of(policy, partition)
    activations = record_teacher(
        policy, data, count, layers, variants=arguments.variants, seed=arguments.seed, folder=folder
    )
    held_out = record_teacher(
        policy, data, HELD_OUT, layers, held_out=True, folder=folder, label="the same, held out"
    )
    settings = DistillationSettings(
        hidden_steps=0 if goes_on else arguments.hidden_steps,
        action_steps=arguments.action_steps,
        joint_steps=arguments.joint_steps,
        batch_size=arguments.batch_size,
        controllers=arguments.controllers,
        skip_weight=arguments.skip_weight,
        learning_rate=arguments.learning_rate,
        adapter_rate=arguments.adapter_rate,
        large_error=arguments.large_error,
        seed=arguments.seed,
        compile=arguments.compile,
    )
    job = Distillation(partition, modules, activations, settings, held_out)
    plan = [asdict(settings), dict(begun.sizes), list(partition.static), partition.per_block, policy.weights_hash]
    plan += [dict(begun.gone_on_from)] if begun.gone_on_from else []
    unfinished = Unfinished(folder, plan, activations.actions)
    start = job.judge.floor_error()
    print(f"before training: floor {start:.4f}", flush=True)
    records = stage_report.run_stages(stage_report.stages_of(job), unfinished, modules)
    print("\n".join(stage_report.tables(records)), flush=True)
    warnings = verdicts(start, records, gone_on=bool(goes_on))
    found = {"floor_error_before": round(start, 5), "warnings": warnings}
    stage_report.write_folder(
        folder, job, records, begun, m=arguments.actions_per_inference, told=data.told(), found=found
    )
    unfinished.remove()
    del activations, held_out, job
    code = search_thresholds(arguments, folder, data)
    for warning in warnings:  # behind the figures and beside what comes next, where it is read
        print(f"warning: {warning}", flush=True)
    return code


def _new_modules(arguments: argparse.Namespace, folder: Path, policy: "VlaPolicy") -> "Beginning":
    from dysl_vla_ros.distillation.initial_weights import new_modules
    from dysl_vla_ros.skipping.partition import LayerPartition

    width = policy.streams[0].width
    sizes = module_sizes(arguments, arguments.adapter, arguments.adapters_per_block, width)
    choice = read_choice(folder, policy.weights_hash)
    partition = LayerPartition(len(policy.layers), choice.static, arguments.adapters_per_block)
    if not partition.blocks:
        raise DataError(
            f"{folder}: all layers were chosen as static, so there is nothing to skip; calibrate with fewer"
        )
    return new_modules(partition, policy, sizes, choice.choice)
