"""Libraries that compute are imported here and not before: torch, or ONNX Runtime."""

from pathlib import Path
from typing import TYPE_CHECKING

from dysl_vla_ros.engines import ONNX
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


def require_device(device: str, runtime: str, option: str = "--device") -> None:
    """Refuse a device that is not there.

    Args:
        device: as ``model.device``.
        runtime: what computes, as ``model.runtime``.
        option: that named the device.

    Raises:
        SettingError: says what is there.
    """
    if runtime == ONNX:
        from dysl_vla_ros.engines.onnx.sessions import Device

        Device(device, option)
    else:
        from dysl_vla_ros.engines.torch.devices import device_named

        device_named(device, option)
