"""An export: the graphs of a checkpoint and its DySL folder, and ``export.json``, which says of which.

Weights stay where they are. A graph names ``model.safetensors`` or ``adapters.safetensors`` and the place in it; the
file is handed to ONNX Runtime with the graph, so that the two may lie anywhere and no path in a graph is ever opened.
"""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.files import sha256
from dysl_vla_ros.json_files import build_from, read_object
from dysl_vla_ros.policies.reference_config import FAMILY, ReferenceFiles
from dysl_vla_ros.runtime.folder import WEIGHTS as ADAPTERS
from dysl_vla_ros.runtime.folder import DyslFiles
from dysl_vla_ros.skipping.partition import LayerPartition

FOLDER, METADATA, FORMAT = "onnx", "export.json", 1
OWN_WEIGHTS = "weights.safetensors"  # of an export whose numbers are not those of the checkpoint
FP32, FP16, INT8 = "fp32", "fp16", "int8"
NUMBERS = {FP32: "float32", FP16: "float16", INT8: "float32"}  # --weights -> what hidden states are
PREPARE, HEAD = "prepare", "head"  # segments of every export
AGAIN = "run `dysl_vla export` again"


@dataclass(frozen=True)
class ExportedBase:
    """Which base was exported."""

    family: str
    sha256: str  # of its weights
    hash: str  # of all of it that decides the motion


@dataclass(frozen=True)
class ExportedDysl:
    """Which DySL folder was exported, and what may be skipped by it."""

    sha256: str  # of its weights
    num_layers: int
    static: tuple[int, ...]
    per_block: str

    @property
    def partition(self) -> LayerPartition:
        """Static layers and blocks."""
        return LayerPartition(self.num_layers, self.static, self.per_block)


@dataclass(frozen=True)
class Export:
    """What ``export.json`` says."""

    format_version: int
    package_version: str
    onnxruntime: str  # the version that the export was checked with
    weights: str  # FP32, FP16 or INT8
    base: ExportedBase
    dysl: ExportedDysl | None
    runs: tuple[tuple[int, int], ...]  # (first layer, one past the last) of each graph of the stack
    files: Mapping[str, str]  # name -> SHA-256, of every file but this
    errors: Mapping[str, float] = field(default_factory=dict)  # segment -> largest difference from torch, see checking


def runs_of(partition: LayerPartition) -> tuple[tuple[int, int], ...]:
    """Return the stack in runs between which something may be decided: (first layer, one past the last) of each."""
    cuts = {0, partition.num_layers, *partition.skip_points, *(end for _, end in partition.blocks)}
    cuts |= {first for first, _ in partition.blocks}
    places = sorted(cuts)
    return tuple(zip(places[:-1], places[1:], strict=True))


def run_name(first: int, end: int) -> str:
    """Return the segment of a run of layers."""
    return f"layers_{first}_{end - 1}"


def decision_name(layer: int) -> str:
    """Return the segment of a skip point's pool and controller."""
    return f"decision_{layer}"


def adapter_name(layer: int) -> str:
    """Return the segment of a skip point's adapter."""
    return f"adapter_{layer}"


def segments_of(partition: LayerPartition) -> tuple[str, ...]:
    """Return the names of all segments, in the order of a step."""
    names = [PREPARE, *(run_name(*run) for run in runs_of(partition)), HEAD]
    for layer in partition.skip_points:
        names += [decision_name(layer), adapter_name(layer)]
    return tuple(names)


def graph_file(segment: str) -> str:
    """Return the name of a segment's file."""
    return f"{segment}.onnx"


def folder_of(checkpoint: Path, adapters: str, export: str) -> Path:
    """Return where an export lies: as said, else beside the adapters that were named, else in the checkpoint."""
    return Path(export) if export else (Path(adapters) if adapters else checkpoint) / FOLDER


def read_export(folder: Path) -> Export:
    """Read ``export.json`` and check every file that it names against its hash.

    Raises:
        CheckpointError: no export, of another version, or a file is missing or other than it was written.
    """
    path = folder / METADATA
    try:
        values = read_object(path, AGAIN)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(
            f"{path} is missing: the runtime is onnx, and this checkpoint was not exported; run `dysl_vla export "
            "CHECKPOINT` (with --dysl FOLDER where other adapters than its own are named), or name the export in "
            "model.export (--export)"
        ) from error
    if values.get("format_version") != FORMAT:
        raise CheckpointError(
            f"{path}: format_version is {values.get('format_version')!r:.40}, this version reads {FORMAT}; {AGAIN}"
        )
    export: Export = build_from(Export, values, "", path, AGAIN)
    if export.weights not in NUMBERS:
        raise CheckpointError(f"{path}: weights is {export.weights!r:.40}, expected {', '.join(NUMBERS)}; {AGAIN}")
    for name, expected in export.files.items():
        if Path(name).name != name or not name.endswith((".onnx", ".safetensors")):
            raise CheckpointError(f"{path}: file {name!r:.60} is no graph or weights in the folder itself; refused")
        own = folder / name
        if not own.is_file():
            raise CheckpointError(f"{own} is missing; {AGAIN}")
        if (found := sha256(own)) != expected:
            raise CheckpointError(
                f"{own} ({own.stat().st_size} bytes) is not the file that was exported: its SHA-256 begins "
                f"{found[:12]}, {path} says {expected[:12]}; {AGAIN}"
            )
    return export


def require_of(export: Export, base: ExportedBase, dysl: ExportedDysl | None, path: Path) -> None:
    """Refuse an export of anything but this checkpoint and this DySL folder, or one that lacks a segment.

    Raises:
        CheckpointError: says what it is of, and what was to be run.
    """
    if export.base != base:
        found, wanted = _apart(export.base, base)
        raise CheckpointError(f"{path}: it is an export of {found}, the checkpoint has {wanted}; {AGAIN}")
    if export.dysl != dysl:
        if export.dysl is None or dysl is None:
            found, wanted = (f"a DySL folder with {it.sha256[:12]}" if it else "none" for it in (export.dysl, dysl))
        else:
            found, wanted = _apart(export.dysl, dysl)
        raise CheckpointError(f"{path}: it was exported with DySL folder: {found}; to be run: {wanted}; {AGAIN}")
    partition = dysl.partition if dysl else None
    wanted_files = {graph_file(name) for name in segments_of(partition)} if partition else set()
    wanted_files |= {graph_file(run_name(*run)) for run in export.runs} | {graph_file(PREPARE), graph_file(HEAD)}
    ends = [end for _, end in export.runs]
    joined = [first for first, _ in export.runs] == [0, *ends[:-1]]
    fits = joined and (partition is None or export.runs == runs_of(partition))
    if missing := sorted(wanted_files - export.files.keys()):
        raise CheckpointError(f"{path}: it has no {', '.join(missing)}; {AGAIN}")
    if not fits:
        raise CheckpointError(f"{path}: runs {list(export.runs)!s:.80} are not those of the partition; {AGAIN}")


def base_of(files: ReferenceFiles) -> ExportedBase:
    """Return what an export says of a base."""
    return ExportedBase(FAMILY, files.weights_hash, files.base_hash)


def dysl_of(files: DyslFiles | None) -> ExportedDysl | None:
    """Return what an export says of a DySL folder."""
    if files is None:
        return None
    partition = files.partition
    return ExportedDysl(files.config["files"][ADAPTERS], partition.num_layers, partition.static, partition.per_block)


def mapped(path: Path) -> Any:
    """Return the bytes of a file, which are read as they are used.

    Raises:
        CheckpointError: there is no such file, or it is empty.
    """
    try:
        with path.open("rb") as source:
            return mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; {AGAIN}") from error


def _apart(one: Any, other: Any) -> tuple[str, str]:
    """Return the first fields in which two differ, as text."""
    name = next(name for name in vars(one) if getattr(one, name) != getattr(other, name))
    return f"{name} {getattr(one, name)!s:.20}", f"{name} {getattr(other, name)!s:.20}"
