"""A folder of LeRobot's where there is no LeRobot: it is explained, and refused with what to do."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.doctor.checks.checkpoint import base
from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.policies.lerobot.explanation import explain
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.policy_options import PolicyOptions

WITHOUT = pytest.mark.skipif(
    importlib.util.find_spec("lerobot") is not None and importlib.util.find_spec("lerobot").origin is not None,  # type: ignore[union-attr]
    reason="this Python has LeRobot",
)


def step(name: str, features: tuple[str, ...]) -> dict[str, Any]:
    return {
        "registry_name": name, "config": {"norm_map": {"STATE": "MEAN_STD", "ACTION": "QUANTILES"}},
        "state_file": f"{name}.safetensors",
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder in the layout of a SmolVLA: two streams of five layers, of one projection each."""
    path = tmp_path / "smolvla"
    path.mkdir()
    features = {
        "observation.state": {"type": "STATE", "shape": [6]},
        "observation.images.top": {"type": "VISUAL", "shape": [3, 48, 64]},
    }
    config = {
        "type": "smolvla", "input_features": features, "output_features": {"action": {"type": "ACTION", "shape": [7]}},
        "chunk_size": 50, "num_steps": 10,
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))
    weights = {"model.state_proj.weight": torch.zeros(32, 6)}
    for layer in range(5):
        prefix = "model.vlm_with_expert"
        weights[f"{prefix}.vlm.model.text_model.layers.{layer}.self_attn.q_proj.weight"] = torch.zeros(16, 32)
        weights[f"{prefix}.lm_expert.layers.{layer}.self_attn.q_proj.weight"] = torch.zeros(16, 24)
    save_file(weights, path / "model.safetensors")
    action = {"action.q01": torch.zeros(7), "action.q99": torch.ones(7)}
    state = {"observation.state.mean": torch.zeros(6), "observation.state.std": torch.ones(6)}
    for name, normalizer, tensors in (
        ("policy_preprocessor", "normalizer_processor", state | action),
        ("policy_postprocessor", "unnormalizer_processor", action),
    ):
        (path / f"{name}.json").write_text(json.dumps({"steps": [step(normalizer, ())]}))
        save_file(tensors, path / f"{normalizer}.safetensors")
    return path


def test_layers_streams_and_what_is_lacking_are_told_from_the_files_alone(folder: Path) -> None:
    found = explain(folder)
    assert found["layers"] == {"total": 5, "skippable": 3}
    assert found["streams"] == [
        {"name": "stack", "layers": 5, "width": 32, "passes": 1},
        {"name": "expert", "layers": 5, "width": 24, "passes": 10},
    ]
    assert found["parts"] == {"stack": 5 * 16 * 32, "expert": 5 * 16 * 24, "other": 32 * 6}
    assert found["state"] == {"values": 6, "normalised": "MEAN_STD"}
    assert found["action"] == {"values": 7, "horizon": 50, "normalised": "QUANTILES"}
    assert found["contract"].count('"..."') == 2 * 6 + 2 * 7
    assert "observation.images.top: ...\n" in found["contract"]


def test_inspect_prints_it_and_other_verbs_say_what_reads_such_a_folder(folder: Path, capsys: Any) -> None:
    assert main(["inspect", str(folder)]) == 0
    printed = capsys.readouterr().out
    for part in (
        "smolvla of LeRobot's",
        "5, of which 3 may be skipped",
        "10 flow steps",
        "time_step: ...",
        "QUANTILES",
    ):
        assert part in printed
    assert main(["inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["family"] == "smolvla"
    assert main(["floors", str(folder), str(folder), "--out", str(folder.parent / "out")]) == 2
    assert "a checkpoint of LeRobot's (type 'smolvla')" in capsys.readouterr().err
    assert main(["calibrate", str(folder), str(folder)]) == 2
    assert "name the node's parameter file with --params" in capsys.readouterr().err
    (folder / "policy_postprocessor.json").unlink()
    assert main(["inspect", str(folder)]) == 2
    assert str(folder / "policy_postprocessor.json") in capsys.readouterr().err


def test_the_doctor_looks_at_it_as_the_worker_does(folder: Path) -> None:
    (finding,) = base(SimpleNamespace(checkpoint=folder))  # type: ignore[arg-type]
    assert "smolvla of LeRobot's, 6 files that fit each other" in finding.text
    (folder / "normalizer_processor.safetensors").write_bytes(b"")
    (finding,) = base(SimpleNamespace(checkpoint=folder))  # type: ignore[arg-type]
    assert str(folder / "normalizer_processor.safetensors") in finding.text


def test_weights_of_another_hash_than_was_said_are_refused_before_the_library_sees_them(folder: Path) -> None:
    own = explain(folder)["weights_hash"]
    with pytest.raises(CheckpointError, match=f"model.safetensors: its weights have the SHA-256 {own}, model.sha256"):
        load_policy(folder, options=PolicyOptions(sha256="0" * 64))


@WITHOUT
def test_a_python_without_lerobot_is_named_with_what_to_install(folder: Path) -> None:
    with pytest.raises(CheckpointError) as refused:
        load_policy(folder)
    for part in (str(folder), sys.executable, "has no lerobot", "model.python", "pip install 'lerobot["):
        assert part in str(refused.value)
    assert "this Python has no lerobot" in explain(folder)["refused"][0]
