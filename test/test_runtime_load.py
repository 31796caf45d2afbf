"""A checkpoint and its DySL folder load together, or are refused together."""

from pathlib import Path

import numpy as np
import pytest

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import GuidanceSettings, RuntimeSettings
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint, make_tiny_dysl


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_tiny_checkpoint(tmp_path / "base")


def test_without_a_dysl_folder_a_checkpoint_loads_at_full_depth(checkpoint: Path) -> None:
    loaded = Runtime.load(str(checkpoint), "")
    assert loaded.dysl is None and loaded.description.blocks == ()


def test_a_checkpoints_own_dysl_folder_is_found(checkpoint: Path) -> None:
    make_tiny_dysl(checkpoint / "dysl", checkpoint)
    loaded = Runtime.load(str(checkpoint), "")
    assert loaded.description.static_layers == (0, 3, 5)
    loaded.warm_up()
    pictures = {camera: np.zeros((96, 96, 3), dtype=np.uint8) for camera in loaded.description.cameras}
    seen = Observation(pictures, np.zeros(4, dtype=np.float32), INSTRUCTION)
    nothing, at_once = np.zeros((0, 4), dtype=np.float32), RuntimeSettings(guidance=GuidanceSettings(warmup=0))
    assert loaded.step(seen, nothing, at_once).trace.layer_calls < 6


def test_a_named_dysl_folder_must_exist(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="DySL folder '.*nowhere' is not a folder"):
        Runtime.load(str(checkpoint), str(checkpoint / "nowhere"))


def test_a_dysl_folder_of_another_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = make_tiny_checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match="base.sha256 is .*this checkpoint's weights have"):
        Runtime.load(str(checkpoint), str(make_tiny_dysl(tmp_path / "dysl", other)))
