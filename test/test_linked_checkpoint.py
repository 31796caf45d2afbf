"""A checkpoint whose files are links is the checkpoint that they lead to: `colcon build --symlink-install`, caches."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.doctor.checks import checkpoint as checks
from dysl_vla_ros.doctor.examination import Examination, Options
from dysl_vla_ros.files import sha256
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl


@pytest.fixture
def real(tmp_path: Path) -> Path:
    folder = make_tiny_checkpoint(tmp_path / "real")
    make_tiny_dysl(folder / "dysl", folder)
    return folder


def as_installed(real: Path, folder: Path) -> Path:
    """Lay the links that `colcon build --symlink-install` lays: folders of their own, one absolute link a file."""
    for path in sorted(real.rglob("*")):
        place = folder / path.relative_to(real)
        if path.is_dir():
            place.mkdir(parents=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path)
    return folder


def as_cached(real: Path, folder: Path) -> Path:
    """Lay the links of a download cache: relative ones to files that are called by their hash."""
    blobs = folder / "blobs"
    blobs.mkdir(parents=True)
    snapshot = folder / "snapshots" / "main"
    for path in sorted(path for path in real.rglob("*") if path.is_file()):
        blob = blobs / sha256(path)
        blob.write_bytes(path.read_bytes())
        place = snapshot / path.relative_to(real)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(blob, place.parent))
    return snapshot


def inspected(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["inspect", str(folder), "--json", "--steps", "0", "--threads", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    found.pop("checkpoint")
    found["dysl"].pop("folder")
    return dict(found)


@pytest.mark.parametrize("lay", [as_installed, as_cached])
def test_links_are_followed_by_the_commands_and_the_doctor(
    lay: Callable[[Path, Path], Path], real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linked = lay(real, tmp_path / "linked")
    assert (linked / "model.safetensors").is_symlink() and (linked / "dysl" / "adapters.safetensors").is_symlink()
    assert inspected(linked, capsys) == inspected(real, capsys)
    examination = Examination(Options(checkpoint=linked))
    findings = [*checks.base(examination), *checks.dysl_folder(examination)]
    assert [finding.level.name for finding in findings] == ["OK", "OK"], findings


def test_the_hash_guards_what_a_link_leads_to(real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    linked = as_installed(real, tmp_path / "linked")
    with (real / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, os.SEEK_END)
        weights.write(b"\x01")
    assert main(["inspect", str(linked)]) == 2
    said = capsys.readouterr().err
    assert "linked/model.safetensors" in said and "is not the file that was written" in said


def test_a_link_that_leads_nowhere_says_where(real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    linked = as_installed(real, tmp_path / "linked")
    (real / "model.safetensors").unlink()
    assert main(["inspect", str(linked)]) == 2
    assert f"linked/model.safetensors is a link to {real / 'model.safetensors'}, where no file is" in (
        capsys.readouterr().err
    )
