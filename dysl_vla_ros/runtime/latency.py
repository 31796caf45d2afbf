"""A stopwatch on the steady clock, for the parts of a step."""

import time

import torch


def now_on(device: torch.device) -> float:
    """Return the time in s, once the device has done what it was asked for."""
    if device.type == "cuda":  # a CPU has done it
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Stopwatch:
    """Measures consecutive parts in milliseconds; it waits for what the device has still to do.

    Attributes:
        started: when, s, by :func:`now_on`.
    """

    def __init__(self, device: torch.device) -> None:
        """Start now."""
        self._device = device
        self.started = self._last = now_on(device)

    def lap(self) -> float:
        """Return the milliseconds since the last call, or since the start."""
        now = now_on(self._device)
        passed = (now - self._last) * 1e3
        self._last = now
        return passed

    def total(self) -> float:
        """Return the milliseconds since the start."""
        return (now_on(self._device) - self.started) * 1e3
