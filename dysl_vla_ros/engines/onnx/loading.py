"""From a checkpoint, a DySL folder and their export to what :class:`~dysl_vla_ros.runtime.step.Runtime` runs."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from dysl_vla_ros.engines.onnx.exported import (
    INT8,
    METADATA,
    NUMBERS,
    OWN_WEIGHTS,
    base_of,
    dysl_of,
    folder_of,
    graph_file,
    mapped,
    read_export,
    require_of,
)
from dysl_vla_ros.engines.onnx.modules import OnnxModules
from dysl_vla_ros.engines.onnx.policy import OnnxReferencePolicy
from dysl_vla_ros.engines.onnx.sessions import Device, Segment, Sessions
from dysl_vla_ros.errors import CheckpointError, SettingError
from dysl_vla_ros.policies.checkpoint import read_checkpoint
from dysl_vla_ros.policies.exportable import family_of, why_not
from dysl_vla_ros.policies.identity import hash_of
from dysl_vla_ros.policies.reference_config import WEIGHTS, read_reference
from dysl_vla_ros.policies.weights_header import read_shapes
from dysl_vla_ros.policy_options import AS_THE_FILES_SAY, PolicyOptions
from dysl_vla_ros.runtime.folder import WEIGHTS as ADAPTERS
from dysl_vla_ros.runtime.folder import DyslFolder, dysl_beside, read_dysl

CALIBRATED = ".offset"  # what calibration sets and training does not, see skipping.modules.SkipController


def load_onnx(
    checkpoint: Path,
    adapters: str,
    device: str = "cpu",
    threads: int = 1,
    dtype: str = "",
    options: PolicyOptions = AS_THE_FILES_SAY,
    export: str = "",
) -> tuple[OnnxReferencePolicy, DyslFolder | None]:
    """Load what `dysl_vla export` wrote for a checkpoint and its DySL folder. Every file is checked by its hash first.

    Args:
        checkpoint: folder of the base.
        adapters: DySL folder; "": the checkpoint's own, full depth if it has none.
        device: see ``model.device``.
        threads: compute threads of this process.
        dtype: "", or what the export computes in anyway.
        options: what the checkpoint's files do not say.
        export: folder of the export; "": see :func:`~dysl_vla_ros.engines.onnx.exported.folder_of`.

    Raises:
        CheckpointError: something is missing, damaged, of another family, or does not belong together.
        SettingError: the device is not there, or the numbers are not those of the export.
    """
    where = Device(device)
    require_family(checkpoint)
    read_checkpoint(checkpoint)
    files = read_reference(checkpoint)
    options.require_weights(files.weights_hash, str(checkpoint))
    options.require_own_units(str(checkpoint))
    folder = dysl_beside(checkpoint, adapters)
    dysl = read_dysl(folder, files.weights_hash, files.config.layers) if folder else None
    own = folder_of(checkpoint, adapters, export)
    said = read_export(own)
    require_of(said, base_of(files), dysl_of(dysl), own / METADATA)
    if dtype and dtype != NUMBERS[said.weights]:
        raise SettingError(
            f"model.dtype is {dtype!r}, {own} computes in {NUMBERS[said.weights]}: leave model.dtype empty, or export "
            "with other --weights"
        )
    weights = {WEIGHTS: mapped(checkpoint / WEIGHTS)}
    if folder:
        weights[ADAPTERS] = mapped(folder / ADAPTERS)
    base_hash = files.base_hash
    if said.weights == INT8:
        weights[OWN_WEIGHTS] = mapped(own / OWN_WEIGHTS)
        base_hash = hash_of({"base": base_hash, "weights": said.files[OWN_WEIGHTS]})  # other weights move the arm
    sessions = Sessions(where, threads, weights)

    def opened(segment: str) -> Segment:
        return sessions.open(own / graph_file(segment))

    count = sum(_sizes(checkpoint / WEIGHTS).values())
    policy = OnnxReferencePolicy(files.config, files.weights_hash, base_hash, said, where, opened, count)
    if dysl is None or folder is None:
        return policy, None
    trained = {name: size for name, size in _sizes(folder / ADAPTERS).items() if not name.endswith(CALIBRATED)}
    modules = cast(Any, OnnxModules(dysl.partition, opened, trained))
    return policy, DyslFolder(dysl.partition, modules, dysl.config, dysl.calibrated)


def require_family(checkpoint: Path) -> None:
    """Refuse a family that is not exported.

    Raises:
        CheckpointError: names it.
    """
    if why := why_not(family_of(checkpoint)):
        raise CheckpointError(f"{checkpoint}: {why}; set model.runtime to torch")


def _sizes(weights: Path) -> Mapping[str, int]:
    """Return how many values each tensor of a weights file has, by its name."""
    return {name: math.prod(shape) for name, shape in read_shapes(weights).items()}
