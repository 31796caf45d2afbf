"""A LeRobotDataset folder (v3) as observations of a policy: read by LeRobot itself, where its ``dataset`` extra is.

State and pictures are the recording's own, in the units that the checkpoint was trained in: nothing is converted.
"""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import Observation, PolicyDescription

INFO = Path("meta") / "info.json"
VERSION = "v3."  # of the folder's layout, up to the number that may change
STATE = "observation.state"
INSTALL = "pip install 'lerobot[dataset]>=0.6.1,<0.7'"
UPGRADE = "python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id NAME --root {folder} --push-to-hub false"


class Stretch(NamedTuple):
    """Frames of one episode with one instruction."""

    instruction: str
    start: int  # row of the first frame
    end: int  # one past the last


def is_dataset(folder: Path) -> bool:
    """Tell whether a folder is a LeRobotDataset, of whichever version."""
    return (folder / INFO).is_file()


def read_info(folder: Path) -> dict[str, Any]:
    """Return what the folder says of itself. Imports nothing of LeRobot's.

    Raises:
        DataError: it cannot be read, or has another version's layout.
    """
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / INFO} cannot be read: {error}; get the folder again") from error
    version = str(info.get("codebase_version", "") if isinstance(info, dict) else "")
    if not version.startswith(VERSION):
        upgrade = f": make it a v3 one with LeRobot's `{UPGRADE.format(folder=folder)}`" if version < VERSION else ""
        raise DataError(f"{folder / INFO}: codebase_version is {version!r:.20}, this version reads v3.x{upgrade}")
    assert isinstance(info, dict), "it has a version"
    return info


def meaning_faults(
    info: Mapping[str, Any], description: PolicyDescription, keys: Mapping[str, str], folder: Path
) -> list[str]:
    """Return what of a folder does not fit a policy; ``keys``: camera -> the folder's name of it."""
    features = info.get("features")
    if not isinstance(features, dict):
        return [f"{folder / INFO} has no features"]
    there = [name for name, own in features.items() if isinstance(own, dict) and own.get("dtype") in ("image", "video")]
    faults = [
        f"it has no pictures {key}" + (f" for {camera}" if key != camera else "") + f"; there are "
        f"{', '.join(there) or 'none'}: say which with --topic {camera}:=NAME"
        for camera, key in keys.items()
        if key not in there
    ]
    wanted = len(description.proprioception.names)
    shape = list(features.get(STATE, {}).get("shape", []))
    if shape != [wanted]:
        faults.append(f"{STATE} has shape {shape}, this policy's has {wanted} values")
    fps, step = info.get("fps"), description.action.time_step
    if not isinstance(fps, int | float) or not fps > 0 or not math.isclose(1.0 / fps, step, rel_tol=0.01):
        faults.append(f"fps is {fps!r}, and robot.action.time_step is {step:g} s: it must be 1 / fps")
    return faults


class LeRobotFrames:
    """The frames of a folder."""

    def __init__(self, folder: Path, description: PolicyDescription, remapped: Mapping[str, str]) -> None:
        """Open a folder for a policy; ``remapped``: camera -> the folder's name of it, where they differ.

        Raises:
            DataError: the extra is not installed, or the folder cannot serve; says why.
        """
        info = read_info(folder)
        self._keys = {camera: remapped.get(camera, camera) for camera in description.cameras}
        if faults := meaning_faults(info, description, self._keys, folder):
            raise DataError(f"{folder} cannot serve: {'; '.join(faults)}")
        try:
            from lerobot.datasets.lerobot_dataset import LeRobotDataset
        except ImportError as error:
            raise DataError(
                f"{folder} is a LeRobotDataset, which {sys.executable} cannot read ({_line(error)}): install LeRobot's "
                f"dataset extra there ({INSTALL}), or record bags"
            ) from error
        try:
            self._frames: Any = LeRobotDataset("local/folder", folder, return_uint8=True)
            table = self._frames.hf_dataset.data
            self._episodes, self._tasks = (table.column(name).to_numpy() for name in ("episode_index", "task_index"))
            self._texts = [str(text) for text in self._frames.meta.tasks.index]
            self._numbers = self._frames.meta.tasks["task_index"].tolist()
        except Exception as error:  # whatever the library has against it
            raise DataError(f"{folder} cannot be read by LeRobot: {_line(error)}") from error
        self._folder = folder

    def stretches(self) -> list[Stretch]:
        """Return every episode, cut where its instruction changes."""
        texts = dict(zip(self._numbers, self._texts, strict=True))
        changes = np.flatnonzero((np.diff(self._episodes) != 0) | (np.diff(self._tasks) != 0)) + 1
        borders = [0, *changes.tolist(), len(self._episodes)]
        return [
            Stretch(texts[int(self._tasks[start])], start, end)
            for start, end in zip(borders, borders[1:], strict=False)
            if end > start
        ]

    def __getitem__(self, row: int) -> Observation:
        """Return a frame as the policy sees it.

        Raises:
            DataError: it cannot be decoded, or its state is not finite.
        """
        try:
            item = self._frames[row]
        except Exception as error:
            raise DataError(f"{self._folder}: frame {row} cannot be read: {_line(error)}") from error
        state = np.asarray(item[STATE], np.float32)
        if not np.isfinite(state).all():
            raise DataError(f"{self._folder}: {STATE} of frame {row} is not finite")
        images = {camera: _picture(np.asarray(item[key])) for camera, key in self._keys.items()}
        return Observation(images, state, str(item["task"]))


def _picture(values: np.ndarray) -> np.ndarray:
    """Return (3, height, width), bytes or 0.0 to 1.0, as (height, width, 3) bytes."""
    rows = values.transpose(1, 2, 0)
    return np.ascontiguousarray(rows if rows.dtype == np.uint8 else np.rint(rows * 255.0).astype(np.uint8))


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
