"""``dysl_vla distill``: adapters and controllers for a frozen policy."""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dysl_vla_ros.commands.calibrate import add_threshold_arguments, read_choice, search_thresholds
from dysl_vla_ros.commands.training_data import WHAT, open_data
from dysl_vla_ros.errors import DataError

if TYPE_CHECKING:
    from dysl_vla_ros.distillation.stages import Distillation

START = {"step": 1.0, "verify_threshold": 1.0, "dead_band": 0.0, "stride": "integral", "verify_on": "any"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; the defaults made the shipped adapters."""
    parser.description = (
        "Train adapters and controllers for a frozen policy, then search thresholds. The targets are the policy's own "
        "actions at full depth. Interrupted, it goes on behind the last finished stage when it is started again."
    )
    parser.add_argument("checkpoint", type=Path, help="folder of the base checkpoint")
    parser.add_argument("data", type=Path, nargs="+", help=WHAT)
    parser.add_argument("--adapters", type=Path, help="DySL folder (default: `dysl` in the checkpoint)")
    parser.add_argument("--observations", type=int, default=10_000, help="frames to learn from; 0.25 MB of memory each")
    parser.add_argument("--controllers", choices=("error", "mixture"), default="error", help="stage 2: see METHOD")
    parser.add_argument("--skip-weight", type=float, default=0.1, help="lambda of the mixture")
    parser.add_argument("--hidden-steps", type=int, default=500, help="stage 1, hidden states")
    parser.add_argument("--action-steps", type=int, default=1800, help="stage 1, action loss through the skipped stack")
    parser.add_argument("--joint-steps", type=int, default=1200, help="stage 2")
    parser.add_argument("--bottleneck", type=int, default=96, help="width of an adapter")
    parser.add_argument("--queries", type=int, default=4, help="pooled tokens of a block's adapters; 0: none")
    parser.add_argument("--controller-width", type=int, default=32, help="units of a controller")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches")
    add_threshold_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Record the teacher, train both stages, search thresholds, write the DySL folder."""
    import torch

    from dysl_vla_ros.distillation.activations import record_activations
    from dysl_vla_ros.distillation.stages import Distillation, DistillationSettings
    from dysl_vla_ros.distillation.unfinished import Unfinished
    from dysl_vla_ros.files import require_writable
    from dysl_vla_ros.policies.registry import load_policy
    from dysl_vla_ros.runtime.folder import save_dysl
    from dysl_vla_ros.runtime.step import Runtime
    from dysl_vla_ros.skipping.modules import DyslModules
    from dysl_vla_ros.skipping.partition import LayerPartition

    if min(arguments.hidden_steps, arguments.action_steps, arguments.joint_steps, arguments.observations) < 1:
        raise DataError("--hidden-steps, --action-steps, --joint-steps and --observations must be at least 1")
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    folder = arguments.adapters or arguments.checkpoint / "dysl"
    policy = load_policy(arguments.checkpoint)
    choice = read_choice(folder, policy.model_hash)
    require_writable(folder)
    partition = LayerPartition(len(policy.layers), tuple(choice["static"]))
    sizes = {name: getattr(arguments, name) for name in ("bottleneck", "queries", "controller_width")}
    modules = DyslModules(partition, policy.width, **sizes)
    count = sum(parameter.numel() for parameter in modules.parameters())
    print(f"static layers {list(partition.static)}; {count / 1e6:.2f} M parameters to train")

    data = open_data(arguments.data, arguments, Runtime(policy, None).description)
    activations = record_activations(policy, data.observations(arguments.observations), arguments.observations)
    settings = DistillationSettings(
        hidden_steps=arguments.hidden_steps,
        action_steps=arguments.action_steps,
        joint_steps=arguments.joint_steps,
        controllers=arguments.controllers,
        skip_weight=arguments.skip_weight,
        seed=arguments.seed,
    )
    job = Distillation(partition, modules, activations, settings)
    plan = [asdict(settings), sizes, list(partition.static), policy.model_hash]
    unfinished = Unfinished(folder, plan, activations.actions)
    unfinished.load(modules)
    for said in unfinished.said:
        print(f"{said} (finished before)")
    for stage in _stages(job)[len(unfinished.said) :]:
        started = time.monotonic()
        said = stage()
        print(said, flush=True)
        unfinished.save(modules, said, time.monotonic() - started)
    save_dysl(
        folder,
        partition,
        modules,
        family=policy.family,
        base_sha256=policy.model_hash,
        choice=choice["choice"],
        module_sizes=sizes,
        calibration={"guidance": START, "actions_per_inference": arguments.actions_per_inference},
        training={
            "steps": settings.hidden_steps + settings.action_steps + settings.joint_steps,
            "seconds": round(unfinished.seconds),
        },
    )
    unfinished.remove()
    del activations, job
    return search_thresholds(arguments, folder, data)


def _stages(job: "Distillation") -> list[Callable[[], str]]:
    """Return the stages in their order; each trains and says what came of it."""
    kind = job.settings.controllers
    return [
        lambda: f"stage 1, hidden states: {job.train_hidden():.3f} of the skipped change is left unexplained",
        lambda: f"stage 1, actions: L1 {job.train_actions():.4f}; floor {job.floor_error():.4f}",
        lambda: f"stage 2, {kind}: loss {job.train_joint():.4f}; floor {job.floor_error():.4f}",
    ]
