"""What was heard of one source, by its stamps: which message is nearest to a moment, and whether another is due.

No clock of its own: every time is given, in seconds.
"""

import collections
from dataclasses import dataclass, field
from typing import Any, NamedTuple

GAPS_KEPT = 5  # between stamps, that a source's rhythm is known by
DUE_AFTER = 0.7  # of a period since its newest stamp, the next message of a source is due: stamps jitter


class Heard(NamedTuple):
    """A message that was accepted."""

    stamp: float  # s, ROS clock
    arrival: float  # s, steady clock
    item: Any  # what it was heard as


@dataclass
class Stream:
    """The messages of one source that may still be needed: ``kept`` of them at most."""

    kept: int
    messages: "collections.OrderedDict[float, Heard]" = field(default_factory=collections.OrderedDict)  # by stamp
    newest: float | None = None  # s, stamp
    gaps: "collections.deque[float]" = field(default_factory=lambda: collections.deque(maxlen=GAPS_KEPT))
    vain: int = 0  # images in a row that waited for a message of their stamp, and none came

    def add(self, message: Heard) -> None:
        """Take a message; the stamps of a source advance."""
        if self.newest is not None:
            self.gaps.append(message.stamp - self.newest)
        self.newest = message.stamp
        self.messages[message.stamp] = message
        if len(self.messages) > self.kept:
            self.messages.popitem(last=False)  # a plain dict looks for its first entry among those deleted

    def passed(self, stamp: float) -> bool:
        """Whether nothing nearer to that stamp can come any more."""
        return self.newest is not None and self.newest >= stamp

    def due(self, stamp: float) -> bool:
        """Whether a message of that stamp is to be expected. A short gap is the period: in long ones some were lost."""
        if self.newest is None or not self.gaps:
            return True
        period = sorted(self.gaps)[len(self.gaps) // 4]
        return self.newest + DUE_AFTER * period <= stamp

    def nearest(self, stamp: float) -> Heard | None:
        """Return the message whose stamp lies nearest, the older one of two; None where there is none."""
        return min(self.messages.values(), key=lambda message: abs(message.stamp - stamp), default=None)

    def forget_before(self, stamp: float) -> None:
        """Drop what cannot be the nearest to that stamp or a later one."""
        older = [known for known in self.messages if known <= stamp]
        for known in older[:-1]:
            del self.messages[known]
