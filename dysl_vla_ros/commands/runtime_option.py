"""``--runtime torch|onnx`` and ``--export``: declared, read and refused here, for every verb that has them."""

import argparse
import importlib.util
from pathlib import Path

from dysl_vla_ros.commands import INSTALL_TORCH
from dysl_vla_ros.engines import ONNX, RUNTIMES, TORCH
from dysl_vla_ros.engines.choice import EngineChoice
from dysl_vla_ros.engines.onnx.exported import METADATA, folder_of
from dysl_vla_ros.errors import CheckpointError, DataError
from dysl_vla_ros.params_file import read_params_file
from dysl_vla_ros.policies.exportable import family_of, why_not
from dysl_vla_ros.settings import ModelSettings


def add_runtime_arguments(
    parser: argparse.ArgumentParser, default: str = f"model.runtime of --params, else {TORCH}"
) -> None:
    """Declare both options; ``default``: what the help says of it."""
    parser.add_argument(
        "--runtime",
        metavar="|".join(RUNTIMES),
        default="",
        help=f"what computes the policy; onnx: what `dysl_vla export` wrote, without torch (default: {default})",
    )
    parser.add_argument(
        "--export",
        default="",
        metavar="FOLDER",
        help="of ONNX Runtime: folder that `dysl_vla export --output` wrote (default: `onnx` in the DySL folder that "
        "--adapters names, else in the checkpoint)",
    )


def engine_choice(runtime: str, export: str, params: Path | None = None, default: str = TORCH) -> EngineChoice:
    """Return what computes: as said, else as ``model.runtime`` of a parameter file says, else ``default``.

    Raises:
        SettingError: the runtime is none, or the parameter file cannot be read.
    """
    said = EngineChoice.of(read_params_file(params).groups[ModelSettings.group]) if params else EngineChoice(default)
    chosen = runtime or said.runtime
    return EngineChoice(chosen, export or (said.export if chosen == said.runtime else ""))


def require_runtime(engine: EngineChoice, checkpoint: Path, adapters: str = "") -> None:
    """Refuse a runtime that is not installed, and a checkpoint that was not exported for it.

    Raises:
        DataError: which package is missing, or ``--export`` does nothing.
        CheckpointError: the checkpoint's family is not exported, or this one was not.
    """
    require_installed(engine.runtime)
    if engine.runtime != ONNX:
        if engine.export:
            raise DataError(f"--export {engine.export} is of ONNX Runtime: add --runtime onnx")
        return
    if why := why_not(family_of(checkpoint)):
        raise CheckpointError(f"{checkpoint}: {why}; compute it with --runtime torch")
    folder = folder_of(checkpoint, adapters, engine.export)
    if not (folder / METADATA).is_file():
        raise CheckpointError(
            f"{folder / METADATA} is missing: this checkpoint was not exported for ONNX Runtime; run `dysl_vla export "
            f"{checkpoint}{f' --dysl {adapters}' if adapters else ''}`, or compute it with --runtime torch"
        )


def require_installed(runtime: str) -> None:
    """Refuse a runtime whose package this Python lacks.

    Raises:
        DataError: with what installs it, and with the other runtime.
    """
    package = "onnxruntime" if runtime == ONNX else "torch"
    if importlib.util.find_spec(package) is not None:
        return
    fix = "pip install 'dysl_vla_ros[onnx]' (Python 3.11 or later)" if runtime == ONNX else INSTALL_TORCH
    other = TORCH if runtime == ONNX else ONNX
    raise DataError(f"{package} is not installed here; {fix}; or compute with --runtime {other}")
