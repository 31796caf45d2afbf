"""How long configure waits for the worker: as the user says, else by whose checkpoint it is."""

import json
from pathlib import Path

import pytest

from dysl_vla_ros.load_limit import FOREIGN, OWN, load_limit
from dysl_vla_ros.settings import ModelSettings
from dysl_vla_ros.worker.client import WorkerSpec

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"type": "smolvla"}, FOREIGN),
        ({"model_type": "openvla"}, FOREIGN),
        ({"format_version": 1, "family": "reference", "type": "a word of ours"}, OWN),
        ({}, OWN),
    ],
)
def test_another_projects_checkpoint_is_given_more_time(config: object, limit: float, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert WorkerSpec.from_settings(ModelSettings(checkpoint=str(tmp_path))).load_timeout == limit
    assert load_limit(ModelSettings(checkpoint=str(tmp_path), load_timeout=5.0)) == 5.0, "what is said holds"


@pytest.mark.parametrize("damage", ["absent", "no JSON", "no object", "a folder"])
def test_what_cannot_be_read_has_the_usual_time(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    if damage == "a folder":
        path.mkdir()
    elif damage != "absent":
        path.write_text("[]" if damage == "no object" else "{")
    assert load_limit(ModelSettings(checkpoint=str(tmp_path))) == OWN


def test_the_shipped_checkpoint_is_our_own() -> None:
    assert load_limit(ModelSettings(checkpoint=str(ROOT / "checkpoints" / "reference"))) == OWN
