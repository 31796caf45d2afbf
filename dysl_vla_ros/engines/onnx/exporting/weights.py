"""The tensors of safetensors files, as a graph names them: a file and a place in it, never copied."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from dysl_vla_ros.engines.onnx.exported import mapped
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.policies.weights_header import LENGTH, read_shapes

KINDS = {  # of safetensors -> ONNX's, numpy's
    "F16": (TensorProto.FLOAT16, np.float16),
    "F32": (TensorProto.FLOAT, np.float32),
    "U8": (TensorProto.UINT8, np.uint8),
    "I8": (TensorProto.INT8, np.int8),
}


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    name: str
    location: str  # the file's name
    kind: int  # of ONNX's
    shape: tuple[int, ...]
    offset: int  # bytes from the file's beginning
    length: int  # bytes
    values: NDArray[Any]  # looked at in the file, not copied

    def proto(self, name: str) -> TensorProto:
        """Return it as an initializer that names its place."""
        tensor = TensorProto(name=name, data_type=self.kind, dims=self.shape, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", self.location), ("offset", self.offset), ("length", self.length)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor


def stored_in(path: Path, location: str = "") -> dict[str, Stored]:
    """Return the tensors of a safetensors file by their names; ``location``: what graphs call it, "": its name.

    Raises:
        CheckpointError: it is no such file.
        DataError: it has numbers that are not exported.
    """
    read_shapes(path)  # refuses what does not fit the file
    data = mapped(path)
    (header,) = LENGTH.unpack(data[: LENGTH.size])
    start, found = LENGTH.size + header, {}
    for name, said in json.loads(data[LENGTH.size : start]).items():
        if name == "__metadata__":
            continue
        if said["dtype"] not in KINDS:
            raise DataError(f"{path}: tensor '{name}' is {said['dtype']}, export knows {', '.join(KINDS)}")
        kind, dtype = KINDS[said["dtype"]]
        first, end = said["data_offsets"]
        shape = tuple(said["shape"])
        values = np.frombuffer(data, np.uint8, end - first, start + first).view(dtype).reshape(shape)
        found[name] = Stored(name, location or path.name, kind, shape, start + first, end - first, values)
    return found
