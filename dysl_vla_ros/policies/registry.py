"""The families there are, imported when one is loaded."""

import importlib
from pathlib import Path
from typing import Protocol

import torch

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.policies.checkpoint import read_checkpoint
from dysl_vla_ros.policies.interface import VlaPolicy

CPU = torch.device("cpu")
FAMILIES = {"reference": "dysl_vla_ros.policies.reference:ReferencePolicy"}


class _Family(Protocol):
    @classmethod
    def load(cls, checkpoint: Path, device: torch.device, dtype: torch.dtype | None) -> VlaPolicy: ...


def load_policy(checkpoint: Path, device: torch.device = CPU, dtype: torch.dtype | None = None) -> VlaPolicy:
    """Load a base checkpoint, its files checked against their hashes.

    Args:
        checkpoint: its folder.
        device: where it computes.
        dtype: of its hidden states; None: the checkpoint's own.

    Raises:
        CheckpointError: missing, damaged, of an unknown family or of a newer format.
    """
    config = read_checkpoint(checkpoint)
    name = config.get("family")
    if not isinstance(name, str) or name not in FAMILIES:
        raise CheckpointError(
            f"{checkpoint / 'config.json'}: unknown family {name!r}; this version knows {', '.join(FAMILIES)}"
        )
    module, _, attribute = FAMILIES[name].partition(":")
    family: type[_Family] = getattr(importlib.import_module(module), attribute)
    return family.load(checkpoint, device, dtype)
