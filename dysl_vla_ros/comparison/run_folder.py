"""The folder of one comparison: what is compared, and one file a finished episode, so that a run can be resumed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dysl_vla_ros.comparison.episode_figures import EpisodeFigures
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.files import require_writable, write_json, write_text

SETTINGS, MATCHED, EPISODES = "settings.json", "matched.json", "episodes"


class RunFolder:
    """``settings.json`` says what is compared, ``matched.json`` what was set from calibration scenes, ``episodes/``
    holds what was played.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Begin a run with these settings (plain values), or go on with one.

        Raises:
            DataError: the folder cannot be written to, holds something else, or a run with other settings.
        """
        require_writable(self.path)
        path = self.path / SETTINGS
        settings = json.loads(json.dumps(settings))
        if not path.exists():
            if (self.path / EPISODES).exists():
                raise DataError(f"{self.path} holds episodes but no {SETTINGS}; name another folder by --out")
            write_json(path, settings)
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}; name another folder by --out") from error
        differences = [f"{name} was {old}, now {new}" for name, old, new in _differences(found, settings)]
        if differences:
            raise DataError(
                f"{self.path} holds a run with other settings: {'; '.join(differences)}; "
                "name another folder by --out, or delete this one"
            )

    def matched(self) -> dict[str, Any]:
        """Return what was set so far; empty where nothing was."""
        path = self.path / MATCHED
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def keep_matched(self, values: Mapping[str, Any]) -> None:
        """Keep what was set."""
        write_json(self.path / MATCHED, dict(values))

    def read(self, method: str, task: str, seed: int) -> EpisodeFigures | None:
        """Return a finished episode; None where it is not there or was cut off by a fault of the disk."""
        try:
            return EpisodeFigures.from_json(json.loads(self._path(method, task, seed).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, figures: EpisodeFigures) -> None:
        """Keep a finished episode, whole or not at all."""
        path = self._path(figures.method, figures.task, figures.seed)
        write_text(path, json.dumps(figures.to_json(), allow_nan=False) + "\n")

    def _path(self, method: str, task: str, seed: int) -> Path:
        return self.path / EPISODES / method / f"{task}-{seed}.json"


def _differences(old: Any, new: Any, name: str = "") -> list[tuple[str, str, str]]:
    """Return (name, old, new) of every value that differs, nested ones by their dotted names."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(key for key in new if key not in old)]
        return [
            found
            for key in names
            for found in _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
        ]
    return [] if old == new else [(name, json.dumps(old), json.dumps(new))]
