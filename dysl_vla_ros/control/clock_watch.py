"""Compares the ROS clock with the steady one: jumps, and how fast simulated time runs. All times in s, as given."""

import collections

JUMP_BACK = 0.001  # s; no clock that only runs ever goes back
JUMP_AHEAD = 1.0  # s beyond what the measured rate explains
PAUSE = 0.5  # s without an advance after which the measurement begins anew: a pause is not a slow clock
SPAN = 2.0  # s of steady time that the rate is measured over


class ClockWatch:
    """To be updated at every tick.

    Attributes:
        rate: ROS time a steady second, as last measured while the ROS clock advanced; what ``Freshness`` takes.
        jumps: how often the clock has jumped.
        last_jump: as told by ``update``; "" before the first.
    """

    def __init__(self) -> None:
        self.rate = 1.0
        self.jumps = 0
        self.last_jump = ""
        self._advances: collections.deque[tuple[float, float]] = collections.deque()  # (steady, ros), newest last

    def update(self, steady_now: float, ros_now: float) -> str:
        """Return how the ROS clock has jumped since the last update, "" where it has not."""
        if not self._advances:
            self._advances.append((steady_now, ros_now))
            return ""
        steady_before, ros_before = self._advances[-1]
        waited, moved = steady_now - steady_before, ros_now - ros_before
        jump = moved - waited * max(self.rate, 1.0)
        if moved < -JUMP_BACK or jump > JUMP_AHEAD:
            self._begin(steady_now, ros_now)
            self.jumps += 1
            how = f"back by {-moved:.3f} s" if moved < 0 else f"ahead by {moved:.3f} s"
            self.last_jump = f"the clock has jumped {how}"
            return self.last_jump
        if moved <= 0.0:
            return ""
        if waited > PAUSE:
            self._begin(steady_now, ros_now)
            return ""
        self._advances.append((steady_now, ros_now))
        while steady_now - self._advances[0][0] > SPAN:
            self._advances.popleft()
        steady_first, ros_first = self._advances[0]
        if steady_now - steady_first >= PAUSE:
            self.rate = (ros_now - ros_first) / (steady_now - steady_first)
        return ""

    def standing(self, steady_now: float) -> float:
        """Return for how many seconds of steady time the ROS clock has not advanced; 0 before the first update."""
        return steady_now - self._advances[-1][0] if self._advances else 0.0

    def restart(self) -> None:
        """Forget when the clock was last seen: what it does until the next update is no jump. The rate stays."""
        self._advances.clear()

    def _begin(self, steady_now: float, ros_now: float) -> None:
        self._advances.clear()
        self._advances.append((steady_now, ros_now))
