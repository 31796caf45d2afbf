"""The shipped checkpoint's graphs are those of its weights: whoever replaces the weights exports them again."""

from pathlib import Path

import numpy as np
import pytest

from dysl_vla_ros.engines import ONNX
from dysl_vla_ros.engines.onnx.exported import FOLDER, METADATA, base_of, dysl_of, read_export, require_of
from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.policies.reference_config import read_reference
from dysl_vla_ros.runtime.folder import read_dysl
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import RuntimeSettings

SHIPPED = Path(__file__).parents[1] / "checkpoints" / "reference"
COMMAND = "dysl_vla export checkpoints/reference"
LARGEST = 2 * 10**6  # bytes of all files


def test_the_shipped_graphs_are_those_of_the_shipped_weights() -> None:
    folder = SHIPPED / FOLDER
    try:
        files = read_reference(SHIPPED)
        dysl = read_dysl(SHIPPED / "dysl", files.weights_hash, files.config.layers)
        require_of(read_export(folder), base_of(files), dysl_of(dysl), folder / METADATA)
    except CheckpointError as error:
        pytest.fail(f"{error}\nthe weights were changed: run `{COMMAND}` and commit {FOLDER}/ with them")
    there = {path.name for path in folder.iterdir()}
    assert there == {METADATA, *read_export(folder).files}, "what no export names is left over"
    assert sum(path.stat().st_size for path in folder.iterdir()) < LARGEST


def test_the_shipped_graphs_compute_what_torch_does() -> None:
    ours, theirs = Runtime.load(str(SHIPPED), ""), Runtime.load(str(SHIPPED), "", engine=ONNX)
    assert ours.description == theirs.description
    seen, nothing = ours.policy.sample(), np.zeros((0, ours.policy.action.dimensions), np.float32)
    for _ in range(3):
        one, other = (runtime.step(seen, nothing, RuntimeSettings()) for runtime in (ours, theirs))
        assert one.trace.executed == other.trace.executed
        assert np.allclose(one.chunk.actions, other.chunk.actions, atol=1e-5)
