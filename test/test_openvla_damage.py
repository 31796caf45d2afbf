"""An OpenVLA-OFT folder that is broken in any way: refused before anything is loaded, by file and key, with the fix."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.params_file import read_params_file
from dysl_vla_ros.policies.openvla import weights
from dysl_vla_ros.policies.registry import load_policy
from effort import examples
from tiny_bag import write_tiny_bag
from tiny_openvla import DATA_SET, HEAD, PROJECTOR, STATE_NAMES, changed, convert, said, statistics, write_tiny_openvla

FIRST, SECOND = (f"model-{number:05d}-of-00002.safetensors" for number in (1, 2))
INDEX = "model.safetensors.index.json"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4665a5\nsize 2932\n"
NORM = "language_model.model.norm.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(write_tiny_openvla(tmp_path_factory.mktemp("openvla") / "whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "checkpoint")


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a parameter file that says what no file of the checkpoint does."""
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    lists = [json.dumps(values) for values in (list(STATE_NAMES), ["rad"] * 7 + ["1"])]
    path.write_text(
        "/**/dysl_vla:\n  ros__parameters:\n    model: {horizon: 4, bounds: q99}\n    robot:\n"
        "      cameras: {full_image: /full_image, wrist_image: /wrist_image}\n"
        f"      state: {{names: {lists[0]}, units: {lists[1]}}}\n"
        "      action: {kind: end_effector_delta, time_step: 0.1}\n"
    )
    return path


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_policy(folder, options=said())
    return str(caught.value)


def tensors(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        own = load_file(path)
        change(own)
        save_file(own, path)

    return apply


def bad_number(value: float) -> Callable[[Path], None]:
    def change(own: dict[str, Any]) -> None:
        own[sorted(own)[0]].view(-1)[-1] = value

    return tensors(change)


def renamed(before: str, after: str) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        tensors(lambda own: own.update({after: own.pop(before)}))(path)
        index = json.loads((path.parent / INDEX).read_text())
        index["weight_map"][after] = index["weight_map"].pop(before)
        (path.parent / INDEX).write_text(json.dumps(index))

    return apply


def data_set(part: str, **change: Any) -> Callable[[Path], None]:
    own = statistics()
    return lambda path: changed(path, {DATA_SET: own | {part: own[part] | change}})


def text_config(**change: Any) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        changed(path, {"text_config": json.loads(path.read_text())["text_config"] | change})

    return apply


def replaced(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


FLOAT = (float("nan"), float("inf"))
DAMAGE: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "no config": ("config.json", Path.unlink, "has no config.json"),
    "config is no JSON": ("config.json", replaced(b"{"), "cannot be read"),
    "another backbone": ("config.json", lambda p: changed(p, {"vision_backbone_id": "siglip"}), "vision_backbone_id"),
    "no text_config": ("config.json", lambda p: changed(p, {"text_config": 3}), "text_config is 3"),
    "other layers": ("config.json", text_config(num_hidden_layers=9), "num_hidden_layers is 9, the weights have 8"),
    "endless layers": ("config.json", text_config(num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    "other width": ("config.json", text_config(hidden_size=64), "expected (64"),
    "odd heads": ("config.json", text_config(num_attention_heads=3), "heads"),
    "another activation": ("config.json", text_config(hidden_act="gelu"), "hidden_act is 'gelu'"),
    "stretched places": ("config.json", text_config(rope_scaling={"type": "linear"}), "rope_scaling"),
    "no index": (INDEX, Path.unlink, "no merged weights"),
    "index leads out": (INDEX, lambda p: changed(p, {"weight_map": {"a": "../x.safetensors"}}), "the folder itself"),
    "index names a pickle": (INDEX, lambda p: changed(p, {"weight_map": {"a": "x.bin"}}), "expected a .safetensors"),
    "a shard is missing": (SECOND, Path.unlink, "is missing"),
    "a pointer": (FIRST, replaced(LFS), "git-lfs pointer"),
    "a pickle by that name": (FIRST, replaced(b"PK\x03\x04" * 20), "a pickle or zip"),
    "NaN": (SECOND, bad_number(FLOAT[0]), "holds NaN or infinity"),
    "infinity in the head": (f"{HEAD}.safetensors", bad_number(FLOAT[1]), "holds NaN or infinity"),
    "a tensor less": (SECOND, tensors(lambda own: own.popitem() and None), INDEX),
    "a tensor more": (SECOND, tensors(lambda own: own.update(more=torch.ones(1))), "'more' is not named"),
    "a key of another model": (FIRST, renamed(NORM, "language_model.model.nose.weight"), "is not of this model"),
    "another key of a block": (
        SECOND,
        renamed("vision_backbone.featurizer.blocks.1.norm1.bias", "vision_backbone.featurizer.blocks.1.norm9.bias"),
        "norm9.bias' is not of this model",
    ),
    "head of another width": (
        f"{HEAD}.safetensors",
        tensors(lambda own: own.update({"model.fc1.bias": torch.ones(3)})),
        "'model.fc1.bias' gives (3,)",
    ),
    "projector of another family": (
        f"{PROJECTOR}.safetensors",
        lambda p: save_file({"state_proj.weight": torch.ones(2, 2)}, p),
        "no matrix 'fc1.weight'",
    ),
    "head not converted": (f"{HEAD}.safetensors", Path.unlink, "run `dysl_vla convert"),
    "two heads": (f"{HEAD}.safetensors", lambda p: shutil.copy(p, p.parent / "action_head--2.safetensors"), "keep the"),
    "no statistics": ("dataset_statistics.json", Path.unlink, "is missing"),
    "empty statistics": ("dataset_statistics.json", replaced(b"{}"), "no data set's statistics"),
    "no proprioception": ("dataset_statistics.json", data_set("proprio", q01=None), f"{DATA_SET}.proprio.q01 is None"),
    "too few": ("dataset_statistics.json", data_set("action", q99=[1.0]), "action.q99 has 1 values, the weights 7"),
    "not finite": ("dataset_statistics.json", data_set("action", q99=[FLOAT[0]] * 7), "is not finite"),
    "ends exchanged": ("dataset_statistics.json", data_set("action", q01=[9.0] * 7), "lies above the upper one"),
    "another mask": ("dataset_statistics.json", data_set("action", mask=[True]), "action.mask"),
    "no arm's": ("dataset_statistics.json", data_set("action", q99=[9.0] * 7), "no arm moves faster"),
    "no preprocessor": ("preprocessor_config.json", Path.unlink, "is missing"),
    "other pictures": ("preprocessor_config.json", lambda p: changed(p, {"input_sizes": [[3, 9, 9]]}), "input_sizes"),
    "a deviation of zero": ("preprocessor_config.json", lambda p: changed(p, {"stds": [[0.0] * 3] * 2}), "above 0"),
    "no tokenizer": ("tokenizer.json", Path.unlink, "is missing"),
    "another tokenizer": ("tokenizer.json", replaced(b'{"version": "1.0"}'), "tokenizer.json"),
    "FiLM": ("config.json", lambda p: (p.parent / "vision_backbone--1.pt").touch(), "FiLM"),
    "diffusion": ("config.json", lambda p: (p.parent / "noisy_action_projector--1.pt").touch(), "diffusion"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_every_damage_is_refused_by_file_and_reason(folder: Path, case: str) -> None:
    name, damage, expected = DAMAGE[case]
    damage(folder / name)
    with pytest.raises(Exception) as caught:
        load_policy(folder, options=said())
    assert type(caught.value).__name__ in ("CheckpointError", "ContractError")
    text = str(caught.value)
    assert expected in text and "\n" not in text
    assert str(folder) in text or case == "no arm's"


def test_an_adapter_without_its_base_is_refused_with_the_command_that_merges(folder: Path) -> None:
    for file in (*folder.glob("model-*"), folder / INDEX):
        file.unlink()
    assert "merge_lora_weights_and_save.py" in refusal(folder)
    (folder / "lora_adapter").rmdir()
    (folder / "pytorch_model.bin").touch()
    assert "pytorch_model.bin is not read: a pickle could run code" in refusal(folder)


@given(name=st.sampled_from([FIRST, SECOND, f"{HEAD}.safetensors", f"{PROJECTOR}.safetensors"]), share=st.floats(0, 1))
@hypothesis_settings(
    deadline=None, max_examples=examples(40, 300), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_weights_cut_off_at_any_byte_are_refused_by_file(folder: Path, name: str, share: float) -> None:
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[: min(int(share * len(content)), len(content) - 1)])
    assert str(path) in refusal(folder)
    path.write_bytes(content)


def test_weights_that_do_not_fit_into_memory_are_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory"), MemoryError()):

        def full(*_: Any, error: BaseException = error) -> Any:
            raise error

        monkeypatch.setattr(weights, "read_tensors", full)
        assert "do not fit into the memory of cpu" in refusal(folder) and "model.dtype" in refusal(folder)


COMMANDS = {
    "inspect": ["inspect", "CHECKPOINT", "--params", "PARAMS"],
    "explain": ["inspect", "CHECKPOINT"],
    "replay": ["replay", "BAG", "--checkpoint", "CHECKPOINT", "--params", "PARAMS"],
    "calibrate": ["calibrate", "CHECKPOINT", "BAG"],
    "distill": ["distill", "CHECKPOINT", "BAG"],
    "tune": ["tune", "BAG", "--checkpoint", "CHECKPOINT", "--target-ms", "50"],
    "evaluate": ["evaluate", "CHECKPOINT"],
    "floors": ["floors", "CHECKPOINT", "BAG", "--out", "floors"],
}


def words(case: str, checkpoint: Path, params: Path, bag: Path) -> list[str]:
    own = {"CHECKPOINT": str(checkpoint), "PARAMS": str(params), "BAG": str(bag)}
    return [own.get(word, word) for word in COMMANDS[case]]


@pytest.mark.parametrize("case", COMMANDS)
def test_every_command_refuses_a_pointer_in_one_line(
    folder: Path,
    params: Path,
    tmp_path: Path,
    case: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    bag = write_tiny_bag(tmp_path / "bag")
    (folder / FIRST).write_bytes(LFS)
    assert main(words(case, folder, params, bag)) == 2
    error = capsys.readouterr().err
    assert f"{folder / FIRST} is a git-lfs pointer" in error and error.strip().count("\n") == 0


def test_a_whole_folder_is_inspected_with_its_parameters(
    whole: Path, params: Path, capsys: pytest.CaptureFixture
) -> None:
    assert read_params_file(params).options == said()
    assert main(["inspect", str(whole), "--params", str(params), "--steps", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["family"] == "openvla_oft" and found["action"]["horizon"] == 4
    assert sum(found["parts"].values()) == found["parameters"]


def test_without_parameters_a_folder_is_explained_by_its_files(whole: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", str(whole), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["layers"]["total"] == 8 and found["layers"]["width"] == 32
    assert {"model.horizon", "model.bounds", "robot.action.time_step"} <= found["missing"].keys()
    assert main(["inspect", str(whole)]) == 0
    shown = capsys.readouterr().out
    assert "refused without these parameters" in shown and "kind: end_effector_delta" in shown
