"""torch as an :class:`~dysl_vla_ros.engines.engine.Engine`."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from dysl_vla_ros.engines import TORCH
from dysl_vla_ros.interfaces import FloatArray


@dataclass(frozen=True)
class TorchEngine:
    """torch on one device."""

    device: torch.device
    name: str = TORCH

    def computing(self) -> AbstractContextManager[None]:
        """Return inference mode."""
        return torch.inference_mode()

    def now(self) -> float:
        """Return the time in s, once the device has done what it was asked for."""
        if self.device.type == "cuda":  # a CPU has done it
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def numpy(self, values: torch.Tensor) -> FloatArray:
        """Return values off the device, float32."""
        array: FloatArray = values.float().cpu().numpy()
        return array
