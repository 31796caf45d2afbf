"""A checkpoint or DySL folder that is broken in any way: every command and the node refuse it, in one line."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.files import sha256
from noise_episodes import write_noise_episodes
from tiny_bag import write_tiny_bag
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint, make_tiny_dysl

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4665a5\nsize 2932\n"
BASE, DYSL = "model.safetensors", "dysl/adapters.safetensors"


def with_hash(file: Path) -> None:
    """Write the hash of a file into the config.json beside it, as one who made it would."""
    path = file.parent / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"files": {file.name: sha256(file)}}))


def replace(content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(content(file.read_bytes())) and None


def nan_in(file: Path) -> None:
    tensors = load_file(file)
    name = sorted(tensors)[0]
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, file)
    with_hash(file)


def directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def newer(file: Path) -> None:
    path = file.parent / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))


def unreadable(file: Path) -> None:
    file.chmod(0)


def other_base(file: Path) -> None:
    path = file.parent / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"base": config["base"] | {"sha256": "0" * 64}}))


def other_depth(file: Path) -> None:
    path = file.parent / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"partition": config["partition"] | {"num_layers": 8}}))


ANY = {
    "missing": (Path.unlink, "is missing"),
    "empty": (replace(lambda content: b""), "empty"),
    "truncated": (replace(lambda content: content[: len(content) // 2]), "not the file that was written"),
    "a git-lfs pointer": (replace(lambda content: POINTER), "git lfs pull"),
    "a folder": (directory, "is a folder, not a file"),
    "a flipped bit": (replace(lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]), "SHA-256"),
    "NaN": (nan_in, "holds NaN or infinity"),
    "of a newer format": (newer, "format_version is 2, this version reads 1"),
}
OF_DYSL = {
    "of another base": (other_base, "base.sha256 is 0000"),
    "of another depth": (other_depth, "num_layers is 8, this checkpoint has 6"),
}
CASES = [(BASE, kind) for kind in ANY] + [(DYSL, kind) for kind in (*ANY, *OF_DYSL)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("whole") / "base", layers=6)
    make_tiny_dysl(folder / "dysl", folder)
    return folder


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bag(tmp_path_factory.mktemp("bags") / "one", ticks=8, episodes=(INSTRUCTION,) * 4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise_episodes(tmp_path_factory.mktemp("noise"), ["reach"], range(9, 15))


def broken(whole: Path, folder: Path, file: str, kind: str) -> tuple[Path, str]:
    """Copy a checkpoint and break it; return it, and what its refusal must say."""
    shutil.copytree(whole, folder)
    breaks, text = (ANY | OF_DYSL)[kind]
    breaks(folder / file)
    return folder, text


def commands(checkpoint: Path, bag: Path, data: Path, out: Path, file: str) -> Iterator[list[str]]:
    """Give every command that loads the file; each writes below ``out``, if it comes to that."""
    base, recording = str(checkpoint), str(bag)
    yield ["inspect", base, "--steps", "0"]
    yield ["replay", recording, "--checkpoint", base, "--out", str(out / "replay")]
    yield ["tune", recording, "--checkpoint", base, "--max-deviation", "9", "--out", str(out / "tune")]
    if file == BASE:
        yield ["calibrate", base, recording, "--adapters", str(out / "dysl")]
        yield ["floors", base, recording, "--out", str(out / "floors")]
        for origin in ("--teacher", "--base"):
            yield ["train", str(data), str(out / "trained"), "--tasks", "reach", origin, base]
    else:
        yield ["calibrate", base, recording]
        yield ["distill", base, recording, "--adapters", str(out / "dysl"), "--go-on-from", str(checkpoint / "dysl")]


@pytest.mark.parametrize(("file", "kind"), CASES, ids=[f"{Path(file).stem} {kind}" for file, kind in CASES])
def test_every_command_refuses_a_broken_file_in_one_line_and_changes_nothing(
    file, kind, whole, bag, data, tmp_path, capsys
):
    checkpoint, text = broken(whole, tmp_path / "broken", file, kind)
    before = {path: path.stat().st_mtime_ns for path in checkpoint.rglob("*") if path.is_file()}
    for command in commands(checkpoint, bag, data, tmp_path / "out", file):
        if kind == "of another base" and command[0] == "distill":
            continue  # a distillation may begin with adapters of another base
        capsys.readouterr()
        assert main(command) == 2, command
        lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
        said = [line for line in lines if line.startswith("dysl_vla")]
        assert len(said) == 1, said
        assert text in said[0] and str(checkpoint) in said[0], f"{command[0]}: {said[0]}"
        made = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != ".lock"]
        assert not made, f"{command[0]} has written {made}"
    assert {path: path.stat().st_mtime_ns for path in checkpoint.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
@pytest.mark.parametrize("file", [BASE, DYSL, "config.json", "dysl/config.json"])
def test_every_command_refuses_a_file_that_may_not_be_read(file, whole, bag, data, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "broken")
    unreadable(tmp_path / "broken" / file)
    for command in commands(tmp_path / "broken", bag, data, tmp_path / "out", BASE if "dysl" not in file else DYSL):
        assert main(command) == 2, command
        said = capsys.readouterr().err
        assert "Permission denied" in said and file in said and "Traceback" not in said


@pytest.mark.ros
@pytest.mark.slow
def test_the_node_refuses_each_at_configure_by_the_same_words_and_configures_a_whole_one(whole, ros_domain, tmp_path):
    from vla_rig import gentle, running_rig

    with running_rig(gentle(whole)) as rig:
        rig.bring_to("unconfigured")
        for number, (file, kind) in enumerate(CASES):
            checkpoint, text = broken(whole, tmp_path / str(number), file, kind)
            assert rig.set(model__checkpoint=str(checkpoint)) == (True, "")
            assert not rig.change("configure"), f"{file} {kind}"
            assert rig.state() == "unconfigured"
            status = rig.wait_for_error("worker", text)
            assert str(checkpoint) in str(status), f"{file} {kind}"
        assert rig.set(model__checkpoint=str(whole)) == (True, "")
        assert rig.change("configure")
