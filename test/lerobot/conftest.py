"""Tiny random checkpoints of the families that LeRobot hosts, each written once."""

# ruff: noqa: E402
import gc

gc.disable()  # of 13 s of imports it takes 2

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, load

gc.freeze()
gc.enable()


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


@pytest.fixture(scope="session")
def loaded(written: Callable[[str], Path]) -> Callable[..., Any]:
    """Return what gives a family's policy, each loaded once: for tests that look at it and leave it as it is."""

    @cache
    def once(family: str, dtype: torch.dtype) -> Any:
        return load(written(family), dtype=dtype)

    return lambda family, dtype=torch.float32: once(family, dtype)


@pytest.fixture
def copied(written: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return what gives a copy of a family's checkpoint, to be damaged."""

    def copy(family: str) -> Path:
        return Path(shutil.copytree(written(family), tmp_path / "copy"))

    return copy
