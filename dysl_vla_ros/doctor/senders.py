"""Who sent each message that the doctor heard: judged as the node judges its inputs. Without ROS."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dysl_vla_ros.control.publishers import PublisherMarks, Publishers, gid_of, is_gid


@dataclass(frozen=True)
class Doubled:
    """A topic that two publishers gave at the same time."""

    topic: str
    nodes: tuple[str, ...]  # full names
    joints: tuple[str, ...] = ()  # that came from more than one of them


@dataclass
class _Topic:
    marks: PublisherMarks = field(default_factory=PublisherMarks)
    giving: set[Hashable] = field(default_factory=set)
    joints: set[str] = field(default_factory=set)


class Senders:
    """To be told of every message.

    Args:
        window: s, see ``control.publishers.watch_window``.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._judge = Publishers()
        self._topics: dict[str, _Topic] = {}

    def heard(self, topic: str, info: Mapping[str, Any], arrival: float, joints: Iterable[str] = ("",)) -> None:
        """Note a message.

        Args:
            topic: its topic.
            info: what rclpy gives beside a message.
            arrival: s, steady clock.
            joints: names in it, where it is of joint states: each is a source of its own.
        """
        known = self._topics.setdefault(topic, _Topic())
        mark = known.marks.of(info, arrival, self._window)
        for joint in joints if mark is not None else ():
            if self._judge.heard((topic, joint), mark, arrival, self._window):
                known.giving.update(self._judge.doubled((topic, joint), arrival, self._window))
                known.joints.update({joint} - {""})

    @property
    def topics(self) -> list[str]:
        """Topics of which a message was heard."""
        return sorted(self._topics)

    def doubled(self, publishers: Callable[[str], Sequence[Any]], name: Callable[[Any], str]) -> tuple[Doubled, ...]:
        """Return what was doubled at any time.

        Args:
            publishers: gives a topic's publishers in the graph (``TopicEndpointInfo``).
            name: full name of the node that one of them belongs to.
        """
        found = []
        for topic, known in sorted(self._topics.items()):
            if not known.giving:
                continue
            ends = publishers(topic)
            if all(map(is_gid, known.giving)):
                ends = [end for end in ends if gid_of(end) in known.giving]
            elif len(ends) < 2:  # numbers of messages are less certain: the graph must show two as well
                continue
            found.append(Doubled(topic, tuple(sorted({name(end) for end in ends})), tuple(sorted(known.joints))))
        return tuple(found)
