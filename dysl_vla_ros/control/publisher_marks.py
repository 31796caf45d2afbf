"""Which publisher sent a message, from what rclpy says beside it: the dictionary that a second parameter receives.

Kilted's rclpy (9.1.2) gives the publisher's gid. Jazzy's (7.1.6) does not; both give the number under which a
publisher sent it, counted by each publisher for itself from 1. One publisher's numbers only rise, so numbers that go to
and fro are those of two. Checked with rmw_fastrtps_cpp; a middleware that gives neither leaves publishers untold.
"""

from collections.abc import Hashable, Mapping
from typing import Any

PADDING = b"\0"  # the same gid may be padded to another length in the graph


class PublisherMarks:
    """Tells the publishers of one subscription apart. Not thread-safe: to be used in its callback alone."""

    def __init__(self) -> None:
        self._strands = Strands()

    def of(self, info: Mapping[str, Any], arrival: float, window: float) -> Hashable:
        """Return a mark that all messages of a publisher share: its gid (bytes) or a number of ours; None: untold.

        Args:
            info: rclpy's, of one message.
            arrival: s, steady clock.
            window: s after which a publisher without a message is forgotten where numbers must do; inf: never.
        """
        gid = info.get("publisher_gid")
        if gid:
            return bytes(gid["data"]).rstrip(PADDING)
        number = info.get("publication_sequence_number")
        return None if number is None else self._strands.of(number, arrival, window)


def is_gid(mark: Hashable) -> bool:
    """Tell whether a mark is certain and can be found in the graph."""
    return isinstance(mark, bytes)


def gid_of(endpoint: Any) -> bytes:
    """Return the mark of a publisher in the graph (a ``TopicEndpointInfo``)."""
    return bytes(endpoint.endpoint_gid).rstrip(PADDING)


class Strands:
    """Sorts a stream of numbers into strands that rise, one a publisher."""

    def __init__(self) -> None:
        self._newest: dict[int, tuple[int, float]] = {}  # strand: number, arrival
        self._begun = 0

    def of(self, number: int, arrival: float, window: float) -> int:
        """Return the strand of a number: of those that it continues the one that it follows most closely, then soonest.

        Args:
            number: above the one before it of the same publisher.
            arrival: s, steady clock.
            window: s after which a strand without a new number has ended.
        """
        self._newest = {strand: last for strand, last in self._newest.items() if arrival - last[1] <= window}
        continued = [(number - last, -then, strand) for strand, (last, then) in self._newest.items() if last < number]
        if continued:
            strand = min(continued)[2]
        else:
            strand, self._begun = self._begun, self._begun + 1
        self._newest[strand] = (number, arrival)
        return strand
