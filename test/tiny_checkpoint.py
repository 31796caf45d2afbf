"""A small reference policy with random weights: the real architecture and the real files, quick to load."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from dysl_vla_ros.interfaces import ActionSpec, ProprioceptionSpec
from dysl_vla_ros.policies.checkpoint import read_config
from dysl_vla_ros.policies.reference import ReferenceConfig, ReferenceNetwork, save_reference
from dysl_vla_ros.runtime.folder import save_dysl
from dysl_vla_ros.skipping.importance import spread_static, static_count
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.streams import Stream

INSTRUCTION = "push the puck"


def tiny_config(
    layers: int = 6,
    rotation: bool = False,
    joints: Mapping[str, str] | None = None,
    action: ActionSpec | None = None,
) -> ReferenceConfig:
    """Return the configuration of the tiny policy.

    ``rotation``: its actions turn the hand as well; ``joints``, name to unit, are declared beside pose and gripper;
    ``action``: its actions, in place of end-effector deltas.
    """
    joints = joints or {}
    center, scale = (0.0, 0.0, 0.0, 0.25), (0.0125, 0.0125, 0.0125, 0.25)
    if rotation:
        center = (0.0,) * 6 + (0.25,)
        scale = (0.0125,) * 3 + (0.05,) * 3 + (0.25,)
    return ReferenceConfig(
        vocabulary=("push", "the", "puck", "open", "drawer"),
        action=action or ActionSpec(8, 0.05, rotation, center, scale),
        proprioception=ProprioceptionSpec(
            ("ee.x", "ee.y", "ee.z", "gripper.opening", *joints), ("m", "m", "m", "1", *joints.values()), "base"
        ),
        proprioception_mean=(0.0, 0.6, 0.2, 0.5) + (0.0,) * len(joints),
        proprioception_std=(0.1, 0.1, 0.1, 0.3) + (0.5,) * len(joints),
        instructions=(INSTRUCTION, "open the drawer"),
        layers=layers,
        width=32,
        heads=2,
        feed_forward=64,
    )


def make_tiny_checkpoint(
    folder: Path,
    layers: int = 6,
    seed: int = 0,
    rotation: bool = False,
    joints: Mapping[str, str] | None = None,
    action: ActionSpec | None = None,
) -> Path:
    """Write a tiny checkpoint into ``folder`` and return it; the rest: see :func:`tiny_config`."""
    torch.manual_seed(seed)
    network = ReferenceNetwork(tiny_config(layers, rotation, joints, action))
    save_reference(network, folder, {"data": "none: random weights"})
    return folder


def make_tiny_dysl(folder: Path, checkpoint: Path, seed: int = 0, offset: float = 1.0) -> Path:
    """Write a DySL folder with random weights for a tiny checkpoint and return it; see :func:`make_dysl`."""
    base = read_config(checkpoint)
    model, weights = base["model"], base["files"]["model.safetensors"]
    return make_dysl(folder, base["family"], weights, model["layers"], (Stream("stack", model["width"]),), seed, offset)


def make_dysl(
    folder: Path,
    family: str,
    base_sha256: str,
    layers: int,
    streams: Sequence[Stream],
    seed: int = 0,
    offset: float = 1.0,
) -> Path:
    """Write a DySL folder with random weights for a policy of any family and return it.

    ``offset`` is added to every controller's logit: 9.0 skips wherever guidance allows it, -9.0 nowhere.
    """
    partition = LayerPartition(layers, spread_static(layers, static_count(layers, 0.5)))
    sizes = {"bottleneck": 8, "queries": 2, "controller_width": 4}
    modules = DyslModules(partition, streams, **sizes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in modules.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        for layer in partition.dynamic:
            modules.controller(layer).offset.fill_(offset)
    guidance = {
        "step": 0.1, "verify_threshold": 0.05, "dead_band": 0.0, "stride": "integral", "verify_on": "any",
        "warmup": 2,
    }  # fmt: skip
    save_dysl(
        folder,
        partition,
        modules,
        family=family,
        base_sha256=base_sha256,
        choice="spread",
        module_sizes=sizes,
        calibration={"guidance": guidance, "actions_per_inference": 1},
    )
    return folder
