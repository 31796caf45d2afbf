"""The ROS clock as the control loop sees it: does it serve, has it jumped, how fast does it run. No rclpy in it.

Under ``use_sim_time`` it is ``/clock``, which a simulator or ``ros2 bag play --clock`` publishes: it may be absent,
paused, slow or fast, and it jumps back when a bag begins again. Otherwise it is the system's, which NTP may set.
"""

import time
from collections.abc import Callable

from dysl_vla_ros.control.clock_watch import ClockWatch
from dysl_vla_ros.control.freshness import arrival_limit
from dysl_vla_ros.settings import SafetySettings

ONE_AGAIN = "one node alone publishes /clock again, after two did"


class RosClock:
    """To be used under the control loop's lock.

    Args:
        nanoseconds: the ROS clock.
        simulated: whether it is ``/clock``.

    Attributes:
        doubled: says that two nodes publish ``/clock`` at the same time, "" where they do not. It jumps to and fro
            then, which is one fault and no jumps; that it is over counts as one.
    """

    def __init__(self, nanoseconds: Callable[[], int], simulated: Callable[[], bool] = lambda: False) -> None:
        self.nanoseconds = nanoseconds
        self.simulated = simulated
        self._watch = ClockWatch()
        self.doubled: Callable[[], str] = lambda: ""
        self._was_doubled = False
        self._watching = False
        self._unreported_jump = ""

    def now(self) -> float:
        """Return the ROS clock in seconds."""
        return self.nanoseconds() * 1e-9

    def enter(self) -> None:
        """Begin to watch: how the clock differs from when it was last seen is no jump."""
        self._watch.restart()
        self._watching, self._was_doubled = True, False

    def leave(self) -> None:
        """Watch no longer."""
        self._watching = False

    def jumped(self, now: float) -> str:
        """Return how the clock, which shows ``now`` (s), has jumped since the last call, "" where it has not."""
        if not self._watching or self._absent(now):
            return ""
        was_doubled, self._was_doubled = self._was_doubled, bool(self.doubled())
        if self._was_doubled or was_doubled:
            self._watch.restart()
        if self._was_doubled:
            return ""
        jump = self._watch.update(time.monotonic(), now) or (ONE_AGAIN if was_doubled else "")
        self._unreported_jump = jump or self._unreported_jump
        return jump

    def take_jump(self) -> str:
        """Return the newest jump since the last call, so that one that passed between two reports is seen."""
        jump, self._unreported_jump = self._unreported_jump, ""
        return jump

    def fault(self, safety: SafetySettings, now: float | None = None) -> str:
        """Return why the clock does not serve now: ``/clock`` is absent or stands still; "" where it does."""
        if self._absent(self.now() if now is None else now):
            return "no /clock: use_sim_time is true, but no time was heard there yet; start what publishes it"
        limit = arrival_limit(safety, self.rate)
        if not self.simulated() or self.standing <= limit:
            return ""
        return (
            f"/clock has stood still for {self.standing:.1f} s, limit {limit:.2g} s (safety.max_arrival_age): "
            "is the simulation or the bag paused?"
        )

    @property
    def rate(self) -> float:
        """ROS time a steady second, as last measured; 1 without sim time."""
        return self._watch.rate if self.simulated() else 1.0

    @property
    def standing(self) -> float:
        """Seconds of steady time since the clock last advanced; 0 while nobody watches."""
        return self._watch.standing(time.monotonic()) if self._watching else 0.0

    @property
    def jumps(self) -> int:
        """How often it has jumped."""
        return self._watch.jumps

    @property
    def last_jump(self) -> str:
        """How it jumped last, "" before the first time."""
        return self._watch.last_jump

    def _absent(self, now: float) -> bool:
        return self.simulated() and now == 0.0
