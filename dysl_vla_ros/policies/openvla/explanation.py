"""What an OpenVLA-OFT folder is, by its files alone: sizes, what may be skipped, what it lacks. Imports no torch."""

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from dysl_vla_ros.policies.contract_meaning import contract_draft
from dysl_vla_ros.policies.openvla.files import OpenVlaFolder, read_folder
from dysl_vla_ros.policies.openvla.meaning import CAMERAS, Features
from dysl_vla_ros.policies.openvla.statistics import BOUNDS, STATISTICS, choose_statistics

PARTS = {  # beginning of a key in the big model's files -> part
    "vision_backbone.featurizer.": "vision (DINOv2)",
    "vision_backbone.fused_featurizer.": "vision (SigLIP)",
    "projector.": "projector",
    "language_model.model.embed_tokens": "instruction",
    "language_model.model.layers.": "stack",
    "language_model.lm_head": "unused word head",
}
BYTES = {"float32": 4, "bfloat16": 2}


def explain(path: Path) -> dict[str, Any]:
    """Return plain values.

    Raises:
        CheckpointError: a file is missing, damaged or another model's.
    """
    folder = read_folder(path)
    parts = _parameters(folder)
    count = sum(parts.values())
    return {
        "checkpoint": str(path),
        "family": "openvla_oft",
        "layers": {
            "total": folder.llama.num_hidden_layers,
            "width": folder.llama.hidden_size,
            "streams": ["stack"],
            "skipped": "every layer but the first, the last and the static ones that a DySL folder names",
        },
        "parts": parts,
        "parameters": count,
        "memory_bytes": {name: size * count for name, size in BYTES.items()},
        "disk_bytes": sum(file.stat().st_size for file in folder.weights),
        "inputs": {
            "cameras": [list(names) for names in CAMERAS],
            "proprioception": folder.proprioception,
            "instruction": "any words, in lower case; English, as the language model was trained",
        },
        "action_values": folder.dimensions,
        "statistics": {key: _ranges(folder, key) for key in folder.statistics},
        "missing": _missing(folder),
        "contract": _draft(folder),
    }


def _parameters(folder: OpenVlaFolder) -> dict[str, int]:
    parts: Counter[str] = Counter()
    for shapes in folder.shards.values():
        for key, shape in shapes.items():
            parts[next((part for start, part in PARTS.items() if key.startswith(start)), "norm")] += prod(shape)
    parts["proprioception"] = sum(map(prod, folder.projector_shapes.values()))
    parts["head"] = sum(map(prod, folder.head_shapes.values()))
    return dict(parts)


def _ranges(folder: OpenVlaFolder, key: str) -> dict[str, Any]:
    """Return a data set's ends of the actions by each kind of bounds."""
    found = {}
    for bounds in BOUNDS:
        _, action, _ = choose_statistics(folder.statistics, folder.path / STATISTICS, folder.sizes, key, bounds)
        found[bounds] = {"low": list(action.low), "high": list(action.high), "normalised": list(action.mask)}
    return found


def _missing(folder: OpenVlaFolder) -> dict[str, str]:
    """Return the parameters without which the folder is refused, and how one finds what to say."""
    found = {
        "model.horizon": "actions of a chunk: what it was trained with (LIBERO 8, ALOHA 25, Bridge 5)",
        "model.bounds": "q99 or min_max: what it was trained with (LIBERO and Bridge q99, ALOHA min_max)",
        "robot.cameras": "a topic for each picture that it was trained with",
        "robot.state": f"names and units of {folder.proprioception} values",
        "robot.action": f"kind of {folder.dimensions} values; of joints names and units too",
        "robot.action.time_step": "seconds that one action spans",
    }
    if len(folder.statistics) > 1:
        found["model.statistics_key"] = f"one of {', '.join(folder.statistics)}"
    return found


def _draft(folder: OpenVlaFolder) -> str:
    key, action, _ = choose_statistics(
        folder.statistics, folder.path / STATISTICS, folder.sizes, next(iter(folder.statistics)), next(iter(BOUNDS))
    )
    block = contract_draft(Features(folder, CAMERAS[1], key, action))
    return block.replace("    robot:\n", "    model:\n      horizon: ...\n      bounds: ...\n    robot:\n", 1)
