"""What the control loop counts for ``/diagnostics``. Not thread-safe: written and read under the loop's lock."""

from collections import Counter, deque

import numpy as np

from dysl_vla_ros.control.commander import Command
from dysl_vla_ros.nodes.outputs import InferenceRecord

LONGEST_WINDOW = 10000  # inferences; the upper end of diagnostics.window
LATENCY_SAMPLES = 5  # of the latest inferences that the next one is expected to take as long as
LATE_TICK = 1.5  # periods between two ticks that count as an overrun
PARTS = ("convert", "transfer", "vision", "stack", "head", "verify", "total", "image age")


class Statistics:
    """Counters since configure, and the latest inferences."""

    def __init__(self) -> None:
        """Start at zero."""
        self._inferences: deque[tuple[float, ...]] = deque(maxlen=LONGEST_WINDOW)  # one value a part, ms
        self._skipping: deque[tuple[int, int, bool]] = deque(maxlen=LONGEST_WINDOW)  # layer calls, layers, verified
        self.inferences = 0
        self.missed_deadlines = 0
        self.failures = 0
        self.outdated_replies = 0
        self.action_ticks = 0  # control ticks that wanted a new action
        self.commands = 0
        self.zero_commands = 0
        self.stops = 0
        self.late_ticks = 0
        self.limits: Counter[str] = Counter()
        self.last_failure = ""
        self.last_stop = ""
        self._unreported_failure = ""
        self._unreported_stop = ""
        self._last_tick = 0.0

    def inferred(self, record: InferenceRecord) -> None:
        """Count one inference."""
        timings, trace = record.result.timings, record.result.trace
        self.inferences += 1
        self.missed_deadlines += record.missed_deadline
        self._inferences.append(
            (
                record.convert_ms,
                record.transfer_ms,
                timings.vision,
                timings.stack,
                timings.head,
                timings.verify,
                record.total_ms,
                record.image_age_ms,
            )
        )
        self._skipping.append((trace.layer_calls, trace.layers_total, trace.verified))

    def failed(self, text: str) -> None:
        """Count a failed inference or a fault in a callback."""
        self.failures += 1
        self.last_failure = self._unreported_failure = text

    def take_failure(self) -> str:
        """Return the newest failure since the last call, so that one that passed between two reports is seen."""
        text, self._unreported_failure = self._unreported_failure, ""
        return text

    def ticked(self, steady_now: float, period: float) -> None:
        """Count a control tick, and whether it came late."""
        if self._last_tick and steady_now - self._last_tick > LATE_TICK * period:
            self.late_ticks += 1
        self._last_tick = steady_now

    def entered(self) -> None:
        """Note an activation: the time since the last tick before it is no overrun."""
        self._last_tick = 0.0

    def commanded(self, command: Command) -> None:
        """Count a published command."""
        self.commands += 1
        self.zero_commands += bool(command.reason)
        self.limits.update(command.limits)

    def stopped(self, reason: str) -> None:
        """Count a stop."""
        self.stops += 1
        self.last_stop = self._unreported_stop = reason

    def take_stop(self) -> str:
        """Return the newest stop since the last call."""
        reason, self._unreported_stop = self._unreported_stop, ""
        return reason

    def typical_latency(self) -> float:
        """Return the median time of the latest inferences in seconds, 0.0 before the first."""
        latest = [self._inferences[-1 - back][PARTS.index("total")] for back in range(self._count(LATENCY_SAMPLES))]
        return float(np.median(latest)) * 1e-3 if latest else 0.0

    def _count(self, window: int) -> int:
        return min(window, len(self._inferences))

    def timings(self, window: int) -> dict[str, tuple[float, float, float]]:
        """Return p50, p95 and max in milliseconds of each part over the last ``window`` inferences."""
        count = self._count(window)
        if not count:
            return {}
        table = np.array([self._inferences[-1 - back] for back in range(count)])  # (count, parts)
        p50, p95 = np.percentile(table, [50, 95], axis=0)
        return {part: (p50[i], p95[i], table[:, i].max()) for i, part in enumerate(PARTS)}

    def skipping(self, window: int) -> tuple[float, float] | None:
        """Return the share of layers skipped and the share verified over the last ``window`` inferences."""
        count = self._count(window)
        if not count:
            return None
        calls, layers, verified = np.array([self._skipping[-1 - back] for back in range(count)]).sum(axis=0)
        return 1.0 - calls / layers, verified / count
