"""Whether two publishers give one input at the same time: the arm would act on both in turns. Without ROS.

Two cameras on one topic, joint_state_publisher's zeros beside the real joints, a bag beside a camera. What counts are
the messages that arrive, not what the graph shows: it remembers a dead publisher for about 20 s. A source is *doubled*
once messages of two publishers have come to and fro, and no longer when all but one of them were silent for
:func:`watch_window`. A driver that ends and starts again never is: the old publisher does not come back.

Which publisher sent a message is in what rclpy says beside it, the dictionary that a second parameter receives.
Kilted's rclpy (9.1.2) gives the publisher's gid. Jazzy's (7.1.6) does not; both give the number under which a
publisher sent it, counted by each publisher for itself from 1. One publisher's numbers only rise, so numbers that go to
and fro are those of two. Checked with rmw_fastrtps_cpp; a middleware that gives neither leaves publishers untold.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dysl_vla_ros.settings import SafetySettings

# To and fro: A B A B A has three returns. A last message of an ended driver that overtook none of its successor's but
# the first makes two, A A B A B B: its own, and the successor's after it.
RETURNS = 3
LEAST_WINDOW = 2.5  # s: one message a second beside a camera is found
WINDOW = 4.0  # arrival limits: a source that may be silent for longer may be so slow
PADDING = b"\0"  # the same gid may be padded to another length in the graph


def watch_window(safety: SafetySettings) -> float:
    """Return for how many seconds of the steady clock a publisher counts after its newest message."""
    return max(LEAST_WINDOW, WINDOW * safety.max_arrival_age)


@dataclass
class _Source:
    newest: Hashable = None
    arrivals: dict[Hashable, float] = field(default_factory=dict)  # publisher: s, steady clock, of its newest message
    returns: int = 0


class Publishers:
    """Who gave each source's messages. Not thread-safe: its owner calls every method under one lock."""

    def __init__(self) -> None:
        self._sources: dict[Hashable, _Source] = {}

    def heard(self, source: Hashable, publisher: Hashable, arrival: float, window: float) -> bool:
        """Note a message; return whether its source is doubled now.

        Args:
            source: what one publisher at a time should give: a topic, a joint of one.
            publisher: whatever tells publishers apart.
            arrival: s, steady clock.
            window: s, see :func:`watch_window`.
        """
        known = self._sources.get(source)
        if known is None:
            known = self._sources[source] = _Source()
        if publisher != known.newest:
            known.arrivals = {other: then for other, then in known.arrivals.items() if arrival - then <= window}
            if len(known.arrivals) < 2:
                known.returns = 0
            known.returns += publisher in known.arrivals
            known.newest = publisher
        known.arrivals[publisher] = arrival
        return known.returns >= RETURNS and bool(self.doubled(source, arrival, window))

    def doubled(self, source: Hashable, now: float, window: float) -> tuple[Hashable, ...]:
        """Return the publishers that give a source at the same time; empty where it is not doubled."""
        known = self._sources.get(source)
        if known is None or known.returns < RETURNS:
            return ()
        giving = tuple(publisher for publisher, then in known.arrivals.items() if now - then <= window)
        return giving if len(giving) > 1 else ()

    def forget(self, source: Hashable) -> None:
        """Begin anew with a source."""
        self._sources.pop(source, None)


def doubled_text(topic: str, nodes: Sequence[str], joints: Sequence[str] = ()) -> str:
    """Say that an input is doubled.

    Args:
        topic: as it is called after remapping.
        nodes: full names of those that publish it; one name: it has several publishers.
        joints: names that come from more than one of them, for a topic of joint states.
    """
    what = f"{topic}: joint{'s' * (len(joints) > 1)} {', '.join(joints)}" if joints else topic
    if len(nodes) == 1:
        return f"{what}: two publishers of {nodes[0]} at the same time"
    return f"{what}: {' and '.join(nodes) or 'two publishers'} publish it at the same time"


def doubled_fix(topic: str, joints: bool = False) -> str:
    """Say what to do about an input that is doubled."""
    if joints:
        return "stop one of them (no joint_state_publisher beside the robot's own driver), or remap its topic"
    if topic == "/clock":
        return "end all but one of them, or play the bag without --clock"
    return "stop one of them (no bag beside a running driver), or remap its topic"


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
