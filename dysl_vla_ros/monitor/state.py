"""What is known of a node from its topics: messages in, figures out. No ROS; messages are read by their fields.

Times are seconds on a steady clock that the caller names, so that a recording can be read as well as a robot.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

WINDOW = 3.0  # s that rates, percentiles and means are taken over
KEPT = 60  # inferences of the sparkline
SILENCE = 3.0  # s without any message after which the node counts as gone: it reports once a second in every state
REPORT_PERIODS = 2.5  # ... but diagnostics.period may be longer
PARTS = ("convert", "transfer", "vision", "stack", "head", "verify", "total")
LEVELS = ("OK", "WARN", "ERROR", "STALE")  # of diagnostic_msgs/DiagnosticStatus


class Rate:
    """Messages a second over the last :data:`WINDOW` seconds."""

    def __init__(self) -> None:
        """Begin with no message."""
        self._arrivals: deque[float] = deque()

    def count(self, now: float) -> None:
        """Take in one message."""
        self._arrivals.append(now)
        self._forget(now)

    def value(self, now: float) -> float:
        """Return the rate in Hz; 0.0 before the second message and when the window holds none."""
        self._forget(now)
        if len(self._arrivals) < 2:
            return 0.0
        span = self._arrivals[-1] - self._arrivals[0]
        return (len(self._arrivals) - 1) / span if span > 0.0 else 0.0

    def _forget(self, now: float) -> None:
        while self._arrivals and now - self._arrivals[0] > WINDOW:
            self._arrivals.popleft()


@dataclass(frozen=True)
class Status:
    """One status of the node's last diagnostics."""

    name: str
    level: int  # index into LEVELS
    message: str


class _Sample(NamedTuple):
    arrival: float
    report: Any


@dataclass(frozen=True)
class Surroundings:
    """What the graph and the environment say, for the time in which nothing is heard."""

    domain: str
    discovery: str  # ROS_AUTOMATIC_DISCOVERY_RANGE
    rmw: str
    others: tuple[str, ...] = ()  # other nodes of this kind
    on_graph: bool = False  # the node is listed; a dead one stays for 20 s


@dataclass
class MonitorState:
    """Everything that the view draws; ``hear_*`` take messages, the rest answers."""

    node: str
    surroundings: Surroundings = field(default_factory=lambda: Surroundings("0", "SUBNET", ""))
    lifecycle: str = ""  # as the node last said
    report: Any = None  # the newest SkipReport
    statuses: tuple[Status, ...] = ()
    episode: int = 0
    stop_now: str = ""  # reason of the newest action, "" while playing
    last_stop: str = ""
    last_stop_at: float = math.nan
    gaps: int = 0  # times that the node fell silent
    first_heard: float = math.nan
    last_heard: float = math.nan
    inferences: Rate = field(default_factory=Rate)
    commands: Rate = field(default_factory=Rate)
    _recent: deque[_Sample] = field(default_factory=deque)  # of the window
    _line: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=KEPT))
    _last_diagnostics: float = math.nan
    _limit: float = SILENCE

    # -- hearing -----------------------------------------------------------------------------------------------------

    def hear_report(self, report: Any, now: float) -> None:
        """Take in a dysl_vla_ros/SkipReport."""
        self._heard(now)
        self.report, self.episode = report, int(report.episode)
        self.inferences.count(now)
        self._recent.append(_Sample(now, report))
        self._line.append((float(report.continuity), bool(report.verified)))

    def hear_action(self, action: Any, now: float) -> None:
        """Take in a dysl_vla_ros/EndEffectorAction, PoseAction or JointAction."""
        self._heard(now)
        self.commands.count(now)
        self.stop_now = str(action.stop_reason)
        if self.stop_now:
            self.last_stop, self.last_stop_at = self.stop_now, now

    def hear_diagnostics(self, array: Any, now: float) -> None:
        """Take in a diagnostic_msgs/DiagnosticArray; only this node's statuses are kept."""
        found = [status for status in array.status if self._is_ours(status.name)]
        if not found:
            return
        self._heard(now)
        if math.isfinite(self._last_diagnostics):
            self._limit = max(SILENCE, REPORT_PERIODS * (now - self._last_diagnostics))
        self._last_diagnostics = now
        self.statuses = tuple(
            Status(status.name.partition(":")[2].strip() or status.name, _level(status.level), status.message)
            for status in found
        )
        for status in found:
            for pair in status.values:
                if pair.key == "state":
                    self.lifecycle = pair.value

    def hear_transition(self, event: Any, now: float) -> None:
        """Take in a lifecycle_msgs/TransitionEvent."""
        self._heard(now)
        self.lifecycle = str(event.goal_state.label)

    def _heard(self, now: float) -> None:
        if self.silent(now):
            self.gaps += 1
        if not math.isfinite(self.first_heard):
            self.first_heard = now
        self.last_heard = now

    def _is_ours(self, name: str) -> bool:
        """Tell whether a status ``NODE: part`` is this node's, by its full name without the first slash."""
        return name.partition(":")[0].strip().strip("/") == self.node.strip("/")

    # -- answering ---------------------------------------------------------------------------------------------------

    @property
    def heard(self) -> bool:
        """Whether anything was ever heard."""
        return math.isfinite(self.last_heard)

    def silent(self, now: float) -> bool:
        """Tell whether the node was heard once and is no more."""
        return self.heard and now - self.last_heard > self._limit

    def timings(self, now: float) -> dict[str, tuple[float, float, float]]:
        """Return p50, p95 and max in ms of each of :data:`PARTS` that the window has; verify: of those verified."""
        result = {}
        for part in PARTS:
            reports = [report for report in self.recent(now) if part != "verify" or report.verified]
            values = [getattr(report, f"{part}_ms") for report in reports]
            if values:
                p50, p95 = np.percentile(values, [50, 95])
                result[part] = (float(p50), float(p95), float(max(values)))
        return result

    def recent(self, now: float) -> list[Any]:
        """Return the reports of the window, oldest first."""
        while self._recent and now - self._recent[0].arrival > WINDOW:
            self._recent.popleft()
        return [sample.report for sample in self._recent]

    def mean_layers(self, now: float) -> float:
        """Return the mean of layer calls over the window, NaN without an inference."""
        calls = [report.layer_calls for report in self.recent(now)]
        return float(np.mean(calls)) if calls else math.nan

    def line(self) -> tuple[list[float], list[bool]]:
        """Return continuity and verification of the last inferences, oldest first."""
        return [value for value, _ in self._line], [verified for _, verified in self._line]


def _level(level: Any) -> int:
    """Return a level as a number: rclpy gives one byte, a recording an integer."""
    number = int.from_bytes(level, "little") if isinstance(level, bytes) else int(level)
    return min(max(number, 0), len(LEVELS) - 1)
