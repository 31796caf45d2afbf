"""What a checkpoint is: weights by part and type, inputs and actions, its DySL folder, its time on this machine.

Everything is plain values, so that the command can print it as a table or as JSON.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dysl_vla_ros.interfaces import END_EFFECTOR_DELTA, JOINT_VELOCITY, ActionSpec, Observation, Timings
from dysl_vla_ros.policies.checkpoint import read_config
from dysl_vla_ros.policies.layouts import OPENVLA, layout_of
from dysl_vla_ros.policies.openvla.files import read_folder
from dysl_vla_ros.policy_options import AS_THE_FILES_SAY, PolicyOptions
from dysl_vla_ros.robot_contract import draft
from dysl_vla_ros.runtime.folder import CALIBRATION, WEIGHTS
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import FULL_DEPTH, GuidanceSettings, RuntimeSettings
from dysl_vla_ros.skipping.depth_rules import StaticOnly

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}  # a weight
PARTS = ("vision", "stack", "head", "total")  # of a step, in milliseconds
PICTURE = (480, 640, 3)  # what a common camera gives; its shrinking is part of the time


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a step at one depth: median and 95th percentile of each part."""

    layers: int  # that ran
    p50: Mapping[str, float]
    p95: Mapping[str, float]

    @property
    def per_layer(self) -> float:
        """Milliseconds of the stack a layer that ran (adapters counted in)."""
        return self.p50["stack"] / self.layers


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is, and how long a step takes on this machine."""

    facts: Mapping[str, Any]  # plain values
    latency: Mapping[str, Latency]  # by depth: at full depth, at the floor; empty: not measured
    threads: int  # compute threads that it was measured with

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        depths = {
            name: {"layers": it.layers, "ms_per_layer": it.per_layer, "p50_ms": dict(it.p50), "p95_ms": dict(it.p95)}
            for name, it in self.latency.items()
        }
        return {**self.facts, "latency": {"threads": self.threads, "depths": depths}}


def inspect(
    checkpoint: str | Path,
    adapters: str = "",
    *,
    threads: int = 1,
    steps: int = 20,
    options: PolicyOptions = AS_THE_FILES_SAY,
) -> Inspection:
    """Load a checkpoint, every hash checked, say what it is and measure its steps.

    Args:
        checkpoint: folder of the base checkpoint.
        adapters: DySL folder; "": the checkpoint's own ``dysl`` folder, if it has one.
        threads: compute threads.
        steps: that are timed at each depth; 0: none.
        options: what the checkpoint's files do not say.

    Raises:
        CheckpointError: either is missing, damaged, they do not belong together, or no finite action can be computed.
    """
    runtime = Runtime.load(str(checkpoint), adapters, threads=threads, options=options)
    folder = Path(adapters) if adapters else Path(checkpoint) / "dysl"
    found = facts(runtime, Path(checkpoint), folder if runtime.dysl else None)
    return Inspection(found, measure(runtime, steps) if steps else {}, torch.get_num_threads())


def facts(runtime: Runtime, checkpoint: Path, adapters: Path | None) -> dict[str, Any]:
    """Return everything but the time, as plain values.

    Args:
        runtime: what was loaded.
        checkpoint: folder of the base.
        adapters: the DySL folder that was loaded, None where none was.
    """
    described, policy = runtime.description, runtime.policy
    parts = {name: sum(weight.numel() for weight in weights) for name, weights in policy.parts().items()}
    parameters = sum(parts.values())
    spec, proprioception = described.action, described.proprioception
    result: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "family": described.family,
        "model_hash": described.model_hash,
        "weights_hash": described.weights_hash,
        "parameters": parameters,
        "parts": parts,
        "memory_bytes": {name: size * parameters for name, size in BYTES.items()},
        "disk_bytes": _disk_bytes(checkpoint),
        "layers": {
            "total": described.layers_total,
            "width": policy.streams[0].width,
            "static": list(described.static_layers),
            "blocks": [list(block) for block in described.blocks],
        },
        "inputs": {
            "cameras": list(described.cameras),
            "proprioception": [
                {"name": name, "unit": unit}
                for name, unit in zip(proprioception.names, proprioception.units, strict=True)
            ],
            "frame": proprioception.frame,
            "instructions": list(described.instructions),
        },
        "action": {
            "horizon": spec.horizon,
            "time_step": spec.time_step,
            "frame": spec.frame,
            "kind": spec.kind,
            "values": [
                {"name": name, "unit": unit, "center": center, "scale": scale}
                for (name, unit), center, scale in zip(_action_values(spec), spec.center, spec.scale, strict=True)
            ],
        },
        "contract": draft(described) if spec.kind != END_EFFECTOR_DELTA else "",
        "training": {} if layout_of(checkpoint) == OPENVLA else dict(read_config(checkpoint).get("training", {})),
        "dysl": None,
    }
    if runtime.dysl is not None and adapters is not None:
        result["dysl"] = _dysl_facts(runtime, adapters)
    return result


def _action_values(spec: ActionSpec) -> list[tuple[str, str]]:
    if spec.kind != END_EFFECTOR_DELTA:
        each = "/s" if spec.kind == JOINT_VELOCITY else ""
        return [(name, unit + each * (name != spec.gripper)) for name, unit in zip(spec.names, spec.units, strict=True)]
    translation = [(name, "m") for name in ("x", "y", "z")]
    rotation = [(f"rotation {name}", "rad") for name in ("x", "y", "z")] if spec.has_rotation else []
    return [*translation, *rotation, ("gripper opening", "1")]


def _disk_bytes(folder: Path) -> int:
    if layout_of(folder) == OPENVLA:
        return sum(path.stat().st_size for path in read_folder(folder).weights)
    return sum((folder / name).stat().st_size for name in read_config(folder).get("files", {}))


def _dysl_facts(runtime: Runtime, folder: Path) -> dict[str, Any]:
    assert runtime.dysl is not None
    dysl = runtime.dysl
    sizes = {
        name: sum(weight.numel() for weight in module.parameters())
        for name, module in dysl.modules.named_children()
        if any(True for _ in module.parameters())
    }
    calibration = json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))  # checked when it was loaded
    wanted = ("layers", "error", "worst_error", "verified_share", "guidance")
    return {
        "folder": str(folder),
        "choice": dysl.config.get("partition", {}).get("choice", ""),
        "per_block": dysl.partition.per_block,
        "modules": dict(dysl.config.get("modules", {})),
        "package_version": dysl.config.get("package_version", ""),
        "parameters": sum(sizes.values()),
        "parts": sizes,
        "memory_bytes": {name: size * sum(sizes.values()) for name, size in BYTES.items()},
        "disk_bytes": (folder / WEIGHTS).stat().st_size,
        "calibrated": dict(dysl.calibrated),
        "front": [{name: point[name] for name in wanted if name in point} for point in calibration.get("front", [])],
    }


def measure(runtime: Runtime, steps: int) -> dict[str, Latency]:
    """Step a grey 640x480 picture, warm: at full depth and, where there is a DySL folder, at the floor.

    The floor is the least that skipping can come to: static layers and the first adapter of each block.

    Args:
        runtime: its rule is replaced for the while; its episode is begun anew.
        steps: of each depth, at least 1.

    Raises:
        CheckpointError: the policy cannot compute a finite action.
    """
    assert steps > 0
    policy = runtime.policy
    runtime.warm_up()
    images = {camera: np.full(PICTURE, 128, dtype=np.uint8) for camera in policy.cameras}
    observation = dataclasses.replace(policy.sample(), images=images)
    played = np.zeros((0, policy.action.dimensions), dtype=np.float32)
    depths = {"full depth": (FULL_DEPTH, None)}
    if (dysl := runtime.dysl) is not None:
        floor = RuntimeSettings(guidance=GuidanceSettings(warmup=0, verify=False))
        depths["floor"] = (floor, lambda points: StaticOnly(dysl.partition, dysl.modules))  # type: ignore[assignment]
    bar = tqdm(total=steps * len(depths), desc="measuring", unit="step", leave=False, disable=None)
    try:
        with bar:
            return {name: _latency(runtime, observation, played, steps, *depth, bar) for name, depth in depths.items()}
    finally:
        runtime.rule_override = None
        runtime.reset()


def _latency(
    runtime: Runtime,
    observation: Observation,
    played: Any,
    steps: int,
    settings: RuntimeSettings,
    rule: Callable[..., Any] | None,
    bar: Any,
) -> Latency:
    runtime.rule_override = rule
    runtime.reset()
    runtime.step(observation, played, settings)  # the first of its kind is no measure
    timings: list[Timings] = []
    for _ in range(steps):
        result = runtime.step(observation, played, settings)
        timings.append(result.timings)
        bar.update()
    table = {part: np.array([getattr(timing, part) for timing in timings]) for part in PARTS}
    return Latency(
        result.trace.layer_calls,
        {part: float(np.median(values)) for part, values in table.items()},
        {part: float(np.percentile(values, 95)) for part, values in table.items()},
    )
