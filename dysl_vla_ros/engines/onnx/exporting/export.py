"""From a checkpoint and its DySL folder to their export, in the order of execution."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
from tqdm import tqdm

import dysl_vla_ros
from dysl_vla_ros.engines.onnx.exported import (
    FORMAT,
    FP16,
    FP32,
    HEAD,
    INT8,
    METADATA,
    OWN_WEIGHTS,
    PREPARE,
    Export,
    adapter_name,
    base_of,
    decision_name,
    dysl_of,
    folder_of,
    graph_file,
    mapped,
    run_name,
    runs_of,
)
from dysl_vla_ros.engines.onnx.exporting.checking import errors_of, require_equal
from dysl_vla_ros.engines.onnx.exporting.graph import FLOAT, HALF, Graph
from dysl_vla_ros.engines.onnx.exporting.quantised import quantised, share_weights
from dysl_vla_ros.engines.onnx.exporting.reference import Sizes, write_head, write_layers, write_prepare
from dysl_vla_ros.engines.onnx.exporting.stand_ins import write_adapter, write_decision
from dysl_vla_ros.engines.onnx.exporting.weights import Stored, stored_in
from dysl_vla_ros.engines.onnx.loading import require_family
from dysl_vla_ros.engines.onnx.modules import OnnxModules
from dysl_vla_ros.engines.onnx.policy import OnnxReferencePolicy
from dysl_vla_ros.engines.onnx.sessions import Device, Sessions
from dysl_vla_ros.files import require_writable, sha256, written_together
from dysl_vla_ros.policies.reference_config import WEIGHTS, ReferenceConfig, read_reference
from dysl_vla_ros.runtime.folder import WEIGHTS as ADAPTERS
from dysl_vla_ros.runtime.folder import DyslFiles, dysl_beside, read_dysl
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.skipping.partition import LayerPartition

Writer = Callable[[Graph], None]


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    export: Export
    graph_bytes: int
    weight_bytes: int  # of weights of its own; 0: they stay in the checkpoint


def export_checkpoint(checkpoint: Path, dysl: str = "", output: Path | None = None, weights: str = FP32) -> Exported:
    """Write the graphs of a checkpoint and its DySL folder, and check each against torch before anything is written.

    Args:
        checkpoint: folder of the base.
        dysl: DySL folder; "": the checkpoint's own, every layer always if it has none.
        output: folder; None: where ``model.runtime: onnx`` looks for it.
        weights: FP32, FP16 or INT8.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or its family is not exported.
        DataError: the folder cannot be written to, or a segment differs from torch.
    """
    require_family(checkpoint)
    folder = output or folder_of(checkpoint, dysl, "")
    require_writable(folder, "name another folder with --output, and say so in model.export")
    runtime = Runtime.load(str(checkpoint), dysl)
    files = read_reference(checkpoint)
    skipping = dysl_beside(checkpoint, dysl)
    said = read_dysl(skipping, files.weights_hash, files.config.layers) if skipping else None
    partition = said.partition if said else LayerPartition.full(files.config.layers)
    stored = stored_in(checkpoint / WEIGHTS)
    shared = {WEIGHTS: mapped(checkpoint / WEIGHTS)}
    if skipping:
        stored |= stored_in(skipping / ADAPTERS)
        shared[ADAPTERS] = mapped(skipping / ADAPTERS)
    writers = _writers(Sizes(files.config), partition, said)
    with tempfile.TemporaryDirectory(prefix="dysl_vla_export_") as place:
        there = Path(place)
        models = {
            name: _model(name, write, stored, weights, there)
            for name, write in tqdm(writers.items(), desc="graphs", unit="segment", disable=None, leave=False)
        }
        if weights == INT8:
            share_weights({name: models[name] for name in models if _reduced(name)}, there)
            shared[OWN_WEIGHTS] = mapped(there / OWN_WEIGHTS)
        for name, model in models.items():
            (there / graph_file(name)).write_bytes(model.SerializeToString())
        names = [*map(graph_file, models), *([OWN_WEIGHTS] if weights == INT8 else [])]
        export = Export(
            FORMAT, dysl_vla_ros.__version__, onnxruntime.__version__, weights, base_of(files), dysl_of(said),
            runs_of(partition), {name: sha256(there / name) for name in names},
        )  # fmt: skip
        errors = _checked(runtime, files.config, export, there, shared)
        return _written(folder, there, export, errors)


def _writers(sizes: Sizes, partition: LayerPartition, dysl: DyslFiles | None) -> dict[str, Writer]:
    """Return what writes the graph of each segment, in the order of a step."""
    writers: dict[str, Writer] = {PREPARE: partial(write_prepare, sizes=sizes)}
    for first, end in runs_of(partition):
        writers[run_name(first, end)] = partial(write_layers, sizes=sizes, first=first, end=end)
    writers[HEAD] = partial(write_head, sizes=sizes)
    for layer in partition.skip_points if dysl else ():
        assert dysl is not None
        block, queries, rank = partition.block_of(layer), dysl.module_sizes["queries"], dysl.module_sizes["rank"]
        assert block is not None
        writers[decision_name(layer)] = partial(
            write_decision, sizes=sizes, layer=layer, block=block, queries=queries, rank=rank
        )
        writers[adapter_name(layer)] = partial(write_adapter, sizes=sizes, layer=layer, queries=queries)
    return writers


def _reduced(segment: str) -> bool:
    """Tell whether a segment's products are computed in int8; vision, decisions and head cost little, decide much."""
    return segment.startswith(("layers_", "adapter_"))


def _model(name: str, write: Writer, stored: dict[str, Stored], weights: str, place: Path) -> Any:
    reduced = weights == INT8 and _reduced(name)
    graph = Graph(name, stored, HALF if weights == FP16 else FLOAT, inline=reduced)
    write(graph)
    return quantised(graph.model(), place) if reduced else graph.model()


def _checked(
    runtime: Runtime, config: ReferenceConfig, export: Export, place: Path, shared: dict[str, Any]
) -> dict[str, float]:
    """Return each segment's difference from torch on this machine's CPU."""
    device = Device("cpu")
    sessions = Sessions(device, 1, shared)
    segments = tqdm(total=len(export.files), desc="check", unit="segment", disable=None, leave=False)

    def opened(segment: str) -> Any:
        segments.update()
        return sessions.open(place / graph_file(segment))

    base = runtime.policy
    policy = OnnxReferencePolicy(config, base.weights_hash, base.base_hash, export, device, opened)
    modules = OnnxModules(export.dysl.partition, opened) if export.dysl else None
    errors = errors_of(runtime, policy, modules, export, device.put)
    segments.close()
    require_equal(errors, export.weights)
    return errors


def _written(folder: Path, place: Path, export: Export, errors: dict[str, float]) -> Exported:
    """Write everything, or leave an earlier export as it was."""
    export = replace(export, errors=errors)
    with written_together() as files:
        for old in (*folder.glob("*.onnx"), folder / OWN_WEIGHTS):
            if old.name not in export.files:
                files.remove(old)
        for name in export.files:
            files.add(folder / name, partial(shutil.copyfile, place / name))
        files.add_json(folder / METADATA, asdict(export))
    sizes = {name: (folder / name).stat().st_size for name in export.files}
    own = sizes.pop(OWN_WEIGHTS, 0)
    return Exported(folder, export, sum(sizes.values()), own)
