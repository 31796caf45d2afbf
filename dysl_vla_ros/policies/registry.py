"""The families there are, imported when one is loaded."""

import importlib
from pathlib import Path
from typing import Protocol

import torch

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.json_files import read_object
from dysl_vla_ros.policies.checkpoint import MEND, read_checkpoint
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.policies.layouts import CONFIG, LAYOUTS, OURS, layout_of
from dysl_vla_ros.policy_options import AS_THE_FILES_SAY, PolicyOptions

CPU = torch.device("cpu")
FAMILIES = LAYOUTS[OURS]


class _Family(Protocol):
    @classmethod
    def load(
        cls, checkpoint: Path, device: torch.device, dtype: torch.dtype | None, options: PolicyOptions
    ) -> VlaPolicy: ...


def load_policy(
    checkpoint: Path,
    device: torch.device = CPU,
    dtype: torch.dtype | None = None,
    options: PolicyOptions = AS_THE_FILES_SAY,
) -> VlaPolicy:
    """Load a base checkpoint of any layout, its files checked.

    Args:
        checkpoint: its folder.
        device: where it computes.
        dtype: of its hidden states; None: the checkpoint's own.
        options: what its files do not say.

    Raises:
        CheckpointError: missing, damaged, of an unknown family or of a newer format.
        ContractError: the options leave out what the files do not say, or contradict them.
    """
    layout = layout_of(checkpoint)
    config = read_checkpoint(checkpoint) if layout == OURS else read_object(checkpoint / CONFIG, MEND)
    name = config.get(layout)
    known = LAYOUTS[layout]
    if not isinstance(name, str) or name not in known:
        raise CheckpointError(
            f"{checkpoint / CONFIG}: unknown {layout} {name!r:.80}; this version knows {', '.join(known)}"
        )
    if layout == OURS:
        options.require_own_units(str(checkpoint))
    module, _, attribute = known[name].partition(":")
    family: type[_Family] = getattr(importlib.import_module(module), attribute)
    policy = family.load(checkpoint, device, dtype, options)
    options.require_weights(policy.weights_hash, str(checkpoint))
    return policy
