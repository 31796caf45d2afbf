"""Levels of ``/diagnostics`` that do not flicker: they rise at once and fall late (hysteresis)."""

from dataclasses import dataclass

FALL_AFTER = 3  # messages in a row that must be better before a status gets better


@dataclass
class _Held:
    level: bytes
    message: str
    better: int = 0  # messages in a row since then that would have been lower


class SteadyLevels:
    """The level of each status: the worst of the last :data:`FALL_AFTER` messages."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}

    def steady(self, name: str, level: bytes, message: str) -> tuple[bytes, str]:
        """Return level and message to publish for a status; a level that is kept up says what it was kept for."""
        held = self._held.get(name)
        if held is None or level >= held.level:
            self._held[name] = _Held(level, message)
            return level, message
        held.better += 1
        if held.better >= FALL_AFTER:
            self._held[name] = _Held(level, message)
            return level, message
        return held.level, f"{message} (just before: {held.message})"


class Threshold:
    """Says when a value is too high: from ``rise`` on, until it is below ``fall`` again."""

    def __init__(self, rise: float, fall: float) -> None:
        assert fall <= rise
        self._rise, self._fall = rise, fall
        self._exceeded = False

    def exceeded(self, value: float) -> bool:
        """Take in the present value and say whether it counts as too high."""
        self._exceeded = value >= (self._fall if self._exceeded else self._rise)
        return self._exceeded
