"""Tiny random checkpoints of the families that LeRobot hosts, each written once."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from families import FAMILIES


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what gives a family's checkpoint; ``hub`` beside it is what its files name."""

    @cache
    def write(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        FAMILIES[family].write_hub(folder / "hub")
        FAMILIES[family].write(folder / "checkpoint", folder / "hub")
        return folder / "checkpoint"

    return write


@pytest.fixture
def copied(written: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return what gives a copy of a family's checkpoint, to be damaged."""

    def copy(family: str) -> Path:
        return Path(shutil.copytree(written(family), tmp_path / "copy"))

    return copy
