"""``dysl_vla calibrate``: which layers stay; and, once adapters are trained, which thresholds."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dysl_vla_ros.bags.folder import is_bag
from dysl_vla_ros.commands.argument_checks import (
    require_computable,
    require_data,
    require_device,
    require_numbers,
    warn_of_idle_options,
)
from dysl_vla_ros.commands.data_options import (
    OF_APART,
    SIMULATED_RUNS,
    add_apart_arguments,
    add_data_arguments,
    apart_settings,
    behind,
    data_settings,
)
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.jobs.learning_data import ALL_KINDS, folder_of, has_adapters, refuse_recording_options
from dysl_vla_ros.jobs.settings import CalibrateSettings
from dysl_vla_ros.policies.lerobot.dataset import is_dataset
from dysl_vla_ros.simulation.seeds import calibration_seeds
from dysl_vla_ros.simulation.tasks import require_learnable, tasks_named

if TYPE_CHECKING:
    from dysl_vla_ros.jobs.calibrate import Thresholds

OF_CHOICE = ("static_ratio", "static_layers", "static", "observations")
OF_SEARCH = ("actions_per_inference", "target_layers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Before distillation: choose the static layers (DATA is needed). After it: search the thresholds again and say "
        "what each signal knows of the floor's error, on episodes of the bags that distillation holds out, or (no "
        "bags) on full-depth runs in simulated scenes that neither demonstrations nor tables use. Another project's "
        "checkpoint (LeRobot's, OpenVLA-OFT's) is calibrated on recordings alone, in the Python of its library."
    )
    parser.add_argument("checkpoint", type=Path, help="folder of the base checkpoint")
    parser.add_argument("data", type=Path, nargs="*", help=ALL_KINDS)
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
    add_device_argument(parser)
    add_threshold_arguments(parser)
    add_apart_arguments(parser)


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Declare where it is computed."""
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")


def add_threshold_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the search for thresholds takes."""
    parser.add_argument(
        "--actions-per-inference",
        type=int,
        default=1,
        help="actions played of each chunk (m); 0, automatic, counts as 1",
    )
    parser.add_argument("--target-layers", type=float, default=0.33, help="largest mean share of layer calls")
    add_data_arguments(parser)


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that make no sense, and what is not there; say which options do nothing."""
    require_numbers(vars(arguments), observations=1)
    check_thresholds(vars(arguments))
    require_device(arguments.device)
    folder = folder_of(arguments.checkpoint, arguments.adapters or "")
    searches, bags = has_adapters(folder), any(map(is_bag, arguments.data))
    warn_of_idle_options(
        vars(arguments),
        add_arguments,
        (searches, OF_CHOICE, f"{folder} has adapters, so thresholds are searched; name another folder to choose anew"),
        (not searches, (*OF_SEARCH, *SIMULATED_RUNS), f"{folder} has no adapters yet, so static layers are chosen"),
        (searches and bags, SIMULATED_RUNS, "thresholds are searched on what is held out of the bags"),
    )
    if not 0.0 < arguments.static_ratio <= 1.0:
        raise DataError(f"--static-ratio must be above 0 and at most 1, not {arguments.static_ratio}")
    apart = require_computable(arguments.checkpoint, vars(arguments))
    warn_of_idle_options(
        vars(arguments), add_arguments, (not apart, OF_APART, "they are of another project's checkpoint")
    )
    if apart and not arguments.data:
        raise DataError("another project's checkpoint is calibrated on recordings: name one or more bags")
    if not arguments.data and not searches:
        raise DataError(f"{folder} has no adapters yet, so static layers are chosen first: name the data folder too")
    if arguments.data:
        require_data(arguments.data, data_settings(vars(arguments)))
    else:
        refuse_recording_options(data_settings(vars(arguments)))


def run(arguments: argparse.Namespace) -> int:
    """Choose static layers, or search thresholds where adapters are there."""
    checkpoint, adapters, settings = arguments.checkpoint, arguments.adapters or "", settings_from(vars(arguments))
    options = settings.data.recordings.as_options()
    if has_adapters(folder_of(checkpoint, adapters)):
        from dysl_vla_ros.jobs.calibrate import thresholds

        found = thresholds(checkpoint, arguments.data, adapters, settings)
        print_thresholds(found, checkpoint, arguments.data, params_option(arguments.params) + behind(options))
        return 0
    from dysl_vla_ros.jobs.calibrate import static_layers

    choice = static_layers(checkpoint, arguments.data, adapters, settings)
    for name, error in choice.floor_errors.items():
        print(f"floor of {name} static layers: action L1 {error:.4f} after a short training")
    print(f"static layers: {choice.choice} {list(choice.partition.static)} of {choice.partition.num_layers}")
    where = f" --adapters {adapters}" if adapters else ""
    bags = " ".join(map(str, arguments.data))
    where += params_option(arguments.params)
    print(f"next: dysl_vla distill {checkpoint} {bags}{where}{behind(options)}")
    return 0


def settings_from(given: Mapping[str, Any]) -> CalibrateSettings:
    """Return the settings that arguments say, those of :func:`add_threshold_arguments` at least; name -> value."""
    known = {own.name for own in fields(CalibrateSettings)} - {"data", "apart"}
    own = {name: value for name, value in given.items() if name in known}
    return CalibrateSettings(**own, data=data_settings(given), apart=apart_settings(given))


def check_thresholds(given: Mapping[str, Any]) -> None:
    """Refuse what the search for thresholds cannot take; ``given``: name of an argument -> its value."""
    require_numbers(given, actions_per_inference=0, jobs=1)
    if not 0.0 < given["target_layers"] <= 1.0:
        raise DataError(f"--target-layers is a share, above 0 and at most 1, not {given['target_layers']}")
    calibration_seeds(given["seeds"])
    require_learnable(tasks_named(given["tasks"]))


def params_option(params: Path | None) -> str:
    """Return ``--params`` as it stands behind a command, with a space in front; "" without a parameter file."""
    return f" --params {params}" if params else ""


def print_thresholds(found: "Thresholds", checkpoint: Path, data: Sequence[Path], options: str) -> None:
    """Print what a search has found, and what comes next; ``options``: as they stand behind the next command."""
    from dysl_vla_ros.calibration import signals

    best = found.best
    print(f"what each signal knows of the floor's action error, over {found.inferences} inferences at full depth:")
    print("\n".join(signals.table(found.signals)))
    print(
        f"chosen: {best.layers:.1f} of {found.num_layers} layers, action L1 {best.error:.4f}, "
        f"{best.verified_share:.0%} verified, stride {best.guidance.stride}, verify on {best.guidance.verify_on}"
    )
    for warning in found.warnings:
        print(f"warning: {warning}")
    bags = [str(path) for path in data if is_bag(path)] or ["BAG"] * any(map(is_dataset, data))
    proof = f"replay {' '.join(bags)} --checkpoint" if bags else "evaluate"
    print(f"next: dysl_vla {proof} {checkpoint} --adapters {found.folder}{options}")
