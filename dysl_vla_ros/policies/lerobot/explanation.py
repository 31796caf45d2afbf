"""What a LeRobot folder is, from its files alone: every Python can say it, with neither LeRobot nor torch."""

import math
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from dysl_vla_ros.policies.contract_meaning import contract_draft
from dysl_vla_ros.policies.layouts import LAYOUTS, LEROBOT
from dysl_vla_ros.policies.lerobot.folder import ACTION, STATE, WEIGHTS, LeRobotFolder, read_folder

BYTES = {"fp32": 4, "bf16": 2}  # a weight
# part -> tensors of its layers, by their names
LAYERS = {
    "stack": re.compile(r"(?:(?:text_model|language_model)\.layers|model\.transformer\.blocks)\.(\d+)\."),
    "expert": re.compile(r"(?:lm_expert|gemma_expert\.model)\.layers\.(\d+)\."),
}
STEPS = {
    "smolvla": "num_steps", "pi0": "num_inference_steps", "pi05": "num_inference_steps", "xvla": "num_denoising_steps"
}  # fmt: skip


def _expert(steps: int) -> tuple[str, str, int]:
    """Return the name of the following stream, the part that its layers are, and its passes at full depth."""
    return "expert", "expert", steps


def _later_steps(steps: int) -> tuple[str, str, int]:
    return "later_steps", "stack", steps - 1  # the first flow step leads


FOLLOWERS = {"xvla": _later_steps}
HUB = {
    "smolvla": "configuration, tokenizer and processor of vlm_model_name", "pi0": "google/paligemma-3b-pt-224",
    "pi05": "google/paligemma-3b-pt-224", "xvla": "facebook/bart-large",
}  # fmt: skip


def explain(path: Path) -> dict[str, Any]:
    """Return what is in a folder, as plain values.

    Raises:
        CheckpointError: it is damaged, or nothing that can be loaded; see :func:`read_folder`.
    """
    folder = read_folder(path)
    sizes = {name: math.prod(shape) for name, shape in folder.shapes.items()}
    parts = {part: sum(sizes[name] for name in sizes if pattern.search(name)) for part, pattern in LAYERS.items()}
    total = sum(sizes.values())
    steps = folder.config.get(STEPS.get(folder.type, ""), 0)
    return {
        "checkpoint": str(path),
        "family": folder.type,
        "weights_hash": folder.hashes[WEIGHTS],
        "parameters": total,
        "parts": {**parts, "other": total - sum(parts.values())},
        "memory_bytes": {name: size * total for name, size in BYTES.items()},
        "layers": {"total": _depth(folder, "stack"), "skippable": max(_depth(folder, "stack") - 2, 0)},
        "streams": [
            {"name": name, "layers": _depth(folder, part), "width": _width(folder, part), "passes": passes}
            for name, part, passes in (("stack", "stack", 1), FOLLOWERS.get(folder.type, _expert)(steps))
            if passes
        ],
        "cameras": {name: list(shape) for name, shape in folder.cameras.items()},
        "state": {"values": folder.state_size, "normalised": folder.modes[STATE]},
        "action": {
            "values": folder.action_size, "horizon": folder.config.get("chunk_size"), "normalised": folder.modes[ACTION]
        },
        "hub": HUB.get(folder.type, ""),
        "refused": refusals(folder),
        "contract": contract_draft(folder),
    }  # fmt: skip


def refusals(folder: LeRobotFolder) -> list[str]:
    """Return why this Python would not load it now; what the contract lacks is not told here."""
    found = []
    if folder.type not in LAYOUTS[LEROBOT]:
        found.append(f"no family of this version has the type {folder.type!r}; there are {', '.join(LAYOUTS[LEROBOT])}")
    try:
        metadata.version("lerobot")
    except metadata.PackageNotFoundError:
        found.append("this Python has no lerobot: name a LeRobot environment's Python in model.python")
    return found


def _numbers(shapes: Mapping[str, Any], part: str) -> set[int]:
    return {int(match[1]) for name in shapes if (match := LAYERS[part].search(name))}


def _depth(folder: LeRobotFolder, part: str) -> int:
    return len(_numbers(folder.shapes, part))


def _width(folder: LeRobotFolder, part: str) -> int:
    """Return the width of a part's hidden state: what its layers' first projection takes in."""
    for name, shape in folder.shapes.items():
        if LAYERS[part].search(name) and name.endswith(("self_attn.q_proj.weight", ".attn.qkv.weight")):
            return shape[-1]
    return 0
