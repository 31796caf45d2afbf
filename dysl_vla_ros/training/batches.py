"""Batches as the student takes them. A batch is a function of seed, step and process alone, so that a run goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dysl_vla_ros.policies.reference import PADDING, ReferenceConfig, encode_words
from dysl_vla_ros.training.augmentation import mishear, move, vary
from dysl_vla_ros.training.dataset import CAMERAS, Episodes

Autocast = Callable[[], AbstractContextManager[None]]

SCENE_WEIGHT = 0.3  # of the auxiliary loss
SCENE_CENTRE, SCENE_SCALE = (0.0, 0.7, 0.1), 0.1  # m: how object and goal positions are normalised


@dataclass(frozen=True)
class Batch:
    """B frames."""

    pictures: dict[str, Tensor]  # camera -> (B, 3, S, S) in 0..1
    words: Tensor  # (B, W) ids
    proprioception: Tensor  # (B, P) physical units
    actions: Tensor  # (B, H, A) normalised
    mask: Tensor  # (B, H, 1): 0 past the episode's end
    scene: Tensor  # (B, 6) normalised positions of object and goal


class Batches:
    """Makes batches of some episodes for one policy."""

    def __init__(
        self,
        episodes: Episodes,
        config: ReferenceConfig,
        device: torch.device,
        targets: NDArray[np.float32] | None = None,
    ) -> None:
        """Make batches; ``targets`` (N, H, A), normalised, take the place of the recorded actions where given."""
        self._episodes, self._config, self.device = episodes, config, device
        self._targets = targets
        self._recorded = np.array([encode_words(text, config) for text in episodes.instructions])  # (E, W)
        self._variants = [
            np.array([encode_words(text, config) for text in task.instructions]) for task in episodes.tasks
        ]
        # what all of a task's instructions share may be what tells it from another: it is always heard
        self._needed = [
            np.isin(own, list(set.intersection(*(set(row) for row in own.tolist())) | {PADDING}))
            for own in self._variants
        ]
        weights = np.array([task.sampling_weight for task in episodes.tasks])[episodes.task]
        self._likely = np.cumsum(weights / weights.sum())

    def __len__(self) -> int:
        return len(self._episodes)

    def drawn(self, count: int, seed: tuple[int, ...]) -> Batch:
        """Return ``count`` frames, drawn by the tasks' weights and augmented, under any of a task's instructions."""
        random = np.random.default_rng(seed)
        frames = np.minimum(np.searchsorted(self._likely, random.random(count)), len(self._likely) - 1)
        tasks = self._episodes.task[frames]
        chosen = [int(random.integers(len(self._variants[task]))) for task in tasks]
        words = np.stack([self._variants[task][variant] for task, variant in zip(tasks, chosen, strict=True)])
        needed = np.stack([self._needed[task][variant] for task, variant in zip(tasks, chosen, strict=True)])
        return self._batch(frames, mishear(words, needed, random), random)

    def plain(self, frames: NDArray[np.int64]) -> Batch:
        """Return given frames as they were recorded."""
        return self._batch(frames, self._recorded[self._episodes.episode[frames]], None)

    def _batch(self, frames: NDArray[np.int64], words: NDArray[np.int64], random: np.random.Generator | None) -> Batch:
        episodes, action = self._episodes, self._config.action
        pictures = {
            camera: as_pictures(getattr(episodes, camera)[frames], self._config.cameras[camera], self.device)
            for camera in CAMERAS
        }
        proprioception = episodes.proprioception[frames]
        if random is not None:
            pictures, proprioception = vary(pictures, random), move(proprioception, random)
        if self._targets is None:
            recorded, mask = episodes.chunks(frames, action.horizon)
            actions = action.normalise(recorded)
        else:  # a teacher also says what it would do past the episode's end
            actions, mask = self._targets[frames], np.ones((len(frames), action.horizon), np.float32)
        scene = (episodes.scene[frames] - np.array(SCENE_CENTRE * 2, dtype=np.float32)) / np.float32(SCENE_SCALE)
        arrays = (words, proprioception, actions, mask[..., None], scene)
        return Batch(pictures, *(torch.from_numpy(array).to(self.device) for array in arrays))


def as_pictures(pictures: NDArray[np.uint8], size: int, device: torch.device) -> Tensor:
    """Turn pictures (B, H, W, 3) of bytes into (B, 3, size, size) in 0..1, averaged over areas as the policy does."""
    own = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 255.0
    return own if own.shape[-1] == size else functional.interpolate(own, (size, size), mode="area")


T = TypeVar("T")


class BatchesAhead(Generic[T]):
    """Draws the batch of each step; beside a GPU, which leaves the CPU idle, one step ahead."""

    def __init__(self, draw: Callable[[int], T], device: torch.device) -> None:
        """Draw by ``draw``, which takes a step, for a run on ``device``."""
        self._draw = draw
        self._thread = None if device.type == "cpu" else ThreadPoolExecutor(1)
        self._next: tuple[int, Future[T]] | None = None

    def take(self, step: int) -> T:
        """Return the batch of a step."""
        if self._thread is None:
            return self._draw(step)
        ready = self._next if self._next and self._next[0] == step else self._begin(self._thread, step)
        self._next = self._begin(self._thread, step + 1)
        return ready[1].result()

    def _begin(self, thread: ThreadPoolExecutor, step: int) -> tuple[int, "Future[T]"]:
        return step, thread.submit(self._draw, step)
