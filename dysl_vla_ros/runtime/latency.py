"""A stopwatch on the steady clock, for the parts of a step."""

import time


class Stopwatch:
    """Measures consecutive parts in milliseconds."""

    def __init__(self) -> None:
        """Start now."""
        self._start = self._last = time.perf_counter_ns()

    def lap(self) -> float:
        """Return the milliseconds since the last call, or since the start."""
        now = time.perf_counter_ns()
        passed = (now - self._last) / 1e6
        self._last = now
        return passed

    def total(self) -> float:
        """Return the milliseconds since the start."""
        return (time.perf_counter_ns() - self._start) / 1e6
