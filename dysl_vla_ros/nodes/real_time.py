"""Steps in real time: when the next one is due, and what happens when the machine is too slow."""


class Pacer:
    """Says when steps of equal length are due on a steady clock.

    A short delay is caught up, so that steps keep their average rate. What is behind by more than ``max_lag`` is given
    up and counted: simulated time then falls behind real time, but steps never come in a burst.
    """

    def __init__(self, period: float, max_lag: float, now: float) -> None:
        """Let the first step be due at ``now``; all times in seconds of one steady clock."""
        self._period, self._max_lag = period, max_lag
        self._due = now
        self._started = now
        self.lost = 0.0  # s that simulated time fell behind since the last restart of the count

    def wait_time(self, now: float) -> float:
        """Return the seconds until the next step is due; 0 where it is due already."""
        return max(0.0, self._due - now)

    def step(self, now: float) -> None:
        """Note that a due step begins now."""
        behind = now - self._due
        if behind > self._max_lag:
            self.lost += behind - self._max_lag
            self._due = now - self._max_lag
        self._due += self._period

    def restart(self, now: float) -> None:
        """Let the next step be due now and lose nothing: for pauses that were meant."""
        self._due = now

    def share_lost(self, now: float) -> float:
        """Return which share of real time was lost since the last call, 0 to 1, and count anew."""
        elapsed = now - self._started
        share = self.lost / elapsed if elapsed > 0.0 else 0.0
        self._started, self.lost = now, 0.0
        return min(share, 1.0)
