"""What the control loop counts for ``/diagnostics``. Not thread-safe: written and read under the loop's lock."""

import math
from collections import Counter, deque

import numpy as np

from dysl_vla_ros.control.commander import AnyCommand
from dysl_vla_ros.nodes.levels import Threshold
from dysl_vla_ros.nodes.outputs import InferenceRecord

LONGEST_WINDOW = 10000  # inferences; the upper end of diagnostics.window
LATENCY_SAMPLES = 5  # of the latest inferences that the next one is expected to take as long as
LATENCY_WINDOW = 40  # latest inferences whose slowest ones the next one may be like
FEWEST_LATENCIES = 3  # of which the median is still itself where one of them is an outlier
LATE_TICK = 1.5  # periods between two ticks that count as an overrun
FEWEST = 20  # samples that a share is judged by
TICKS = 200  # latest control ticks that the share of late ones is taken of
WALLS = "safety.workspace_"  # how the names of the workspace box's walls begin
PARTS = ("convert", "transfer", "vision", "stack", "head", "verify", "total", "image age")
COMPUTED = ("vision", "stack", "head", "verify")  # what control.budget_ms is a limit of


class Statistics:
    """Counters since configure, and the latest inferences."""

    def __init__(self) -> None:
        """Start at zero."""
        self._inferences: deque[tuple[float, ...]] = deque(maxlen=LONGEST_WINDOW)  # one value a part, ms
        self._latencies: deque[float] = deque(maxlen=LATENCY_WINDOW)  # ms
        self._seams: deque[float] = deque(maxlen=LONGEST_WINDOW)  # one an inference, NaN: none
        # layer calls, layers, verified, cut by the budget
        self._skipping: deque[tuple[int, int, bool, bool]] = deque(maxlen=LONGEST_WINDOW)
        self._to_play: deque[int] = deque(maxlen=LONGEST_WINDOW)  # actions of each chunk before the next inference
        self._missed: deque[bool] = deque(maxlen=LONGEST_WINDOW)
        self._late: deque[bool] = deque(maxlen=TICKS)
        self.often_missed = Threshold(rise=0.5, fall=0.25)
        self.often_late = Threshold(rise=0.1, fall=0.05)
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
        self._unreported_walls: set[str] = set()
        self._last_tick = 0.0

    def inferred(self, record: InferenceRecord) -> None:
        """Count one inference."""
        timings, trace = record.result.timings, record.result.trace
        self.inferences += 1
        self.missed_deadlines += record.missed_deadline
        self._missed.append(record.missed_deadline)
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
        if record.inference > 1:  # the first of an episode may be a cold start: caches, clocks, a lazy camera
            self._latencies.append(record.total_ms)
        self._seams.append(record.seam)
        self._skipping.append((trace.layer_calls, trace.layers_total, trace.verified, trace.budget_cut))
        self._to_play.append(record.result.chunk.actions_to_play)

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
        late = bool(self._last_tick) and steady_now - self._last_tick > LATE_TICK * period
        self.late_ticks += late
        self._late.append(late)
        self._last_tick = steady_now

    def entered(self) -> None:
        """Note an activation: the time since the last tick before it is no overrun."""
        self._last_tick = 0.0

    def commanded(self, command: AnyCommand) -> None:
        """Count a published command."""
        self.commands += 1
        self.zero_commands += command.still
        self.limits.update(command.limits)
        self._unreported_walls |= {name for name in command.limits if name.startswith(WALLS)}

    def stopped(self, reason: str) -> None:
        """Count a stop."""
        self.stops += 1
        self.last_stop = self._unreported_stop = reason

    def take_stop(self) -> str:
        """Return the newest stop since the last call."""
        reason, self._unreported_stop = self._unreported_stop, ""
        return reason

    def take_walls(self) -> list[str]:
        """Return the walls of the workspace box that have acted since the last call."""
        walls, self._unreported_walls = sorted(self._unreported_walls), set()
        return walls

    def missed_share(self, window: int) -> float:
        """Return the share of the last ``window`` inferences whose reply came after the tick that waited for it.

        0 while there are fewer than :data:`FEWEST`; over a shorter window it is taken over so many.
        """
        return _share(self._missed, max(window, FEWEST))

    def late_share(self) -> float:
        """Return the share of the latest control ticks that came late, 0 while there are fewer than :data:`FEWEST`."""
        return _share(self._late, TICKS)

    def typical_latency(self) -> float:
        """Return the median time of the latest inferences in seconds, 0.0 while there are too few to tell.

        The first inference of an episode does not count, and one that took ten times as long moves the median to a
        neighbour: neither a cold start nor an outlier is taken for what is usual.
        """
        if len(self._latencies) < FEWEST_LATENCIES:
            return 0.0
        latest = list(self._latencies)[-LATENCY_SAMPLES:]
        return float(np.median(latest)) * 1e-3

    def long_latency(self) -> float:
        """Return the 95th percentile of the time of the latest inferences in seconds, 0.0 while there are too few.

        Of those as :meth:`typical_latency` counts them. It is a time that was met, the lower of two: one outlier among
        up to :data:`FEWEST` inferences is not taken for it.
        """
        if len(self._latencies) < FEWEST_LATENCIES:
            return 0.0
        return float(np.percentile(self._latencies, 95, method="lower")) * 1e-3

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

    def long_step_ms(self, window: int) -> float:
        """Return the 95th percentile of what the worker computed on an inference, 0.0 while there are too few."""
        count = self._count(window)
        if count < FEWEST:
            return 0.0
        columns = [PARTS.index(part) for part in COMPUTED]
        table = np.array([self._inferences[-1 - back] for back in range(count)])
        return float(np.percentile(table[:, columns].sum(axis=1), 95))

    def seams(self, window: int) -> tuple[float, float] | None:
        """Return p95 and the largest seam between chunks over the last ``window`` inferences; None: there was none.

        In normalised action units, before ``control.max_linear_seam`` and ``max_angular_seam`` bound them.
        """
        latest = [self._seams[-1 - back] for back in range(self._count(window))]
        met = [seam for seam in latest if not math.isnan(seam)]
        return (float(np.percentile(met, 95)), max(met)) if met else None

    def actions_to_play(self, window: int) -> float | None:
        """Return how many actions of the last ``window`` chunks were to be played, on average; None: none came."""
        count = self._count(window)
        return sum(self._to_play[-1 - back] for back in range(count)) / count if count else None

    def skipping(self, window: int) -> tuple[float, float, float] | None:
        """Return the shares of layers skipped, of verified and of cut inferences over the last ``window`` of them."""
        count = self._count(window)
        if not count:
            return None
        calls, layers, verified, cut = np.array([self._skipping[-1 - back] for back in range(count)]).sum(axis=0)
        return 1.0 - calls / layers, verified / count, cut / count


def _share(flags: deque[bool], window: int) -> float:
    count = min(window, len(flags))
    return sum(flags[-1 - back] for back in range(count)) / count if count >= FEWEST else 0.0
