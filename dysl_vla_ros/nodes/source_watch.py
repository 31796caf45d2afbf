"""Watches who publishes the node's inputs: two at once stop the arm, of two that give instructions the newer wins.

Every message is marked with its publisher and judged before its callback acts on it; ``control/publishers.py`` is the
judge. The graph is asked for names only when a source is doubled, in that callback's thread and without a lock.
"""

import math
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from dysl_vla_ros.control.publishers import (
    PublisherMarks,
    Publishers,
    doubled_fix,
    doubled_text,
    gid_of,
    is_gid,
    watch_window,
)
from dysl_vla_ros.nodes.graph_watch import named, owner
from dysl_vla_ros.nodes.lifecycle_guard import GuardedLifecycleNode
from dysl_vla_ros.settings import SafetySettings

CLOCK = "/clock"
# deeper than rclpy's own subscription: of two messages that come close together neither replaces the other
TIMES = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
ASK_AGAIN = 0.5  # s until the graph is asked again for a name that it did not know

Hear = Callable[[Any, Any], None]  # what rclpy calls with a message and what it knows of it


@dataclass(frozen=True)
class _Doubled:
    """What the graph said of a doubled topic."""

    marks: frozenset[Hashable]
    nodes: tuple[str, ...]
    complete: bool
    asked: float  # s, steady clock


class SourceWatch:
    """Judges a node's inputs from configure to cleanup.

    Args:
        node: whose inputs they are.
        safety: gives the settings in force.
    """

    def __init__(self, node: GuardedLifecycleNode, safety: Callable[[], SafetySettings]) -> None:
        """Hear nothing but ``/clock``, and that only where it is the node's clock."""
        self._node = node
        self._safety = safety
        self._lock = threading.Lock()  # held for a few operations on dictionaries, never while the graph is asked
        self._publishers = Publishers()
        self._joints: dict[str, tuple[str, ...]] = {}  # of topics of joint states: the joints that are judged
        self._doubled: dict[str, _Doubled] = {}
        self._speakers: dict[str, dict[Hashable, None]] = {}  # by topic of instructions; the newest last
        self._untold: set[str] = set()
        self._clock: Any = None
        self._clock_lock = threading.Lock()  # the graph may be looked at while a transition ends everything
        self._ended = False
        self._follow_clock()

    def watch(self, topic: str, callback: Callable[[Any], None], joints: tuple[str, ...] = ()) -> Hear:
        """Return a callback that judges a message of ``topic`` and then gives it to ``callback``.

        Args:
            topic: before or after remapping.
            callback: takes the message.
            joints: each is a source of its own, of a topic that several drivers may share.
        """
        topic = self._node.resolve_topic_name(topic)
        marks, wanted = PublisherMarks(), frozenset(joints)
        if joints:
            self._joints[topic] = joints

        def hear(message: Any, info: Any) -> None:
            arrival, window = time.monotonic(), watch_window(self._safety())
            parts = wanted.intersection(message.name) if wanted else ("",)
            self._judge(topic, parts, marks.of(info, arrival, window), arrival, window)
            callback(message)

        return hear

    def watch_speakers(self, topic: str, callback: Callable[[Any], None], latched: bool) -> Hear:
        """Return a callback for one subscription to ``topic``, on which several nodes may speak.

        Args:
            topic: before or after remapping.
            callback: takes the message.
            latched: a second subscription, which hears some publishers once more: their numbers tell nothing.
        """
        speakers = self._speakers.setdefault(self._node.resolve_topic_name(topic), {})
        marks = PublisherMarks()

        def hear(message: Any, info: Any) -> None:
            mark = marks.of(info, time.monotonic(), math.inf)
            if mark is not None and (is_gid(mark) or not latched):
                with self._lock:
                    speakers.pop(mark, None)
                    speakers[mark] = None
            callback(message)

        return hear

    def stop_reason(self) -> str:
        """Return which inputs two nodes publish at once, with their names; "" where none is."""
        return "; ".join(filter(None, (self._fault(topic) for topic in list(self._doubled) if topic != CLOCK)))

    @property
    def doubled(self) -> bool:
        """Whether any input is published by two nodes at once, the clock included."""
        return bool(self.stop_reason() or self.clock_fault())

    def clock_fault(self) -> str:
        """Return that two nodes publish ``/clock`` at once, with their names; "" where they do not."""
        return self._fault(CLOCK)

    def look(self) -> list[str]:
        """Look at the graph once and return what is odd, but no reason to stop. Do not hold the loop's lock."""
        self._follow_clock()
        return [*self._speaking(), *self._cannot_tell()]

    def destroy(self) -> None:
        """Hear ``/clock`` no longer."""
        with self._clock_lock:
            self._ended = True
            self._leave_clock()

    # -- doubled -----------------------------------------------------------------------------------------------------

    def _judge(self, topic: str, parts: Iterable[str], mark: Hashable, arrival: float, window: float) -> None:
        if mark is None:
            self._untold.add(topic)
            return
        with self._lock:
            doubled = [self._publishers.heard((topic, part), mark, arrival, window) for part in parts]
            told = self._doubled.get(topic)
            giving = self._giving(topic, arrival, window) if any(doubled) else {}
        marks = frozenset(mark for marks in giving.values() for mark in marks)
        unknown = told is None or told.marks != marks or (not told.complete and arrival - told.asked > ASK_AGAIN)
        if marks and unknown:
            self._ask(topic, marks, arrival)

    def _ask(self, topic: str, marks: frozenset[Hashable], now: float) -> None:
        """Ask the graph who they are, and take the topic for doubled.

        Numbers of messages are less certain than gids: there the graph must show two publishers as well.
        """
        ends = self._node.get_publishers_info_by_topic(topic)
        certain = all(map(is_gid, marks))
        if not certain and len(ends) < 2:
            with self._lock:
                for part in self._parts(topic):
                    self._publishers.forget((topic, part))
            return
        known = [end for end in named(ends) if not certain or gid_of(end) in marks]
        nodes = tuple(sorted({owner(end) for end in known}))
        with self._lock:
            self._doubled[topic] = _Doubled(marks, nodes, len(known) >= len(marks), now)
        if fault := self._fault(topic):
            self._node.log_throttled(topic, fault)

    def _fault(self, topic: str) -> str:
        told = self._doubled.get(topic)
        if told is None:
            return ""
        with self._lock:
            giving = self._giving(topic, time.monotonic(), watch_window(self._safety()))
            if not giving:
                self._doubled.pop(topic, None)
                return ""
        joints = [part for part in giving if part]
        told_of = doubled_text(topic, told.nodes, joints)
        return f"{told_of}: the arm would act on both in turns; {doubled_fix(topic, bool(joints))}"

    def _giving(self, topic: str, now: float, window: float) -> dict[str, tuple[Hashable, ...]]:
        """Return the publishers of each part of a topic that is doubled; under the lock."""
        found = {part: self._publishers.doubled((topic, part), now, window) for part in self._parts(topic)}
        return {part: publishers for part, publishers in found.items() if publishers}

    def _parts(self, topic: str) -> tuple[str, ...]:
        return self._joints.get(topic, ("",))

    # -- /clock --------------------------------------------------------------------------------------------------------

    def _follow_clock(self) -> None:
        """Hear ``/clock`` only while it rules; ``use_sim_time`` may be set at any time."""
        with self._clock_lock:
            if not self._node.get_clock().ros_time_is_active:
                self._leave_clock()
            elif self._clock is None and not self._ended:
                hear = self._node.guarded(CLOCK)(self.watch(CLOCK, lambda message: None))
                # raw: what it says is heard by rclpy, here it counts who says it
                self._clock = self._node.create_subscription(
                    Clock, CLOCK, hear, TIMES, callback_group=MutuallyExclusiveCallbackGroup(), raw=True
                )

    def _leave_clock(self) -> None:
        if self._clock is not None:
            self._node.destroy_subscription(self._clock)
        self._clock = None

    # -- what the graph shows ------------------------------------------------------------------------------------------

    def _speaking(self) -> Iterable[str]:
        """Name those that have given an instruction and can give another.

        Where only numbers tell publishers apart, a second one whose numbers happen to go on from the first's looks like
        it: there all that the graph shows are named, once any has spoken.
        """
        for topic, speakers in self._speakers.items():
            with self._lock:
                heard = list(speakers)
            certain = all(map(is_gid, heard))
            if not heard or (certain and len(heard) < 2):
                continue
            ends = self._node.get_publishers_info_by_topic(topic)
            if certain:
                self._forget_gone(speakers, set(heard) - set(map(gid_of, ends)))
                there = {gid_of(end): owner(end) for end in named(ends)}
                names = [there[mark] for mark in heard if mark in there]
                told = f"give instructions, the newest counts (that of {names[-1]})" if names else ""
            else:
                names, told = sorted(map(owner, named(ends))), "can give instructions, the newest counts"
            if len(names) > 1:
                yield f"{topic}: {' and '.join(dict.fromkeys(names))} {told}; stop one of them if only one should"

    def _cannot_tell(self) -> Iterable[str]:
        """Name topics with two publishers whose messages this middleware does not tell apart."""
        for topic in sorted(self._untold):
            names = sorted(map(owner, named(self._node.get_publishers_info_by_topic(topic))))
            if len(names) > 1:
                yield (
                    f"{topic}: {' and '.join(names)} publish it, and this middleware does not say whose a message is: "
                    "the arm may act on both in turns; stop one of them, or use rmw_fastrtps_cpp"
                )

    def _forget_gone(self, speakers: dict[Hashable, None], gone: Iterable[Hashable]) -> None:
        with self._lock:
            for mark in gone:
                speakers.pop(mark, None)
