"""A policy from its folder, on torch, which is imported here and not before."""

from pathlib import Path
from typing import TYPE_CHECKING

from dysl_vla_ros.policy_options import AS_THE_FILES_SAY, PolicyOptions

if TYPE_CHECKING:
    from dysl_vla_ros.policies.interface import VlaPolicy


def torch_policy(
    checkpoint: Path, device: str = "cpu", threads: int = 1, dtype: str = "", options: PolicyOptions = AS_THE_FILES_SAY
) -> "VlaPolicy":
    """Load a base checkpoint; arguments and errors as of :meth:`~dysl_vla_ros.runtime.step.Runtime.load`."""
    from dysl_vla_ros.engines.torch.devices import device_named, dtype_named, use_threads
    from dysl_vla_ros.policies.registry import load_policy

    use_threads(threads)
    return load_policy(checkpoint, device_named(device), dtype_named(dtype), options)
