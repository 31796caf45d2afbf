"""Every damaged or foreign folder is refused before anything moves: the message names file, key and what to do."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, load
from safetensors.torch import load_file, save_file

from dysl_vla_ros.errors import CheckpointError, DyslVlaError, InstructionError, ObservationError, SettingError
from dysl_vla_ros.policies.lerobot import library
from dysl_vla_ros.policies.lerobot.folder import read_folder

WEIGHTS, BEFORE, BEHIND = "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"
families = pytest.mark.parametrize("family", FAMILIES)


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def statistics(folder: Path, source: str) -> Path:
    (name,) = (
        step["state_file"] for step in json.loads((folder / source).read_text())["steps"] if "state_file" in step
    )
    return folder / name


def step(folder: Path, source: str, change: Callable[[list[Any]], Any]) -> None:
    edit(folder / source, lambda values: change(values["steps"]))


def refusal(folder: Path, *parts: str, **options: Any) -> str:
    """Return why a folder is not loaded; one line that has all ``parts``."""
    with pytest.raises(DyslVlaError) as refused:
        load(folder, **options)
    text = str(refused.value)
    assert "\n" not in text and len(text) < 2500
    for part in parts:
        assert part in text, text
    return text


def last_layer(tensors: dict[str, torch.Tensor]) -> list[str]:
    return [it for it in tensors if re.search(r"(text_model|language_model|transformer)\.(layers|blocks)\.5\.", it)]


WEIGHTS_DAMAGE: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"),
        ("git-lfs pointer", "git lfs pull"),
    ),
    "missing": (lambda path: path.unlink(), ("is missing",)),
    "pickle alone": (
        lambda path: path.rename(path.with_name("pytorch_model.bin")),
        ("is missing", "pytorch_model.bin is not read: a pickle could run code"),
    ),
    "NaN": (
        lambda path: edit_tensors(path, lambda t: t[last_layer(t)[0]].view(-1)[1:2].fill_(float("nan"))),
        ("holds NaN or infinity", "s.5."),
    ),
    "a layer is missing": (
        lambda path: edit_tensors(path, lambda t: [t.pop(name) for name in last_layer(t)]),
        ("does not fit config.json", "s.5.", "issing"),
    ),
    "a tensor too many": (
        lambda path: edit_tensors(path, lambda t: t.update(other=torch.zeros(2))),
        ("does not fit config.json", "other"),
    ),
    "another shape": (
        lambda path: edit_tensors(path, lambda t: t.update({last_layer(t)[0]: torch.zeros(3)})),
        ("does not fit config.json",),
    ),
    "another family's": (
        lambda path: save_file({"encoder.weight": torch.zeros(4, 4)}, path), ("does not fit config.json",)
    ),
}  # fmt: skip


@families
@pytest.mark.parametrize("damage", WEIGHTS_DAMAGE)
def test_damaged_weights(family: str, damage: str, copied: Any) -> None:
    folder = copied(family)
    spoil, said = WEIGHTS_DAMAGE[damage]
    spoil(folder / WEIGHTS)
    refusal(folder, str(folder / WEIGHTS), *said)


@families
def test_truncated_at_any_byte(family: str, copied: Any) -> None:
    folder = copied(family)
    for path in (folder / WEIGHTS, statistics(folder, BEFORE), statistics(folder, BEHIND)):
        whole, random = path.read_bytes(), np.random.default_rng(4)
        for length in {0, 1, 8, 60, len(whole) - 1, *random.integers(0, len(whole), 12)}:
            path.write_bytes(whole[:length])
            with pytest.raises(CheckpointError, match=re.escape(str(path))):
                read_folder(folder)
        path.write_bytes(whole)
    read_folder(folder)


def bad_class(steps: list[Any], folder: Path) -> None:
    steps.append({"class": "subprocess.Popen", "config": {"args": ["touch", str(folder / "ran")]}})


STEP_DAMAGE: dict[str, tuple[Callable[[list[Any], Path], Any], str]] = {
    "any command": (bad_class, "class 'subprocess.Popen'; only steps of the names"),
    "class beside a known name": (
        lambda s, f: s[0].update({"class": "os.system"}), "steps[0] has class 'os.system'"
    ),
    "unknown name": (lambda s, f: s.append({"registry_name": "gym_hil_adapter_processor"}), "gym_hil"),
    "no name": (lambda s, f: s.append({}), "registry_name None"),
    "outside": (lambda s, f: _with_state(s).update(state_file="../other.safetensors"), "state_file is '../other"),
    "state elsewhere": (lambda s, f: _with_state(s).update(state_file="other.safetensors"), "which policy_"),
    "no normalizer": (lambda s, f: s.remove(_with_state(s)), "so that nothing would be normalised"),
    "no mode": (lambda s, f: _with_state(s)["config"].update(norm_map={}), "the mode 'None', expected IDENTITY"),
    "no statistics": (lambda s, f: _with_state(s).pop("state_file"), "no state_file, so no statistics"),
}  # fmt: skip


def _with_state(steps: list[Any]) -> Any:
    return next(step for step in steps if "state_file" in step)


@pytest.mark.parametrize("source", [BEFORE, BEHIND])
@pytest.mark.parametrize("damage", STEP_DAMAGE)
def test_a_step_that_is_not_ours_is_never_made(damage: str, source: str, copied: Any) -> None:
    folder = copied("smolvla")
    spoil, said = STEP_DAMAGE[damage]
    step(folder, source, lambda steps: spoil(steps, folder))
    refusal(folder, str(folder), source, said)
    assert not (folder / "ran").exists()


STATISTICS_DAMAGE: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "emptied": (lambda t: t.clear(), "is missing, so that"),
    "one missing": (lambda t: t.pop("action.std"), "action.std is missing"),
    "infinite": (lambda t: t["action.mean"][3:4].fill_(float("inf")), "action.mean[3] is not finite"),
    "another size": (lambda t: t.update({"action.std": torch.ones(7)}), "action.std has shape [7], expected [6]"),
}


@pytest.mark.parametrize("source", [BEFORE, BEHIND])
@pytest.mark.parametrize("damage", STATISTICS_DAMAGE)
def test_statistics_that_are_not_there(damage: str, source: str, copied: Any) -> None:
    folder = copied("smolvla")
    path = statistics(folder, source)
    spoil, said = STATISTICS_DAMAGE[damage]
    edit_tensors(path, spoil)
    refusal(folder, str(path), said)


def test_statistics_of_two_trainings(copied: Any) -> None:
    folder = copied("smolvla")
    edit_tensors(statistics(folder, BEHIND), lambda t: t["action.mean"].add_(1.0))
    refusal(folder, BEHIND, BEFORE, "they are of two trainings")


CONFIG_DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], tuple[str, ...]]] = {
    "a newer LeRobot": (
        lambda c: c.update(image_history=3), (f"lerobot {library.metadata.version('lerobot')}", "image_history", "0.7")
    ),
    "a wrong type": (lambda c: c.update(chunk_size="many"), ("chunk_size",)),
    "an impossible value": (lambda c: c.update(n_action_steps=99), ("99",)),
    "unknown policy": (lambda c: c.update(type="act"), ("unknown type 'act'", "smolvla")),
    "no state": (lambda c: c["input_features"].pop("observation.state"), ("observation.state is missing",)),
    "no camera": (
        lambda c: [c["input_features"].pop(name) for name in list(c["input_features"]) if "images" in name],
        ("has no camera",),
    ),
    "padded cameras": (lambda c: c.update(empty_cameras=1), ("empty_cameras is 1", "never replaced")),
    "deeper than its weights": (
        lambda c: c.update(num_vlm_layers=3), ("does not fit config.json", "not of this model")
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", CONFIG_DAMAGE)
def test_a_configuration_that_cannot_be(damage: str, copied: Any) -> None:
    folder = copied("smolvla")
    spoil, said = CONFIG_DAMAGE[damage]
    edit(folder / "config.json", spoil)
    refusal(folder, str(folder), *said)


def test_a_lora_adapter_alone(copied: Any) -> None:
    folder = copied("smolvla")
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    refusal(folder, "LoRA adapter alone", "merge_and_unload")


def test_a_folder_from_before_processors(copied: Any) -> None:
    folder = copied("smolvla")
    for path in folder.glob("policy_*"):
        path.unlink()
    refusal(folder, "before LeRobot had processors", f"--pretrained-path {folder}")


@pytest.mark.parametrize("version", ["0.5.1", "0.6.0", "0.7.0", "1.0"])
def test_a_lerobot_that_was_not_tested(version: str, written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.metadata, "version", lambda name: version)
    refusal(written("smolvla"), f"lerobot {version}", "lerobot>=0.6.1,<0.7", sys.executable)


def test_what_the_hub_has_and_this_machine_has_not(copied: Any, tmp_path: Path) -> None:
    folder = copied("smolvla")
    edit(folder / "config.json", lambda c: c.update(vlm_model_name="nobody/nothing"))
    refusal(folder, "vlm_model_name", "model.tokenizer", "HF_HOME")
    refusal(folder, "model.tokenizer", "is not a folder", tokenizer=str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    refusal(folder, "has no config.json", tokenizer=str(tmp_path / "empty"))


@families
def test_not_enough_memory(family: str, written: Any, loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, kind = written(family), type(loaded(family).policy)

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("tried to allocate 14.00 GiB")

    monkeypatch.setattr(kind, "__init__", full)
    refusal(folder, "out of memory on cpu", "14.00 GiB", str(folder / WEIGHTS))


def test_observations_and_instructions_that_cannot_be_used(written: Any, loaded: Any) -> None:
    from dataclasses import replace

    from families import observation

    policy = loaded("smolvla")
    with pytest.raises(ObservationError, match=r"no picture of observation\.images\.top"):
        policy.prepare([replace(observation(), images={"observation.images.wrist": np.zeros((4, 4, 3), np.uint8)})])
    for values in (np.zeros(5, np.float32), np.full(6, np.nan, np.float32)):
        with pytest.raises(ObservationError, match="must be 6 finite values: pan, lift"):
            policy.prepare([replace(observation(), proprioception=values)])
    with pytest.raises(InstructionError, match="empty"):
        policy.prepare([replace(observation(), instruction=" ")])
    with pytest.raises(SettingError, match="float32 or bfloat16"):
        load(written("smolvla"), dtype=torch.float16)
