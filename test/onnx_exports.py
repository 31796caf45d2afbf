"""Exports of tiny checkpoints, and both engines beside each other: what the tests of ONNX Runtime share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from dysl_vla_ros.engines import ONNX
from dysl_vla_ros.engines.onnx.exported import METADATA
from dysl_vla_ros.engines.onnx.exporting.export import export_checkpoint
from dysl_vla_ros.files import sha256
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.runtime.step import Runtime
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

LAYERS = 8


def make_exported(folder: Path, offset: float = 0.0, weights: str = "fp32") -> Path:
    """Write a tiny checkpoint, its DySL folder and their export; ``offset``: see ``make_tiny_dysl``."""
    checkpoint = make_tiny_checkpoint(folder, LAYERS)
    make_tiny_dysl(checkpoint / "dysl", checkpoint, offset=offset)
    export_checkpoint(checkpoint, weights=weights)
    return checkpoint


def load(checkpoint: Path, **options: Any) -> Runtime:
    """Load a checkpoint on ONNX Runtime."""
    return Runtime.load(str(checkpoint), options.pop("adapters", ""), engine=ONNX, **options)


def observations(runtime: Runtime, number: int, seed: int = 0) -> list[Observation]:
    """Return noisy observations of several sizes."""
    policy, random = runtime.policy, np.random.default_rng(seed)
    return [
        Observation(
            images={name: random.integers(0, 256, (48 + 16 * (place % 5), 96, 3), np.uint8) for name in policy.cameras},
            proprioception=random.normal(size=len(policy.proprioception.names)).astype(np.float32),
            instruction=policy.instructions[place % len(policy.instructions)],
        )
        for place in range(number)
    ]


def rewrite(folder: Path, **changes: Any) -> None:
    """Change entries of an export's description."""
    path = folder / METADATA
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def damage(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change a graph, and the hash that its export has of it: what a hash cannot tell."""
    path = folder / name
    model = onnx.load(str(path), load_external_data=False)
    changed = change(model)
    path.write_bytes(changed if isinstance(changed, bytes) else model.SerializeToString())
    files = json.loads((folder / METADATA).read_text())["files"]
    rewrite(folder, files=files | {name: sha256(path)})


def say_of_external(key: str, value: str) -> Callable[[Any], None]:
    """Return a change: the first external tensor of a graph says something else of its place."""

    def change(model: Any) -> None:
        tensor = next(own for own in model.graph.initializer if own.external_data)
        next(entry for entry in tensor.external_data if entry.key == key).value = value

    return change
