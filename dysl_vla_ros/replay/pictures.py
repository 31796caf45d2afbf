"""The few pictures that a replay keeps: a film of the episodes that deviate most, and the worst moments.

Everything else is dropped as it comes, so that memory does not grow with the recording.
"""

import heapq
import io
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dysl_vla_ros.interfaces import Observation

FILM_PICTURES = 8  # at least so many an episode, where it has them
EPISODES_SHOWN = 12
WORST_MOMENTS = 10
APART = 10  # moments between two of the worst: neighbours show the same thing
FILM_WIDTH, WORST_WIDTH = 192, 256  # px


@dataclass
class Film:
    """Pictures of one episode, evenly spread; half of them go when there are too many."""

    episode: int
    worst: float = 0.0
    frames: list[tuple[int, bytes]] = field(default_factory=list)  # (row of the moment, JPEG)
    _every: int = 1
    _seen: int = 0

    def add(self, observation: Observation, row: int) -> None:
        """Take a moment's picture where it is this one's turn."""
        if self._seen % self._every == 0:
            self.frames.append((row, jpeg(first_picture(observation), FILM_WIDTH)))
            if len(self.frames) > 2 * FILM_PICTURES:
                self.frames = self.frames[::2]
                self._every *= 2
        self._seen += 1


class Album:
    """Watches a replay and keeps what its report will show."""

    def __init__(self) -> None:
        """Begin empty."""
        self.films: list[Film] = []
        self._worst: list[tuple[float, int, tuple[bytes, ...]]] = []  # a heap, the least of the worst first
        self._peak: tuple[float, int, tuple[bytes, ...]] | None = None  # worst of the last moments, not yet in there

    def watch(self, observation: Observation, row: int, episode: int, distance: float) -> None:
        """Look at the moment of a row; ``distance`` is how far skipping deviated there."""
        if not self.films or self.films[-1].episode != episode:
            self._drop_mildest()
            self.films.append(Film(episode))
        film = self.films[-1]
        film.add(observation, row)
        film.worst = max(film.worst, distance)
        if distance > 0.0:
            if self._peak and row + self._peak[1] >= APART:
                self._keep_peak()
            if self._peak is None or distance > self._peak[0]:
                self._peak = (
                    distance,
                    -row,
                    tuple(jpeg(picture, WORST_WIDTH) for picture in observation.images.values()),
                )

    def _keep_peak(self) -> None:
        if self._peak is not None:
            keep = heapq.heappush if len(self._worst) < WORST_MOMENTS else heapq.heappushpop
            keep(self._worst, self._peak)
            self._peak = None

    def worst(self) -> list[tuple[int, tuple[bytes, ...]]]:
        """Return the worst moments (row, a JPEG a camera), the worst first, each the worst of its neighbourhood."""
        self._keep_peak()
        return [(-row, pictures) for _, row, pictures in sorted(self._worst, reverse=True)]

    def _drop_mildest(self) -> None:
        if len(self.films) >= EPISODES_SHOWN:
            self.films.remove(min(self.films, key=lambda film: film.worst))


def first_picture(observation: Observation) -> NDArray[np.uint8]:
    """Return the picture of the camera that paces inference."""
    return next(iter(observation.images.values()))


def jpeg(picture: NDArray[np.uint8], width: int) -> bytes:
    """Compress a picture (height, width, 3), made smaller where it is wider than ``width``."""
    image = Image.fromarray(picture)
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))))
    target = io.BytesIO()
    image.save(target, "JPEG", quality=85)
    return target.getvalue()
