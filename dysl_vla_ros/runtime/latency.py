"""A stopwatch on the steady clock, for the parts of a step."""

from dysl_vla_ros.engines.engine import Engine


class Stopwatch:
    """Measures consecutive parts in milliseconds; it waits for what the engine's device has still to do.

    Attributes:
        started: when, s, by the engine's clock.
    """

    def __init__(self, engine: Engine) -> None:
        """Start now."""
        self._engine = engine
        self.started = self._last = engine.now()

    def lap(self) -> float:
        """Return the milliseconds since the last call, or since the start."""
        now = self._engine.now()
        passed = (now - self._last) * 1e3
        self._last = now
        return passed

    def total(self) -> float:
        """Return the milliseconds since the start."""
        return (self._engine.now() - self.started) * 1e3
