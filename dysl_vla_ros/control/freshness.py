"""Whether the inputs are fresh enough to move: ages on two clocks, refused stamps, and a text for every stop.

Two ages. The arrival age runs on the steady clock, from the arrival of the newest accepted message, for every source:
it catches a silent one also while ``/clock`` stands still. The stamp age runs on the ROS clock, from a camera image's
stamp: it catches old pictures. A message whose stamp is zero, does not advance, or lies ahead of the ROS clock is not
accepted and renews nothing, so that a frozen source grows old like a silent one. No clock of its own: every time is
given, in seconds.
"""

import collections
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dysl_vla_ros.settings import SafetySettings

RATE_WINDOW = 2.0  # s over which rates are counted
RATE_MESSAGES = 2000  # arrivals kept at most, enough for 1 kHz
SLOWEST_CLOCK = 0.1  # a slower /clock stretches the arrival limit no further: tenfold at most


@dataclass(frozen=True)
class SourceStatistics:
    """What diagnostics shows of one input."""

    topic: str
    received: int  # messages that arrived, refused ones included
    refused: int
    dropped: int  # accepted, but a newer one came before any inference used it
    rate: float  # Hz of all arrivals over the last 2 s
    age: float  # s since the newest accepted message arrived (steady clock); inf: none yet
    last_refusal: str  # "" where the newest message was accepted
    identical: int  # pictures in a row with the same bytes as the one before, under new stamps


@dataclass
class _Source:
    topic: str
    camera: bool
    arrival: float | None = None  # s, steady clock: newest accepted message
    stamp: float | None = None  # s, ROS clock: of that message
    heard: float | None = None  # s, steady clock: newest message of any kind
    refusal: str = ""
    in_doubt: bool = False  # its newest message that was looked into could not be used
    counts: "collections.Counter[str]" = field(default_factory=collections.Counter)
    arrivals: "collections.deque[float]" = field(default_factory=lambda: collections.deque(maxlen=RATE_MESSAGES))


class Freshness:
    """Knows when each input was last heard. Not thread-safe: its owner calls every method under one lock."""

    def __init__(
        self, cameras: Sequence[str], others: Sequence[str] = (), topics: Mapping[str, str] | None = None
    ) -> None:
        """Watch ``cameras`` (whose stamps are judged) and ``others``.

        Args:
            cameras: names of image sources.
            others: names of other sources; their stamps are judged where they are given.
            topics: what a source is called in texts, such as its topic after remapping; else its own name.
        """
        names = dict(topics or {})
        self._sources = {name: _Source(names.get(name, name), True) for name in cameras}
        self._sources |= {name: _Source(names.get(name, name), False) for name in others}
        self._started: float | None = None

    def start(self, steady_now: float) -> None:
        """Forget what arrived before, so that "never heard" counts from here; the counts go on."""
        self._started = steady_now
        for source in self._sources.values():
            source.arrival = source.stamp = source.heard = None
            source.refusal, source.in_doubt = "", False

    def received(
        self,
        source: str,
        arrival: float,
        stamp: float | None = None,
        ros_now: float | None = None,
        max_clock_skew: float = SafetySettings.max_clock_skew,
    ) -> str:
        """Note a message; return "" where it may be used, else why it is refused (and counted).

        Args:
            source: camera or other source.
            arrival: s, steady clock.
            stamp: s, ROS clock; None: the message has none.
            ros_now: s, ROS clock at the arrival; None: ``stamp`` is not compared with the clock.
            max_clock_skew: s that a stamp may lie ahead.
        """
        known = self._sources[source]
        why = "" if stamp is None else _stamp_fault(known, stamp, ros_now, max_clock_skew)
        if why:
            self.refused(source, arrival, why)
            return why
        self._heard(known, arrival)
        known.stamp = stamp
        if not known.in_doubt:
            known.arrival, known.refusal = arrival, ""
        return ""

    def refused(self, source: str, arrival: float, why: str) -> None:
        """Count a message that cannot be used; ``why`` names the field or encoding at fault."""
        known = self._sources[source]
        self._heard(known, arrival)
        known.refusal = why
        known.counts["refused"] += 1

    def unusable(self, source: str, arrival: float, why: str) -> None:
        """Take back that the message that arrived then was accepted: looked into, it cannot be used (a damaged JPEG).

        Until :meth:`proved`, messages of this source renew nothing: it is as old as the message before that one.
        """
        known = self._sources[source]
        if not known.in_doubt:
            known.arrival = max((other for other in known.arrivals if other < arrival), default=None)
        known.in_doubt, known.refusal = True, why
        known.counts["refused"] += 1

    def proved(self, source: str, arrival: float) -> None:
        """Note that the message that arrived then (s, steady clock) was looked into and can be used."""
        known = self._sources[source]
        if known.in_doubt:
            known.in_doubt, known.arrival, known.refusal = False, arrival, ""

    def in_doubt(self, source: str) -> bool:
        """Whether messages of this source must be looked into before they count."""
        return self._sources[source].in_doubt

    def topic(self, source: str) -> str:
        """Return what a source is called in texts."""
        return self._sources[source].topic

    def dropped(self, source: str, count: int = 1) -> None:
        """Count accepted messages that a newer one replaced before an inference used them."""
        self._sources[source].counts["dropped"] += count

    def unpaired(self, source: str, why: str) -> None:
        """Count an image that was accepted and to which none of another camera belongs."""
        known = self._sources[source]
        if not known.in_doubt:
            known.refusal = why
        known.counts["refused"] += 1

    def note_identical(self, source: str, identical: bool) -> int:
        """Count pictures in a row whose bytes equal the one before; return how many. A warning, never a stop."""
        counts = self._sources[source].counts
        counts["identical"] = counts["identical"] + 1 if identical else 0
        return counts["identical"]

    def clock_jumped(self) -> None:
        """Take nothing from before a jump of the ROS clock for fresh: every source must send anew."""
        for source in self._sources.values():
            if source.arrival is not None:
                source.arrival = source.stamp = None
                source.refusal = "its newest message is from before the clock jumped"

    def stop_reason(self, steady_now: float, ros_now: float, safety: SafetySettings, clock_rate: float = 1.0) -> str:
        """Return why the arm must not move now, every fault with its topic and mend; "" where all is fresh.

        Args:
            steady_now: s, steady clock.
            ros_now: s, ROS clock.
            safety: the limits.
            clock_rate: ROS time a steady second, as last measured while ``/clock`` advanced. A slower clock stretches
                the arrival limit (tenfold at most), as simulated cameras then come more slowly; a faster one does not
                shrink it. Without sim time: 1.0.
        """
        limit = arrival_limit(safety, clock_rate)
        faults = [self._fault(source, steady_now, ros_now, limit, safety) for source in self._sources.values()]
        return "; ".join(fault for fault in faults if fault)

    def action_stop_reason(self, age: float, safety: SafetySettings) -> str:
        """Return why an action that answers an image of that age (s, ROS clock) must not be played; "" where it may."""
        if -safety.max_clock_skew <= age <= safety.max_stamp_age:
            return ""
        if age < 0.0:
            return f"the clock is {-age:.3g} s behind the image that the action answers: it has jumped back"
        return (
            f"the action answers an image that is {age:.3g} s old, limit {safety.max_stamp_age:g} s "
            "(safety.max_stamp_age): the model is too slow for its chunk, or the limit too short for it"
        )

    def age(self, source: str, steady_now: float) -> float:
        """Return the seconds since the newest accepted message of ``source`` arrived; inf: none yet."""
        arrival = self._sources[source].arrival
        return math.inf if arrival is None else _age(steady_now, arrival)

    def statistics(self, source: str, steady_now: float) -> SourceStatistics:
        """Return the figures of one source."""
        known = self._sources[source]
        age = self.age(source, steady_now)
        recent = [arrival for arrival in known.arrivals if steady_now - arrival < RATE_WINDOW]
        counts = known.counts
        return SourceStatistics(
            topic=known.topic,
            received=counts["received"],
            refused=counts["refused"],
            dropped=counts["dropped"],
            rate=(len(recent) - 1) / (steady_now - recent[0]) if recent and steady_now > recent[0] else 0.0,
            age=age,
            last_refusal=known.refusal,
            identical=counts["identical"],
        )

    def _heard(self, source: _Source, arrival: float) -> None:
        source.heard = arrival
        source.arrivals.append(arrival)
        source.counts["received"] += 1

    def _fault(self, source: _Source, steady_now: float, ros_now: float, limit: float, safety: SafetySettings) -> str:
        topic, heard = source.topic, source.heard
        silent = heard is None or _age(steady_now, heard) > limit
        if heard is None:
            since = "" if self._started is None else f" for {max(steady_now - self._started, 0.0):.1f} s"
            return f"{topic}: no message yet{since}; is it published, and the name remapped to the right topic?"
        age = math.inf if source.arrival is None else _age(steady_now, source.arrival)
        if age > limit and source.refusal and not silent:
            return f"{topic}: messages are refused: {source.refusal}"
        if source.arrival is None:
            return f"{topic}: nothing usable yet: {source.refusal}" if source.refusal else f"{topic}: no message yet"
        if age > limit:
            return (
                f"{topic} has stopped: newest message {age:.2f} s ago, limit {limit:g} s (safety.max_arrival_age); "
                "look after its publisher and the link"
            )
        if not source.camera or source.stamp is None:
            return ""
        stamp_age = ros_now - source.stamp
        if stamp_age < -safety.max_clock_skew:
            return f"{topic}: {_ahead(source.stamp, ros_now, safety.max_clock_skew)}"
        if stamp_age > safety.max_stamp_age:
            return (
                f"{topic}: the newest image was {stamp_age:.3g} s old by its stamp, limit {safety.max_stamp_age:g} s "
                "(safety.max_stamp_age); synchronise the clocks (NTP), or find the delay in camera or link"
            )
        return ""


def arrival_limit(safety: SafetySettings, clock_rate: float = 1.0) -> float:
    """Return ``safety.max_arrival_age`` in seconds of the steady clock, for a ROS clock of that rate."""
    return safety.max_arrival_age / min(1.0, max(clock_rate, SLOWEST_CLOCK))


def _stamp_fault(source: _Source, stamp: float, ros_now: float | None, max_clock_skew: float) -> str:
    if not math.isfinite(stamp) or stamp <= 0.0:
        return f"its stamp is {stamp:g}; have the driver stamp its messages"
    if ros_now is not None and stamp - ros_now > max_clock_skew:
        return _ahead(stamp, ros_now, max_clock_skew)
    # A kept stamp that lies ahead of the clock by now is from before a jump back: nothing is measured by it.
    kept_holds = source.stamp is not None and (ros_now is None or source.stamp - ros_now <= max_clock_skew)
    if kept_holds and source.stamp is not None and stamp <= source.stamp:
        if stamp == source.stamp:
            return f"its stamp {stamp:.3f} does not advance: the source is frozen, restart its driver"
        return f"its stamp {stamp:.3f} is older than {source.stamp:.3f}, which came before it: out of order"
    return ""


def _ahead(stamp: float, ros_now: float, max_clock_skew: float) -> str:
    return (
        f"its stamp {stamp:.3f} lies {stamp - ros_now:.3g} s ahead of the node's clock {ros_now:.3f}, limit "
        f"{max_clock_skew:g} s (safety.max_clock_skew); synchronise the clocks (NTP), or give use_sim_time to both "
        "or to neither"
    )


def _age(now: float, then: float) -> float:
    """Return the age; a negative one, which only a fault of the clock gives, is as stale as can be."""
    return now - then if now >= then else math.inf
