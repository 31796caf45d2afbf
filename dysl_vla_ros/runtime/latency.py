"""A stopwatch on the steady clock, for the parts of a step."""

import time

import torch


class Stopwatch:
    """Measures consecutive parts in milliseconds; it waits for what the device has still to do."""

    def __init__(self, device: torch.device) -> None:
        """Start now."""
        self._device = device
        self._wait()
        self._start = self._last = time.perf_counter_ns()

    def lap(self) -> float:
        """Return the milliseconds since the last call, or since the start."""
        self._wait()
        now = time.perf_counter_ns()
        passed = (now - self._last) / 1e6
        self._last = now
        return passed

    def total(self) -> float:
        """Return the milliseconds since the start."""
        self._wait()
        return (time.perf_counter_ns() - self._start) / 1e6

    def _wait(self) -> None:
        if self._device.type == "cuda":  # a CPU has done what was asked of it
            torch.cuda.synchronize(self._device)
