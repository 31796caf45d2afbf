"""The order in which a bag's messages are read: by time, but for a clock that was set back while it was recorded.

Writers put messages down about as they come: several topics, threads and chunks leave them milliseconds out of order,
and some programs write one topic after the other. Times put that right. A clock that was set back (NTP, a simulation
that was reset) makes times come twice, and would interleave two moments that have nothing to do with each other. There
the file's own order counts: the recording falls into *segments*, each with a clock that only ran forward.

A set-back shows on one topic: its next message lies more than :data:`SET_BACK` in front of the one before, and from
there on the clock runs anew. A message that merely came late is none, for the old clock still runs behind it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SET_BACK = 50_000_000  # ns: messages of one topic come milliseconds out of order; time daemons step by 128 ms or more
LARGEST = 2**62  # ns: a time beyond is damaged, and counts as this one


class SetBack(NamedTuple):
    """A place at which the clock was set back."""

    place: int  # of the first message behind it, in the order of the file
    before: int  # ns, the newest time in front of it
    after: int  # ns, the first one behind it

    @property
    def seconds(self) -> float:
        """By how much, less what went by between the two messages."""
        return (self.before - self.after) * 1e-9


@dataclass(frozen=True)
class Order:
    """How the messages of a bag follow each other.

    Attributes:
        places: (n,) of each message in the order of the file, in the order of reading.
        segments: (n,) segment of each message, in the order of reading.
        elapsed: (n,) ns since the first message, in the order of reading; a clock set back does not set it back.
        set_backs: between the segments.
    """

    places: NDArray[np.int64]
    segments: NDArray[np.int64]
    elapsed: NDArray[np.int64]
    set_backs: tuple[SetBack, ...]


def reading_order(times: NDArray[np.uint64], topics: NDArray[np.int64]) -> Order:
    """Order messages.

    Args:
        times: (n,) ns, in the order of the file.
        topics: (n,) a number for each topic.
    """
    clock = np.minimum(times, LARGEST).astype(np.int64)
    segments, set_backs = _segments(clock, topics)
    places = np.lexsort((clock, segments))  # stable: of two received at one time, the one that was written first
    ordered, segments = clock[places], segments[places]
    steps = np.diff(ordered, prepend=ordered[:1])
    steps[np.diff(segments, prepend=segments[:1]) > 0] = 0  # how long it took to set the clock back is not known
    return Order(places, segments, np.cumsum(steps), set_backs)


def _segments(times: NDArray[np.int64], topics: NDArray[np.int64]) -> tuple[NDArray[np.int64], tuple[SetBack, ...]]:
    """Return the segment of each message, and what lies between segments."""
    before = _places_before(topics)
    drops = np.flatnonzero((before >= 0) & (times + SET_BACK < times[before]))
    segments = np.zeros(len(times), np.int64)
    late = np.zeros(len(times), bool)  # written behind a set-back, received in front of it
    set_backs: list[SetBack] = []
    start = 0  # of the present segment
    lag = 0  # ns that messages of it came late by, while the clock ran on
    for drop in drops:
        last = int(before[drop])
        if last < start or late[last]:  # the set-back that is known explains it
            continue
        newest = int(times[start:drop][~late[start:drop]].max())
        nearer = times[last + 1 : drop + 1] < (newest + int(times[drop])) // 2
        begin = last + 1 + int(np.argmax(nearer))  # another topic may have shown it first
        stragglers, runs_on = _stragglers(times, begin, newest)
        apart = newest - int(times[begin])
        if runs_on or (runs_on is None and apart < lag + SET_BACK):
            lag = max(lag, apart)
            continue
        late[stragglers] = True
        segments[begin:] += 1
        segments[stragglers] -= 1
        set_backs.append(SetBack(begin, newest, int(times[begin])))
        start, lag = begin, 0
    return segments, tuple(set_backs)


def _places_before(topics: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where the message before on the same topic lies, -1 where there is none."""
    order = np.argsort(topics, kind="stable")
    before = np.full(len(topics), -1, np.int64)
    same = topics[order[1:]] == topics[order[:-1]]
    before[order[1:][same]] = order[:-1][same]
    return before


def _stragglers(times: NDArray[np.int64], begin: int, newest: int) -> tuple[list[int], bool | None]:
    """Look at what follows a time that went back.

    Returns:
        The messages that the old clock had stamped, and whether it runs on, so that nothing was set back; None where
        the file ends before that shows.
    """
    found: list[int] = []
    reached = first = int(times[begin])
    for place in range(begin + 1, len(times)):
        time = int(times[place])
        if time > reached + SET_BACK and time > newest - SET_BACK:
            if time > newest + SET_BACK // 2:
                return [], True
            found.append(place)
        elif (reached := max(reached, time)) > first + SET_BACK:
            return found, False
    return found, None
