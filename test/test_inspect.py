"""`dysl_vla inspect` as a real process: what it says of a checkpoint is what lies in the files."""

import json
import struct
import subprocess
from pathlib import Path

import pytest

from dysl_vla_ros.commands.main import main
from harness import install_prefix
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint, make_tiny_dysl
from warm_program import run

pytestmark = pytest.mark.ros
SHIPPED = Path(__file__).parents[1] / "checkpoints" / "reference"


def inspect(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [str(install_prefix() / "bin" / "dysl_vla"), "inspect", *map(str, arguments)]
    return run(command, 60, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=install_prefix())


def numbers_in(path: Path) -> int:
    """Count the values of a safetensors file by its own header."""
    with path.open("rb") as source:
        (length,) = struct.unpack("<Q", source.read(8))
        header = json.loads(source.read(length))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__" and not name.endswith(".offset"):  # one number a controller that is no parameter
            count = 1
            for side in tensor["shape"]:
                count *= side
            total += count
    return total


def test_parameters_are_those_of_the_files_and_each_belongs_to_one_part() -> None:
    done = inspect(SHIPPED, "--json", "--steps", 0)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["parameters"] == numbers_in(SHIPPED / "model.safetensors")
    assert sum(found["parts"].values()) == found["parameters"]
    assert found["memory_bytes"] == {
        name: size * found["parameters"] for name, size in {"fp32": 4, "fp16": 2, "bf16": 2}.items()
    }
    assert found["disk_bytes"] == (SHIPPED / "model.safetensors").stat().st_size
    assert found["dysl"]["parameters"] == numbers_in(SHIPPED / "dysl" / "adapters.safetensors")
    assert found["latency"]["depths"] == {}


def test_the_table_names_inputs_outputs_layers_and_the_time_at_both_depths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "tiny", layers=6)
    make_tiny_dysl(checkpoint / "dysl", checkpoint)
    assert main(["inspect", str(checkpoint), "--steps", "2", "--threads", "1"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "6 of width 32, of which",
        "image, wrist_image (the first one paces inference)",
        "ee.x [m], ee.y [m], ee.z [m], gripper.opening [1], frame base",
        INSTRUCTION,
        "8 a chunk, 0.05 s each (0.4 s), frame base",
        "gripper opening 1 0.25 0.25",
        "step 0.1, verify_threshold 0.05",
        "full depth 6",
        "floor 3",
    ):
        assert words in text, words


def test_the_time_is_that_of_the_depth_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "tiny", layers=6)
    make_tiny_dysl(checkpoint / "dysl", checkpoint)
    assert main(["inspect", str(checkpoint), "--json", "--steps", "3", "--threads", "1"]) == 0
    latency = json.loads(capsys.readouterr().out)["latency"]
    assert latency["threads"] == 1
    full, floor = latency["depths"]["full depth"], latency["depths"]["floor"]
    assert (full["layers"], floor["layers"]) == (6, 3)
    for depth in (full, floor):
        assert 0.0 < depth["p50_ms"]["stack"] <= depth["p50_ms"]["total"] <= depth["p95_ms"]["total"]
        assert depth["ms_per_layer"] == pytest.approx(depth["p50_ms"]["stack"] / depth["layers"])


def test_without_a_dysl_folder_it_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "tiny", layers=6)
    assert main(["inspect", str(checkpoint), "--steps", "0", "--threads", "1"]) == 0
    text = capsys.readouterr().out
    assert "6 of width 32, of which 0 may be skipped" in text
    assert "no DySL folder: every layer always runs; make one with `dysl_vla calibrate`" in text


def test_nonsense_is_refused_before_anything_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "nowhere"), "--steps", "-1"]) == 2
    assert "--steps must be from 0 to 10000, not -1" in capsys.readouterr().err
