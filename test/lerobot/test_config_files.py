"""The parameter files for LeRobot's policies in config/ drive checkpoints with their cameras."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import load, observation

from dysl_vla_ros.control.chunk_time import require_playable
from dysl_vla_ros.control.contract import contract_faults
from dysl_vla_ros.params_file import read_params_file
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import FULL_DEPTH

CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.parametrize(("name", "family"), [("smolvla_so101", "smolvla"), ("pi05_so101", "pi05")])
def test_it_says_all_that_such_a_checkpoint_lacks(name: str, family: str, copied: Any) -> None:
    folder = copied(family)
    said = read_params_file(CONFIG / f"{name}.yaml")
    config = folder / "config.json"
    config.write_text(config.read_text().replace("observation.images.top", "observation.images.front"))
    described = json.loads(config.read_text())
    described["chunk_size"] = described["n_action_steps"] = 50  # as people train them
    config.write_text(json.dumps(described))
    runtime = Runtime(load(folder, said.robot), None)
    assert contract_faults(said.robot, runtime.description) == []
    require_playable(said.control, runtime.policy.action)
    seen = observation()
    images = {key: seen.images[key.replace("front", "top")] for key in runtime.policy.cameras}
    chunk = runtime.step(replace(seen, images=images), np.zeros((0, 6)), FULL_DEPTH).chunk
    assert chunk.actions.shape == (50, 6) and said.control.actions_per_inference <= 50
