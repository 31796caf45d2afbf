"""What is kept of an episode: every inference, some pictures, how it ended. The demo records it over DDS.

Tables, summaries and reports are made from these records alone, so that one report serves whoever played the episode.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.interfaces import SkipTrace, Timings

TIMINGS = ("convert", "transfer", "vision", "stack", "head", "verify", "total", "image_age")
"""Every timing of an inference, in milliseconds, in the order of tables."""


@dataclass(frozen=True)
class InferenceRecord:
    """One inference, as a skip report tells it."""

    time: float  # s since the episode's start, of the image that was answered
    trace: SkipTrace
    timings: Timings  # ms
    image_age: float = math.nan  # ms from the image's stamp to the reply; NaN where nobody measured it
    missed_deadline: bool = False
    seam: float = math.nan  # difference to the command before, normalised; NaN: none

    def milliseconds(self, name: str) -> float:
        """Return one of :data:`TIMINGS`; NaN where there is none (no verification, no age)."""
        if name == "image_age":
            return self.image_age
        if name == "verify" and not self.trace.verified:
            return math.nan
        return float(getattr(self.timings, name))


@dataclass(frozen=True)
class Picture:
    """One picture of the scene, compressed: an episode's pictures are kept in memory until the report is written."""

    time: float  # s since the episode's start
    jpeg: bytes


@dataclass
class EpisodeRecord:
    """One episode of one task."""

    task: str
    instruction: str
    seed: int
    blocks: tuple[tuple[int, int], ...] = ()  # (first, one past last) dynamic layer of each block
    success: bool = False
    ticks: int = 0  # control ticks from the first command to success or the end
    seconds: float = 0.0
    object_moved: float = math.nan  # s since the start until the task's object lay elsewhere; NaN: it never did
    inferences: list[InferenceRecord] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    stops: Counter[str] = field(default_factory=Counter)  # reason -> ticks

    @property
    def layer_calls(self) -> NDArray[np.int64]:
        """Layer calls of each inference, verification included: (inferences,)."""
        return np.array([inference.trace.layer_calls for inference in self.inferences], dtype=np.int64)

    @property
    def fetching(self) -> int:
        """How many inferences there were before the task's object was moved; all where it never was."""
        return sum(not inference.time >= self.object_moved for inference in self.inferences)

    @property
    def layers_total(self) -> int:
        """Layers of the policy's stack; 0 where nothing was inferred."""
        return self.inferences[0].trace.layers_total if self.inferences else 0
