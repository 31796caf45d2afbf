"""What was seen of the ROS graph, as plain values: the checks look at this and need no ROS."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dysl_vla_ros.doctor.senders import Doubled

EVEN = 0.1  # of a period, by which three quarters of an even driver's stamps miss a whole multiple at most
MOSTLY_LOST = 1.6  # ratio of common and short steps between stamps


class Reading(NamedTuple):
    """One image as it arrived."""

    stamp: float  # s, as the driver wrote it
    clock: float  # s, this machine's clock at the arrival
    sim: float  # s, the newest /clock at the arrival; NaN without one
    steady: float  # s, steady clock at the arrival
    size: int  # bytes
    kind: str  # "640x480 rgb8"


@dataclass(frozen=True)
class Camera:
    """One image topic."""

    topic: str
    publishers: tuple[str, ...] = ()  # full names of nodes
    readings: tuple[Reading, ...] = ()

    def rate(self) -> float:
        """Return images a second as they arrived; NaN below two."""
        return _rate([reading.steady for reading in self.readings])

    def gaps(self) -> list[float]:
        """Return the seconds between arrivals."""
        return _differences([reading.steady for reading in self.readings])

    def offered_rate(self) -> float:
        """Return the driver's own rate in Hz by its stamps; NaN below two of them."""
        period = self._period()
        return 1.0 / period if period > 0.0 else math.nan

    def lost(self) -> float:
        """Return the share of the driver's images that did not arrive, by gaps between its stamps.

        0.0 where the stamps are too uneven to tell a lost image from a late one.
        """
        period, steps = self._period(), self._steps()
        if not steps:
            return 0.0
        uneven = sorted(abs(step / period - round(step / period)) for step in steps)
        if uneven[3 * len(uneven) // 4] > EVEN:
            return 0.0
        missing = sum(max(round(step / period) - 1, 0) for step in steps)
        return missing / (missing + len(self.readings))

    def _steps(self) -> list[float]:
        steps = _differences([reading.stamp for reading in self.readings])
        return sorted(step for step in steps if step > 0.0)

    def _period(self) -> float:
        """Return the time between two images as sent: the common step, or the short one where most were lost."""
        steps = self._steps()
        if not steps:
            return math.nan
        common, short = steps[len(steps) // 2], steps[len(steps) // 5]
        return short if common > MOSTLY_LOST * short else common


@dataclass(frozen=True)
class VlaNode:
    """A running node of this package."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)  # what it answered; empty: it did not

    def parameter(self, name: str, default: Any) -> Any:
        """Return one of its parameters, or what it is by default."""
        return self.parameters.get(name, default)


@dataclass(frozen=True)
class Joints:
    """What the first node of this package commands joints or absolute poses by, and what it hears of them."""

    command: str  # topic
    type: str  # of its messages
    listeners: tuple[str, ...] = ()  # full names of nodes
    states: str = ""  # topic that the node hears joint states, or the pose, on
    measured: tuple[str, ...] = ()  # names that were in its messages; of a pose one that says that it was heard


@dataclass(frozen=True)
class Mismatch:
    """A publisher and a subscriber that do not hear each other."""

    topic: str
    publisher: str
    subscriber: str
    reason: str  # as the middleware says it


@dataclass(frozen=True)
class Snapshot:
    """Everything that was seen while listening."""

    rmw: str
    listened: float  # s, to the cameras
    nodes: tuple[str, ...] = ()
    vla_nodes: tuple[VlaNode, ...] = ()
    cameras: tuple[Camera, ...] = ()
    image_topics: tuple[str, ...] = ()  # everything of an image type
    mismatches: tuple[Mismatch, ...] = ()
    types: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of topics that have more than one
    endpoints: int = 0  # publishers and subscriptions compared
    clock_publishers: tuple[str, ...] = ()
    clocks: tuple[tuple[float, float], ...] = ()  # (steady, /clock) of each message heard
    heard: tuple[str, ...] = ()  # topics of which a message came
    doubled: tuple[Doubled, ...] = ()  # of these
    joints: Joints | None = None  # None: no configured node of this package commands any

    @property
    def node(self) -> VlaNode | None:
        """The first node of this package, if one runs."""
        return self.vla_nodes[0] if self.vla_nodes else None

    def largest_image(self) -> Reading | None:
        """Return the largest image seen."""
        return max((r for camera in self.cameras for r in camera.readings), key=lambda r: r.size, default=None)


def _differences(values: Sequence[float]) -> list[float]:
    return [after - before for before, after in zip(values[:-1], values[1:], strict=True)]


def _rate(arrivals: Sequence[float]) -> float:
    span = arrivals[-1] - arrivals[0] if len(arrivals) > 1 else 0.0
    return (len(arrivals) - 1) / span if span > 0.0 else math.nan


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation, 0.0 below two values."""
    return statistics.pstdev(values) if len(values) > 1 else 0.0
