"""Which messages make up one observation: an image of the first camera, and what belongs to it by the stamps.

Every image of the first camera that was accepted gets one verdict, in their order: served together with the nearest
image of every other camera, or refused where none lies within ``safety.max_camera_skew`` of it. It is served at once,
unless something that belongs to it is still on its way:

- No image of another camera lies within the limit yet, and that camera's stamps have not passed this image's.
- One does, but by that camera's own rhythm the one of this very moment is due, behind the image.
- Proprioception of the same stamp is due: its stamps have been those of the images before, or it is the beginning.

It is waited for within :func:`patience` after the image's arrival, and no longer than until that source's stamps have
passed the image's. A free-running source costs no wait; a camera that is sent behind the first one costs what it lies
behind. A verdict depends on messages and times of arrival alone, never on when it is asked for, so that the node and a
recording of what it heard give the same ones. No clock of its own: every time is given, in seconds.

:class:`Stream` has what was heard of one source: which message is nearest to a moment, and whether another is due.
"""

import collections
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dysl_vla_ros.settings import SafetySettings

GAPS_KEPT = 5  # between stamps, that a source's rhythm is known by
DUE_AFTER = 0.7  # of a period since its newest stamp, the next message of a source is due: stamps jitter
IMAGES_KEPT = 8  # of each camera while a partner is awaited; more would be gigabytes with large pictures
VALUES_KEPT = 200  # messages of proprioception: one at 1 kHz is found again 0.2 s later
VAIN_WAITS = 2  # in a row, after which proprioception is not waited for until it bears an image's stamp in time again
ROUNDING = 1e-6  # s; stamps as floats are 0.24 us apart


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


@dataclass(frozen=True, eq=False)
class Verdict:
    """What became of an image of the first camera."""

    image: Heard
    time: float  # s, steady clock: the arrival that completed it, or the end of the wait
    parts: Mapping[str, Heard]  # every camera's image, and proprioception of the same stamp; {} where it is refused
    skew: float = 0.0  # s, by which another camera's stamp differs most from the first one's
    refusal: str = ""  # "": served


@dataclass
class _Waiting:
    """An image of the first camera without a verdict."""

    image: Heard
    nearest: dict[str, Heard] = field(default_factory=dict)  # image of every other camera, however many came since
    awaited: set[str] = field(default_factory=set)  # proprioception

    def see(self, camera: str, other: Heard | None) -> None:
        """Keep an image of another camera where it is nearer than the one known, the older one of two."""
        known = self.nearest.get(camera)
        if other and (not known or abs(other.stamp - self.image.stamp) < abs(known.stamp - self.image.stamp)):
            self.nearest[camera] = other


class Pairing:
    """Pairs messages as they come. Not thread-safe: its owner calls every method under one lock.

    Args:
        cameras: the first one paces.
        values: other sources with stamps.
        topics: what a source is called in texts; else its own name.
    """

    def __init__(
        self, cameras: Sequence[str], values: Sequence[str] = (), topics: Mapping[str, str] | None = None
    ) -> None:
        """Begin with nothing heard."""
        self._first, self._others, self._values = cameras[0], tuple(cameras[1:]), tuple(values)
        self._names = dict(topics or {})
        self._new: list[Verdict] = []
        self.start()

    def start(self) -> None:
        """Forget everything."""
        self._streams = {source: Stream(IMAGES_KEPT) for source in self._others}
        self._streams |= {source: Stream(VALUES_KEPT) for source in self._values}
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._arrivals: dict[float, float] = {}  # stamp -> arrival, of the first camera's newest images
        self._newest = -math.inf  # s, stamp of the first camera
        self._served: Verdict | None = None  # the newest
        self._refusal = ""  # of the newest verdict
        self._new.clear()

    def forget(self, why: str) -> None:
        """Begin anew, and refuse the images that wait."""
        refused = [Verdict(waiting.image, waiting.image.arrival, {}, refusal=why) for waiting in self._waiting]
        verdicts = self._new + refused
        self.start()
        self._new.extend(verdicts)

    def hear(self, source: str, message: Heard, safety: SafetySettings) -> None:
        """Take a message that was accepted; the stamps of a source advance, or else the clock has jumped back."""
        self._end_waits(message.arrival, safety)
        newest = self._newest if source == self._first else self._streams[source].newest
        if newest is not None and message.stamp <= newest:
            self.forget("it is from before the clock jumped back")
        if source == self._first:
            self._hear_first(message, safety)
        else:
            stream = self._streams[source]
            stream.add(message)
            for waiting in self._waiting if source in self._others else ():
                waiting.see(source, message)
            arrival = self._arrivals.get(message.stamp)
            if arrival is not None and message.arrival <= arrival + patience(safety):
                stream.vain = 0
        if self._waiting or source in self._others:
            self._judge_waiting(message.arrival, safety)

    def verdicts(self, steady_now: float, safety: SafetySettings) -> list[Verdict]:
        """Return the verdicts since the last call, those of waits that are over by now included."""
        self._end_waits(steady_now, safety)
        verdicts = list(self._new)
        self._new.clear()
        return verdicts

    def stop_reason(self, steady_now: float, ros_now: float, limit: float, safety: SafetySettings) -> str:
        """Return why the cameras keep the arm from moving though each of them is fresh, or "".

        Args:
            steady_now: s, steady clock.
            ros_now: s, ROS clock.
            limit: s of the steady clock without images that belong together.
            safety: the other limits.
        """
        if not self._others:
            return ""
        served = self._served
        if served is None:
            return self._refusal
        age, stamp_age = steady_now - served.time, ros_now - served.image.stamp
        if age <= limit and stamp_age <= safety.max_stamp_age:
            return ""
        return self._refusal or (
            f"{self._name(self._first)}: for {age:.2f} s no image came that {self._all_others()} had one within "
            f"{safety.max_camera_skew:g} s of (safety.max_camera_skew); synchronise the cameras or raise their rate"
        )

    def _all_others(self) -> str:
        return " and ".join(map(self._name, self._others))

    def _name(self, source: str) -> str:
        return self._names.get(source, source)

    # -- judging -----------------------------------------------------------------------------------------------------

    def _hear_first(self, image: Heard, safety: SafetySettings) -> None:
        if len(self._waiting) >= IMAGES_KEPT:
            self._judge_first_waiting(image.arrival, safety, over=True)
        self._newest = image.stamp
        self._arrivals[image.stamp] = image.arrival
        if len(self._arrivals) > IMAGES_KEPT:
            del self._arrivals[next(iter(self._arrivals))]
        for source in self._values:
            if image.stamp in self._streams[source].messages:
                self._streams[source].vain = 0
        waiting = _Waiting(image)
        for camera in self._others:
            waiting.see(camera, self._streams[camera].nearest(image.stamp))
        self._waiting.append(waiting)

    def _end_waits(self, steady_now: float, safety: SafetySettings) -> None:
        """Judge the images whose wait is over; those behind one of them may then be judged too."""
        while self._waiting and steady_now > (end := self._waiting[0].image.arrival + patience(safety)):
            self._judge_first_waiting(end, safety, over=True)
            self._judge_waiting(end, safety)

    def _judge_waiting(self, time: float, safety: SafetySettings) -> None:
        while self._waiting and self._judge_first_waiting(time, safety, over=False):
            pass
        oldest = self._waiting[0].image.stamp if self._waiting else self._newest
        for camera in self._others:
            self._streams[camera].forget_before(oldest)

    def _judge_first_waiting(self, time: float, safety: SafetySettings, *, over: bool) -> bool:
        """Give a verdict on the image that has waited longest, unless it must go on waiting.

        Args:
            time: s, steady clock, of the verdict.
            safety: the limits.
            over: its wait ends here.
        """
        waiting, image = self._waiting[0], self._waiting[0].image
        parts, refusal, wait = {self._first: image}, "", False
        for camera in self._others:
            stream = self._streams[camera]
            nearest, passed = waiting.nearest.get(camera), stream.passed(image.stamp)
            if nearest is not None and within(safety, abs(nearest.stamp - image.stamp)):
                parts[camera] = nearest
                wait |= not passed and stream.due(image.stamp)
            elif passed or over:
                refusal = refusal or self._too_far_apart(camera, image, nearest, safety)
            else:
                wait = True
        for source in self._values:
            stream = self._streams[source]
            if (same := stream.messages.get(image.stamp)) is not None:
                parts[source] = same
            elif not stream.passed(image.stamp) and stream.vain < VAIN_WAITS and stream.due(image.stamp):
                waiting.awaited.add(source)
                wait = True
        if wait and not over and not refusal:
            return False
        self._waiting.popleft()
        for source in waiting.awaited - parts.keys():
            self._streams[source].vain += 1
        if refusal:
            self._give(Verdict(image, time, {}, refusal=refusal))
        else:
            skew = max((abs(parts[camera].stamp - image.stamp) for camera in self._others), default=0.0)
            self._give(Verdict(image, time, parts, skew))
        return True

    def _give(self, verdict: Verdict) -> None:
        self._refusal = verdict.refusal
        if not verdict.refusal:
            self._served = verdict
        self._new.append(verdict)

    def _too_far_apart(self, camera: str, image: Heard, nearest: Heard | None, safety: SafetySettings) -> str:
        first, other = self._name(self._first), self._name(camera)
        if nearest is None:
            return f"{other}: no image came that one of {first} could be paired with"
        skew = nearest.stamp - image.stamp
        older, newer = (other, first) if skew < 0.0 else (first, other)
        return (
            f"{older}: its nearest image is {abs(skew):.3g} s older than that of {newer}, limit "
            f"{safety.max_camera_skew:g} s (safety.max_camera_skew); synchronise the cameras or raise their rate"
        )


def patience(safety: SafetySettings) -> float:
    """Return how long an image waits at most for what belongs to it, s.

    ``safety.max_camera_skew``, and half of what it may be old by arrival or stamp: the other half is for the policy,
    and for the images to come.
    """
    return min(safety.max_camera_skew, 0.5 * safety.max_arrival_age, 0.5 * safety.max_stamp_age)


def within(safety: SafetySettings, skew: float) -> bool:
    """Whether images whose stamps differ by ``skew`` seconds may be shown to the policy together."""
    return skew <= safety.max_camera_skew + ROUNDING
