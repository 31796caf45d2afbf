"""The families there are, imported when one is loaded."""

import importlib
from pathlib import Path
from typing import Protocol

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.policies.checkpoint import read_checkpoint
from dysl_vla_ros.policies.interface import VlaPolicy

FAMILIES = {"reference": "dysl_vla_ros.policies.reference:ReferencePolicy"}


class _Family(Protocol):
    @classmethod
    def load(cls, checkpoint: Path, device: str) -> VlaPolicy: ...


def load_policy(checkpoint: Path, device: str = "cpu") -> VlaPolicy:
    """Load a base checkpoint, its files checked against their hashes.

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
    return family.load(checkpoint, device)
