"""``dysl_vla convert``: pickles of OpenVLA-OFT become safetensors once; nothing else in the package opens one."""

import ast
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import dysl_vla_ros
from dysl_vla_ros.commands.main import main
from dysl_vla_ros.policies.registry import load_policy
from tiny_openvla import HEAD, PROJECTOR, action_head, linear, proprio_projector, said, write_tiny_openvla

RAN: list[str] = []


class Runs:
    """A pickle of this runs code when it is opened."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return RAN.append, ("it ran",)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_tiny_openvla(tmp_path / "checkpoint")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_openvla(tmp_path_factory.mktemp("openvla"))
    for file in folder.glob("model-*"):
        file.unlink()
    return folder


def test_what_is_converted_runs_and_has_the_bits_of_the_pickles(
    checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    before = {file: file.read_bytes() for file in checkpoint.glob("*.pt")}
    assert main(["inspect", str(checkpoint)]) == 2 and "run `dysl_vla convert" in capsys.readouterr().err
    assert main(["convert", str(checkpoint)]) == 0
    assert capsys.readouterr().out.count("wrote ") == 2
    for name in (HEAD, PROJECTOR):
        pickled = torch.load(checkpoint / f"{name}.pt", weights_only=True)
        written = load_file(checkpoint / f"{name}.safetensors")
        assert {f"module.{key}" for key in written} == pickled.keys()
        assert all(torch.equal(written[key.removeprefix("module.")], value) for key, value in pickled.items())
    assert load_policy(checkpoint, options=said()).family == "openvla_oft"
    assert {file: file.read_bytes() for file in checkpoint.glob("*.pt")} == before
    assert main(["convert", str(checkpoint)]) == 0 and "nothing to do" in capsys.readouterr().out


def head_with(**others: Any) -> dict[str, Any]:
    return {f"module.{key}": value for key, value in action_head().items()} | others


CONTENTS = {
    "code": ({"module.model.fc1.weight": Runs()}, "what could run code is never loaded"),
    "a list": ([1, 2], "holds a list"),
    "a number": (head_with(step=3), "'step' is a int"),
    "whole numbers": (head_with(step=torch.ones(2, dtype=torch.int64)), "'step' is a tensor of torch.int64"),
    "another key": (head_with(**{"module.noise": torch.ones(2)}), "'noise' is not of an OpenVLA-OFT action_head"),
    "another module": (proprio_projector(), "'fc1.bias' is not of an OpenVLA-OFT action_head"),
    "a missing key": ({k: v for k, v in head_with().items() if "fc2" not in k}, "'model.fc2.bias' is missing"),
    "NaN": (head_with(**{"module.model.fc2.bias": torch.full((7,), float("nan"))}), "holds NaN or infinity"),
    "diffusion": (linear("noise_predictor.mlp_resnet.fc1", 3, 4), "noise_predictor"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_other_contents_are_refused_by_name_and_nothing_is_written(
    small: Path, case: str, capsys: pytest.CaptureFixture
) -> None:
    content, expected = CONTENTS[case]
    file = small / f"{HEAD}.pt"
    torch.save(content, file)
    assert main(["convert", str(small)]) == 2
    error = capsys.readouterr().err
    assert str(file) in error and expected in error and error.count("\n") == 1
    assert not list(small.glob("*.safetensors")) and not RAN


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_pickle_cut_off_at_any_byte_is_refused_by_name(small: Path, share: float) -> None:
    file = small / f"{HEAD}.pt"
    torch.save(head_with(), file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(Exception, match=str(file)) as caught:
        _convert(small)
    assert type(caught.value).__name__ == "CheckpointError"


def _convert(folder: Path) -> None:
    from dysl_vla_ros.policies.openvla.convert import convert_folder

    convert_folder(folder)


def test_a_plain_pickle_a_pointer_and_a_missing_file_are_refused(small: Path, capsys: pytest.CaptureFixture) -> None:
    file = small / f"{HEAD}.pt"
    file.write_bytes(pickle.dumps(Runs()))
    assert main(["convert", str(small)]) == 2 and str(file) in capsys.readouterr().err and not RAN
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4665a5\nsize 2932\n")
    assert main(["convert", str(small)]) == 2 and "is a git-lfs pointer" in capsys.readouterr().err
    file.unlink()
    assert main(["convert", str(small)]) == 2 and f"no {HEAD.partition('--')[0]}--" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["vision_backbone--1_checkpoint.pt", "noisy_action_projector--1_checkpoint.pt"])
def test_other_variants_are_refused_by_their_files(small: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    (small / name).write_bytes(b"")
    assert main(["convert", str(small)]) == 2 and name in capsys.readouterr().err
    (small / name).unlink()


def test_a_folder_of_another_layout_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "config.json").write_text('{"family": "reference"}')
    assert main(["convert", str(tmp_path)]) == 2 and "expected openvla" in capsys.readouterr().err


def test_the_help_teaches(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    shown = capsys.readouterr().out
    assert "A pickle can run any code" in shown and "dysl_vla inspect FOLDER" in shown


def test_no_other_place_opens_a_pickle() -> None:
    openers = set()
    package = Path(dysl_vla_ros.__file__).parent
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        text = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        loads = any(call.startswith(("torch.load(", "jit.load(", "torch.jit.load(")) for call in text)
        loads |= any("allow_pickle=True" in call for call in text)
        loads |= bool(imported & {"pickle", "dill", "joblib", "cloudpickle", "marshal", "shelve"})
        if loads:
            openers.add(str(path.relative_to(package)))
    assert openers == {"policies/openvla/convert.py"}
