"""Recorded episodes in memory: pictures as bytes, chunks of actions cut out by index."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.policies.reference import ReferenceConfig, encode_words
from dysl_vla_ros.simulation.tasks import Task

VALIDATION_EPISODES = 4  # the last ones of each task


@dataclass(frozen=True)
class Episodes:
    """All frames of all episodes, one after the other. N frames."""

    image: NDArray[np.uint8]  # (N, 96, 96, 3)
    wrist_image: NDArray[np.uint8]  # (N, 48, 48, 3): averaged to what the policy takes
    proprioception: NDArray[np.float32]  # (N, P)
    action: NDArray[np.float32]  # (N, A) physical units
    scene: NDArray[np.float32]  # (N, 6) m: object and goal
    task: NDArray[np.int64]  # (N,) index into ``tasks``
    end: NDArray[np.int64]  # (N,) one past the last frame of this frame's episode
    tasks: tuple[Task, ...]

    def __len__(self) -> int:
        return len(self.task)

    def chunks(self, frames: NDArray[np.int64], horizon: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the actions (B, H, A) from each frame on, and a mask (B, H): 0 past the episode's end."""
        index = frames[:, None] + np.arange(horizon)
        mask = index < self.end[frames][:, None]
        return self.action[np.minimum(index, len(self) - 1)], mask.astype(np.float32)


def load_episodes(folder: Path, tasks: Sequence[Task], *, validation: bool = False, quiet: bool = False) -> Episodes:
    """Read the episodes that ``dysl_vla demonstrations`` wrote.

    Raises:
        DataError: a task has none, or a file is damaged.
    """
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("image", "wrist_image", "proprioception", "action", "scene", "task", "end")
    }
    total = 0
    for number, task in enumerate(tasks):
        paths = sorted((folder / task.name).glob("[0-9]*.npz"))
        if len(paths) <= VALIDATION_EPISODES:
            raise DataError(
                f"{folder / task.name} has {len(paths)} episodes, more than {VALIDATION_EPISODES} are needed; "
                f"run `dysl_vla demonstrations {folder} --tasks {task.name}`"
            )
        paths = paths[-VALIDATION_EPISODES:] if validation else paths[:-VALIDATION_EPISODES]
        for path in tqdm(paths, desc=f"reading {task.name}", unit="episode", disable=quiet, leave=False):
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    episode = {name: arrays[name] for name in columns if name not in ("task", "end")}
            except (OSError, ValueError, KeyError, BadZipFile) as error:
                raise DataError(f"{path} cannot be read: {error}; delete it and record again") from error
            length = len(episode["action"])
            total += length
            wrist = episode["wrist_image"].reshape(length, 48, 2, 48, 2, 3).mean((2, 4))
            episode["wrist_image"] = np.round(wrist).astype(np.uint8)
            episode["task"] = np.full(length, number)
            episode["end"] = np.full(length, total)
            for name, column in columns.items():
                column.append(episode[name])
    return Episodes(**{name: np.concatenate(column) for name, column in columns.items()}, tasks=tuple(tasks))


def as_pictures(pictures: NDArray[np.uint8]) -> Tensor:
    """Turn pictures (B, S, S, 3) of bytes into (B, 3, S, S) in 0..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255.0


def shift(pictures: Tensor, most: int, random: np.random.Generator) -> Tensor:
    """Shift each picture by up to ``most`` pixels, its edge repeated: the camera is never mounted quite the same."""
    size = pictures.shape[-1]
    padded = functional.pad(pictures, (most,) * 4, mode="replicate")
    offsets = random.integers(0, 2 * most + 1, (len(pictures), 2))
    return torch.stack([p[:, y : y + size, x : x + size] for p, (y, x) in zip(padded, offsets, strict=True)])


def batch(
    episodes: Episodes,
    frames: NDArray[np.int64],
    config: ReferenceConfig,
    random: np.random.Generator | None = None,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return pictures, words (B, W) and proprioception (B, P) of some frames; augmented where ``random`` is given.

    Augmentation: shifts (4 px and 2 px), brightness from 0.8 to 1.2, 3 mm of noise on the position, any of the
    task's instructions. Without it the canonical instruction.
    """
    pictures = {"image": as_pictures(episodes.image[frames]), "wrist_image": as_pictures(episodes.wrist_image[frames])}
    proprioception = episodes.proprioception[frames].copy()
    variants = np.zeros(len(frames), dtype=np.int64)
    if random is not None:
        gain = torch.from_numpy(random.uniform(0.8, 1.2, (len(frames), 1, 1, 1)).astype(np.float32))
        pictures = {
            "image": shift(pictures["image"] * gain, 4, random),
            "wrist_image": shift(pictures["wrist_image"] * gain, 2, random),
        }
        proprioception[:, :3] += random.normal(0.0, 0.003, (len(frames), 3)).astype(np.float32)
        variants = random.integers(0, 1 << 16, len(frames))
    texts = [episodes.tasks[task].instructions for task in episodes.task[frames]]
    words = [encode_words(text[variant % len(text)], config) for text, variant in zip(texts, variants, strict=True)]
    return pictures, torch.tensor(words), torch.from_numpy(proprioception)


def observations(episodes: Episodes, count: int, seed: int = 0) -> Iterator[Observation]:
    """Yield ``count`` frames (all, if there are fewer) as observations, under any of the task's instructions."""
    random = np.random.default_rng(seed)
    for frame in random.permutation(len(episodes))[:count]:
        texts = episodes.tasks[episodes.task[frame]].instructions
        yield Observation(
            images={"image": episodes.image[frame], "wrist_image": episodes.wrist_image[frame]},
            proprioception=episodes.proprioception[frame],
            instruction=texts[int(random.integers(len(texts)))],
        )
