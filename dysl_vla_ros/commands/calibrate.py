"""``dysl_vla calibrate``: which layers stay; and, once adapters are trained, which thresholds."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dysl_vla_ros.commands.argument_checks import require_data, require_numbers, require_policy
from dysl_vla_ros.commands.idle_options import warn_of_idle_options
from dysl_vla_ros.commands.recording_options import recording_words
from dysl_vla_ros.commands.training_data import (
    SIMULATED_RUNS,
    WHAT,
    TrainingData,
    add_data_arguments,
    is_bag,
    open_data,
    record_teacher,
    refuse_recording_options,
    simulated_runs,
)
from dysl_vla_ros.errors import CheckpointError, DataError
from dysl_vla_ros.json_files import build_from, read_object
from dysl_vla_ros.simulation.seeds import calibration_seeds
from dysl_vla_ros.simulation.tasks import tasks_named

STATIC_LAYERS = "static_layers.json"
OF_CHOICE = ("static_ratio", "static_layers", "static", "observations")
OF_SEARCH = ("actions_per_inference", "target_layers")
HELD_OUT = 256  # frames that both floors are judged on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Before distillation: choose the static layers (DATA is needed). After it: search the thresholds again and say "
        "what each signal knows of the floor's error, on episodes of the bags that distillation holds out, or (no "
        "bags) on full-depth runs in simulated scenes that neither demonstrations nor tables use."
    )
    parser.add_argument("checkpoint", type=Path, help="folder of the base checkpoint")
    parser.add_argument("data", type=Path, nargs="*", help=WHAT)
    parser.add_argument("--adapters", type=Path, help="DySL folder (default: `dysl` in the checkpoint)")
    number = parser.add_mutually_exclusive_group()
    number.add_argument("--static-ratio", type=float, default=0.2, help="share of the layers that always run")
    number.add_argument(
        "--static-layers", type=int, metavar="N", help="their number instead, first and last among them; 2: one block"
    )
    parser.add_argument(
        "--static", choices=("auto", "spread", "informative"), default="auto", help="how they are chosen"
    )
    parser.add_argument("--observations", type=int, default=2000, help="frames that the choice is made on")
    add_threshold_arguments(parser)


def add_threshold_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the search for thresholds takes."""
    parser.add_argument("--actions-per-inference", type=int, default=1, help="actions played of each chunk (m)")
    parser.add_argument("--target-layers", type=float, default=0.33, help="largest mean share of layer calls")
    add_data_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Choose static layers, or search thresholds where adapters are there."""
    folder = arguments.adapters or arguments.checkpoint / "dysl"
    if has_adapters(folder):
        return search_thresholds(arguments, folder)
    return choose_layers(arguments, folder)


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that make no sense, and what is not there; say which options do nothing."""
    require_numbers(arguments, observations=1)
    check_thresholds(arguments)
    folder = arguments.adapters or arguments.checkpoint / "dysl"
    searches, bags = has_adapters(folder), any(map(is_bag, arguments.data))
    warn_of_idle_options(
        arguments,
        add_arguments,
        (searches, OF_CHOICE, f"{folder} has adapters, so thresholds are searched; name another folder to choose anew"),
        (not searches, (*OF_SEARCH, *SIMULATED_RUNS), f"{folder} has no adapters yet, so static layers are chosen"),
        (searches and bags, SIMULATED_RUNS, "thresholds are searched on what is held out of the bags"),
    )
    if not 0.0 < arguments.static_ratio <= 1.0:
        raise DataError(f"--static-ratio must be above 0 and at most 1, not {arguments.static_ratio}")
    require_policy(arguments.checkpoint)
    if not arguments.data and not has_adapters(folder):
        raise DataError(f"{folder} has no adapters yet, so static layers are chosen first: name the data folder too")
    if arguments.data:
        require_data(arguments.data, arguments)


def check_thresholds(arguments: argparse.Namespace) -> None:
    """Refuse what the search for thresholds cannot take."""
    require_numbers(arguments, actions_per_inference=1, jobs=1)
    if not 0.0 < arguments.target_layers <= 1.0:
        raise DataError(f"--target-layers is a share, above 0 and at most 1, not {arguments.target_layers}")
    calibration_seeds(arguments.seeds)
    tasks_named(arguments.tasks)


def has_adapters(folder: Path) -> bool:
    """Tell whether a DySL folder was distilled, or only its static layers are chosen."""
    return any((folder / name).exists() for name in ("config.json", "adapters.safetensors"))  # one alone: damaged


def choose_layers(arguments: argparse.Namespace, folder: Path) -> int:
    """Measure similarity, try both floors, write the choice."""
    from dysl_vla_ros.distillation.static_choice import choose_static
    from dysl_vla_ros.files import require_writable, write_json
    from dysl_vla_ros.policies.registry import load_policy
    from dysl_vla_ros.runtime.step import Runtime
    from dysl_vla_ros.skipping.importance import check_count, static_count

    policy = load_policy(arguments.checkpoint)
    layers, wanted = len(policy.layers), arguments.static_layers
    count = static_count(layers, arguments.static_ratio) if wanted is None else check_count(layers, wanted)
    require_writable(folder)
    data = open_data(arguments.data, arguments, Runtime(policy, None))
    frames, both = data.count(arguments.observations), arguments.static == "auto"
    kept = None if both else ()  # without a trial only similarity is measured
    activations = record_teacher(policy, data, frames, kept, folder=folder)
    held_out = record_teacher(policy, data, HELD_OUT, held_out=True, label="the same, held out") if both else None
    choice = choose_static(activations, count, arguments.static, held_out=held_out)
    write_json(
        folder / STATIC_LAYERS,
        {
            "base_sha256": policy.weights_hash,
            "choice": choice.choice,
            "static": list(choice.partition.static),
            "similarity": list(choice.similarity),
            "floor_errors": choice.floor_errors,
            **_recordings(data),
        },
    )
    for name, error in choice.floor_errors.items():
        print(f"floor of {name} static layers: action L1 {error:.4f} after a short training")
    print(f"static layers: {choice.choice} {list(choice.partition.static)} of {choice.partition.num_layers}")
    where = f" --adapters {folder}" if arguments.adapters else ""
    bags = " ".join(map(str, arguments.data))
    print(f"next: dysl_vla distill {arguments.checkpoint} {bags}{where}{recording_words(arguments)}")
    return 0


@dataclass(frozen=True)
class StaticChoice:
    """Of ``static_layers.json`` what distillation needs."""

    base_sha256: str
    choice: str
    static: tuple[int, ...]


def require_choice(folder: Path) -> None:
    """Refuse a folder in which no static layers were chosen.

    Raises:
        CheckpointError: there is no choice.
    """
    if not (folder / STATIC_LAYERS).is_file():
        raise CheckpointError(f"{folder / STATIC_LAYERS} is missing; run `dysl_vla calibrate` first")


def read_choice(folder: Path, weights_hash: str) -> StaticChoice:
    """Read what :func:`choose_layers` wrote.

    Raises:
        CheckpointError: it is not there, cannot be read, or was made for another base.
    """
    path, again = folder / STATIC_LAYERS, "run `dysl_vla calibrate` again"
    require_choice(folder)
    values = read_object(path, again)
    choice: StaticChoice = build_from(StaticChoice, values, "", path, again, lenient=True)
    if choice.base_sha256 != weights_hash:
        raise CheckpointError(
            f"{path} was made for the base {choice.base_sha256[:12]}, this one is {weights_hash[:12]}; {again}"
        )
    return choice


def search_thresholds(arguments: argparse.Namespace, folder: Path, data: TrainingData | None = None) -> int:
    """Take full-depth runs, search, write controllers' offsets and ``calibration.json``; the adapters stay."""
    from dysl_vla_ros.calibration import signals
    from dysl_vla_ros.calibration.threshold_search import prior_verdict, search
    from dysl_vla_ros.runtime.folder import save_dysl
    from dysl_vla_ros.runtime.step import Runtime

    runtime = Runtime.load(str(arguments.checkpoint), str(folder))
    assert runtime.dysl is not None
    m = arguments.actions_per_inference
    if not arguments.data:
        refuse_recording_options(arguments)
    if data is None and arguments.data:
        data = open_data(arguments.data, arguments, runtime)
    runs = data.full_depth_runs(runtime, m) if data else simulated_runs(arguments, m)
    found = search(runtime, runs, m, arguments.target_layers * runtime.dysl.partition.num_layers)
    best, inferences = found.best, sum(len(run.chunks) for run in runs)
    config = runtime.dysl.config
    save_dysl(
        folder,
        runtime.dysl.partition,
        runtime.dysl.modules,
        family=runtime.policy.family,
        base_sha256=runtime.policy.weights_hash,
        choice=config["partition"]["choice"],
        module_sizes=runtime.dysl.module_sizes,
        calibration={
            "guidance": best.to_json()["guidance"],
            "actions_per_inference": m,
            "runs": len(runs),
            "inferences": inferences,
            "chosen": best.to_json(),
            "front": [trial.to_json() for trial in found.front],
            "signals": signals.to_json(found.signals),
            **_recordings(data),
        },
        training=config.get("training"),
    )
    print(f"what each signal knows of the floor's action error, over {inferences} inferences at full depth:")
    print("\n".join(signals.table(found.signals)))
    print(
        f"chosen: {best.layers:.1f} of {runtime.dysl.partition.num_layers} layers, action L1 {best.error:.4f}, "
        f"{best.verified_share:.0%} verified, stride {best.guidance.stride}, verify on {best.guidance.verify_on}"
    )
    if verdict := prior_verdict(best.evenness):
        print(f"warning: {verdict}")
    bags = [str(path) for path in arguments.data if is_bag(path)]
    check = f"replay {' '.join(bags)} --checkpoint" if bags else "evaluate"
    print(f"next: dysl_vla {check} {arguments.checkpoint} --adapters {folder}{recording_words(arguments)}")
    return 0


def _recordings(data: TrainingData | None) -> dict[str, Any]:
    """Return the entry of a result file on where the data came from; {} for the simulator."""
    told = data.told() if data else {}
    return {"recordings": told} if told else {}
