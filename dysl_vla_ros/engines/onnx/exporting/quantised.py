"""int8 weights by ONNX Runtime's own quantiser, in one file that all graphs share."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from dysl_vla_ros.engines.onnx.exported import OWN_WEIGHTS
from dysl_vla_ros.engines.onnx.exporting.weights import stored_in
from dysl_vla_ros.files import write_atomically

SMALLEST = 64  # bytes of a tensor that goes into the shared file; smaller ones stay in their graph


def quantised(model: Any, folder: Path) -> Any:
    """Return a model whose products by weights are computed in int8; ``folder`` for what lies between.

    Seven bits of each weight are used: with eight, processors without VNNI clip sums silently.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain, reduced = folder / "plain.onnx", folder / "reduced.onnx"
    onnx.save(model, str(plain))
    logging.getLogger().addFilter(_no_advice)
    quantize_dynamic(
        plain, reduced, op_types_to_quantize=["MatMul"], per_channel=True, reduce_range=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # behind operators that are ONNX Runtime's own
    )  # fmt: skip
    logging.getLogger().removeFilter(_no_advice)
    return onnx.load(str(reduced))


def _no_advice(record: logging.LogRecord) -> bool:
    """Leave out what the quantiser advises for every model."""
    return "run pre-processing" not in record.getMessage()


def share_weights(models: dict[str, Any], folder: Path) -> None:
    """Move the weights of ``models`` (segment -> model) into one file in ``folder``; the models then name it."""
    from safetensors.numpy import save_file

    found: dict[str, NDArray[Any]] = {}
    for segment, model in models.items():
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) >= SMALLEST:
                found[f"{segment}/{tensor.name}"] = np.ascontiguousarray(numpy_helper.to_array(tensor))
    known = {name: value for name, value in found.items() if value.dtype.name in ("float32", "int8", "uint8")}
    write_atomically(folder / OWN_WEIGHTS, lambda path: save_file(known, path))
    stored = stored_in(folder / OWN_WEIGHTS)
    for segment, model in models.items():
        for tensor in model.graph.initializer:
            if (own := stored.get(f"{segment}/{tensor.name}")) is not None:
                tensor.CopyFrom(own.proto(tensor.name))
