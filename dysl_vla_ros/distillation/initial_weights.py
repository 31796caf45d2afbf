"""What a distillation begins with: new modules for chosen static layers, or those that an earlier one has left."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dysl_vla_ros.distillation.chosen_layers import read_choice
from dysl_vla_ros.distillation.settings import ModuleSettings
from dysl_vla_ros.errors import CheckpointError, DataError
from dysl_vla_ros.files import sha256
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.runtime.folder import WEIGHTS, load_dysl
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition


@dataclass(frozen=True)
class InitialWeights:
    """Modules to train, and what they are.

    Attributes:
        gone_on_from: of the folder that an earlier training has left: ``sha256`` of its weights, ``base_sha256`` of the
            base that it was made for, ``steps`` and ``seconds`` of that training; None: the modules are new.
    """

    partition: LayerPartition
    modules: DyslModules
    sizes: Mapping[str, int]  # that the modules were made with
    choice: str  # how the static layers were chosen
    gone_on_from: Mapping[str, Any] | None = None


def new_modules(partition: LayerPartition, policy: VlaPolicy, sizes: Mapping[str, int], choice: str) -> InitialWeights:
    """Begin with modules that have learned nothing."""
    return InitialWeights(partition, DyslModules(partition, policy.streams, **sizes), sizes, choice)


def chosen_modules(folder: Path, policy: VlaPolicy, settings: ModuleSettings) -> InitialWeights:
    """Begin with new modules for the static layers that were chosen in a DySL folder.

    Raises:
        CheckpointError: none were chosen, or for another base.
        DataError: all layers are static.
    """
    choice = read_choice(folder, policy.weights_hash)
    partition = LayerPartition(len(policy.layers), choice.static, settings.adapters_per_block)
    if not partition.blocks:
        raise DataError(
            f"{folder}: all layers were chosen as static, so there is nothing to skip; calibrate with fewer"
        )
    return new_modules(partition, policy, settings.sizes(policy.streams[0].width), choice.choice)


def trained_modules(folder: Path, policy: VlaPolicy) -> InitialWeights:
    """Begin with what a DySL folder holds; its calibration is forgotten.

    It may have been made for another base: one that was itself trained further is best followed from where its
    adapters stood.

    Raises:
        CheckpointError: it cannot be loaded, its base had another shape, or it does not say how long it was trained.
    """
    found = load_dysl(folder, None, len(policy.layers), policy.streams, calibrated=False)
    training = found.config.get("training")
    if not isinstance(training, dict) or not {"steps", "seconds"} <= training.keys():
        raise CheckpointError(f"{folder / 'config.json'}: does not say how long its adapters were trained")
    for controller in found.modules.controllers.values():
        controller.offset.zero_()  # type: ignore[operator]  # a buffer: what calibration has added to the logit
    return InitialWeights(
        found.partition,
        found.modules.train().requires_grad_(True),
        found.module_sizes,
        found.config["partition"]["choice"],
        {
            "sha256": sha256(folder / WEIGHTS),
            "base_sha256": found.config["base"].get("sha256"),
            "steps": training["steps"],
            "seconds": training["seconds"],
        },
    )
