"""When a stop is worth a line in the log: once a cause, and again when the arm moves on. Knows no ROS."""

import re

PERIOD = 10.0  # s in which a stop of one cause is logged once, however often it begins
_FIGURES = re.compile(r"\d+(\.\d+)?")  # ages and counts change with every message, the cause does not


class StopLog:
    """To be told of every tick's reason to stop, "" where the arm moves."""

    def __init__(self, period: float = PERIOD) -> None:
        """Start with nothing logged."""
        self._period = period
        self._logged: dict[str, float] = {}  # cause -> s, steady clock
        self._began = 0.0  # s, steady clock, of the present stop
        self._cause = ""  # of the present stop
        self._said = ""  # the reason that was logged of the present stop
        self._unsaid = 0  # stops since the last line that were not logged

    def tick(self, reason: str, now: float, *, waits: bool = False) -> str:
        """Return what is to be logged now, or "".

        Args:
            reason: why the arm stands still; "": it moves.
            now: s, steady clock.
            waits: the chunk ran dry. By itself that is no stop (`/diagnostics` counts it), and it ends none either.
        """
        if waits:
            return ""
        if not reason:
            text = f"moving again after {now - self._began:.1f} s: {self._said}" if self._said else ""
            self._cause = self._said = ""
            return text
        cause = _FIGURES.sub("#", reason)
        if cause == self._cause:
            return ""
        if not self._cause:
            self._began = now
        self._cause = cause
        if now - self._logged.get(cause, -self._period) < self._period:
            self._unsaid += 1
            return ""
        self._logged = {cause: now} | {own: at for own, at in self._logged.items() if now - at < self._period}
        more = f" ({self._unsaid} stops of causes logged before were not repeated)" if self._unsaid else ""
        self._said, self._unsaid = reason, 0
        return f"stopped: {reason}{more}"
