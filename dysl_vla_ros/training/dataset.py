"""Recorded episodes: pictures mapped from their files, all else in memory, chunks of actions cut out by index."""

import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.runs.training_data import draw_evenly
from dysl_vla_ros.simulation.tasks import Task, require_learnable

VALIDATION_EPISODES = 4  # the last ones of each task; of the board, where tasks are many, ...
BOARD_VALIDATION_EPISODES = 1  # ... the last one
CORRECTED = "corrected-"  # begins the names of episodes in which a policy took turns; none is for validation
CAMERAS = ("image", "wrist_image")
ARRAYS = ("proprioception", "action", "scene")


class Pictures:
    """One camera's pictures of all episodes. They stay in their files, mapped: training processes share the memory."""

    def __init__(self, episodes: Sequence[NDArray[np.uint8]]) -> None:
        self._episodes = episodes  # (T, S, S, 3) each
        self._starts = np.cumsum([0, *(len(episode) for episode in episodes)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the pictures (B, S, S, 3) of some frames (B,)."""
        numbers = np.searchsorted(self._starts, frames, side="right") - 1
        inside = frames - self._starts[numbers]
        return np.stack([self._episodes[n][i] for n, i in zip(numbers, inside, strict=True)])


@dataclass(frozen=True)
class Episodes:
    """All frames of all episodes, one after the other. N frames, E episodes."""

    image: Pictures  # N of (96, 96, 3)
    wrist_image: Pictures  # N of (96, 96, 3)
    proprioception: NDArray[np.float32]  # (N, P)
    action: NDArray[np.float32]  # (N, A) physical units
    scene: NDArray[np.float32]  # (N, 6) m: object and goal
    task: NDArray[np.int64]  # (N,) index into ``tasks``
    episode: NDArray[np.int64]  # (N,) 0 .. E-1
    end: NDArray[np.int64]  # (N,) one past the last frame of this frame's episode
    instructions: tuple[str, ...]  # (E,) under which it was recorded
    tasks: tuple[Task, ...]

    def __len__(self) -> int:
        return len(self.task)

    def chunks(self, frames: NDArray[np.int64], horizon: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the actions (B, H, A) from each frame on, and a mask (B, H): 0 past the episode's end."""
        index = frames[:, None] + np.arange(horizon)
        mask = index < self.end[frames][:, None]
        return self.action[np.minimum(index, len(self) - 1)], mask.astype(np.float32)


def load_episodes(folder: Path, tasks: Sequence[Task], *, validation: bool = False, quiet: bool = False) -> Episodes:
    """Open the episodes that ``dysl_vla demonstrations`` wrote.

    Raises:
        DataError: a task has none or is held out, or a file is damaged.
    """
    require_learnable(tasks)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in (*CAMERAS, *ARRAYS, "task", "episode", "end")}
    instructions: list[str] = []
    total = 0
    for number, task in enumerate(tasks):
        paths = demonstration_paths(folder, task, validation=validation)
        for path in tqdm(paths, desc=f"reading {task.name}", unit="episode", disable=quiet, leave=False):
            with readable(path):
                episode = mapped(path, (*CAMERAS, *ARRAYS, "instruction"))  # their sizes are right, then
                with np.load(path, allow_pickle=False) as file:  # and their checksums are
                    episode |= {name: file[name] for name in ARRAYS}
                    said = str(file["instruction"])
                del episode["instruction"]
            length = len(episode["action"])
            total += length
            episode["task"] = np.full(length, number)
            episode["episode"] = np.full(length, len(instructions))
            episode["end"] = np.full(length, total)
            instructions.append(said)
            for name, column in columns.items():
                column.append(episode[name])
    pictures = {name: Pictures(columns.pop(name)) for name in CAMERAS}
    arrays = {name: np.concatenate(column) for name, column in columns.items()}
    return Episodes(
        **pictures,  # type: ignore[arg-type]  # the names are the fields'
        **arrays,  # type: ignore[arg-type]
        instructions=tuple(instructions),
        tasks=tuple(tasks),
    )


def demonstration_paths(folder: Path, task: Task, *, validation: bool = False) -> list[Path]:
    """Return the files of a task's episodes to learn from, corrected ones last, or of those for ``validation``.

    Raises:
        DataError: as :func:`episode_paths`.
    """
    paths, kept = episode_paths(folder, task), validation_episodes(task)
    if validation:
        return paths[-kept:]
    return paths[:-kept] + sorted((folder / task.name).glob(f"{CORRECTED}*.npz"))


def validation_episodes(task: Task) -> int:
    """Return how many of a task's episodes, its last ones, are not learned from."""
    return BOARD_VALIDATION_EPISODES if task.chain else VALIDATION_EPISODES


def episode_paths(folder: Path, task: Task) -> list[Path]:
    """Return the files of a task's episodes, in the order of their seeds.

    Raises:
        DataError: there are none, or too few to keep some for validation.
    """
    paths = sorted((folder / task.name).glob("[0-9]*.npz"))
    if len(paths) <= validation_episodes(task):
        raise DataError(
            f"{folder / task.name} has {len(paths)} episodes, more than {validation_episodes(task)} are needed; "
            f"run `dysl_vla demonstrations {folder} --tasks {task.name}`"
        )
    return paths


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say of an episode that cannot be read which it is and what to do.

    Raises:
        DataError: its file is damaged, or lacks something.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, BadZipFile, struct.error, MemoryError, OverflowError) as error:
        raise DataError(f"{path} cannot be read: {error}; delete it and record again") from error


def mapped(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Map arrays of an uncompressed .npz into memory, read-only, without reading them.

    Raises:
        BadZipFile, KeyError, OSError, ValueError: the file is damaged, compressed, or lacks a name.
    """
    found: dict[str, np.ndarray] = {}
    with ZipFile(path) as archive, path.open("rb") as source:
        for name in names:
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type != ZIP_STORED:
                raise ValueError(f"{name} is compressed")
            source.seek(member.header_offset)
            name_length, extra_length = struct.unpack("<26xHH", source.read(30))
            begin = source.seek(name_length + extra_length, 1)
            if np.lib.format.read_magic(source) != (1, 0):
                raise ValueError(f"{name} has another version of the .npy format")
            shape, _, kind = np.lib.format.read_array_header_1_0(source)
            needed, there = math.prod(shape) * kind.itemsize, member.file_size - (source.tell() - begin)
            if kind.hasobject or needed != there:
                raise ValueError(f"{name} says that it is {shape} of {kind}, {needed} bytes; {there} are there")
            found[name] = np.asarray(np.memmap(path, kind, "r", source.tell(), shape))
    return found


def observations(episodes: Episodes, count: int, seed: int = 0) -> Iterator[Observation]:
    """Yield up to ``count`` frames, as many of each task while they last, each under its episode's instruction."""
    return (_observation(episodes, int(frame)) for frame in draw_evenly(episodes.task, count, seed))


def observations_in_order(
    episodes: Episodes, count: int, seed: int = 0
) -> tuple[Iterator[Observation], tuple[bool, ...]]:
    """Return about ``count`` frames of whole episodes, as many of each task, and whether each begins an episode."""
    firsts = np.flatnonzero(np.diff(episodes.episode, prepend=-1))
    drawn = firsts[draw_evenly(episodes.task[firsts], len(firsts), seed)]
    lengths = episodes.end[drawn] - drawn
    kept = int(np.searchsorted(np.cumsum(lengths), count)) + 1
    frames = [np.arange(first, episodes.end[first]) for first in drawn[:kept]]
    begins = tuple(bool(place == 0) for own in frames for place in range(len(own)))
    return (_observation(episodes, int(frame)) for own in frames for frame in own), begins


def _observation(episodes: Episodes, frame: int) -> Observation:
    return Observation(
        images={camera: getattr(episodes, camera)[np.array([frame])][0] for camera in CAMERAS},
        proprioception=episodes.proprioception[frame],
        instruction=episodes.instructions[episodes.episode[frame]],
    )
