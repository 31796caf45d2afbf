"""A disk that fills while something is written: what was there stays whole, one line says file and remedy, exit code 2.

The kernel's limit on the size of a file stands for the full disk: a write beyond it fails, as one without space does.
For every file that a command writes, the limit is set so that this file does not fit.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.distillation.resume import Resume
from dysl_vla_ros.distillation.stages import Distillation
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.files import sha256, write_atomically, write_json, written_together
from dysl_vla_ros.policies.checkpoint import write_checkpoint
from dysl_vla_ros.policies.reference import WEIGHTS, ReferenceNetwork, save_reference
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.runtime.step import Runtime
from noise_episodes import write_noise_episodes
from tiny_bag import write_tiny_bag
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint, make_tiny_dysl, tiny_config

OTHER = "open the drawer"
SHORT = ("--observations", "40", "--hidden-steps", "2", "--action-steps", "2", "--joint-steps", "2", "--no-compile")
TINY = ("--layers=2", "--width=16", "--heads=2", "--feed-forward=16", "--batch-size=4", "--no-compile")


@contextmanager
def disk_for_files_of(size: int) -> Iterator[None]:
    """Let no file grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of each file below ``folder``."""
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


def sizes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def assert_one_line(said: str, verb: str) -> None:
    """Ask for the one line of an error (progress bars may stand in front of it)."""
    lines = [line for line in said.replace("\r", "\n").splitlines() if line.startswith("dysl_vla")]
    assert len(lines) == 1 and lines[0].startswith(f"dysl_vla {verb}: error: cannot write "), said[-1500:]
    assert "free space" in lines[0] or "another folder" in lines[0], lines
    assert "Traceback" not in said and "exitcode" not in said, said[-3000:]


# -- writers ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = make_tiny_checkpoint(tmp_path / "base", layers=6)
    make_tiny_dysl(folder / "dysl", folder)
    calibration = folder / "dysl" / "calibration.json"
    calibration.write_text(json.dumps(json.loads(calibration.read_text()) | {"runs": 7}))  # another than comes
    return folder


def rewrite_checkpoint(base: Path) -> None:
    torch.manual_seed(1)
    # a config.json that is larger than the weights: there is a disk for these alone
    save_reference(ReferenceNetwork(tiny_config(6)), base, {"data": "x" * 2 * (base / WEIGHTS).stat().st_size})


def rewrite_dysl(base: Path) -> None:
    make_tiny_dysl(base / "dysl", base, seed=1)


@pytest.mark.parametrize("rewrite", [rewrite_checkpoint, rewrite_dysl])
def test_a_folder_of_weights_is_the_new_one_or_the_old_one_however_large_the_disk_is(base, rewrite, capsys):
    before, new = contents(base), sizes(base)
    limits = {0, 1, *(size - 1 for size in new.values()), *(size // 2 for size in new.values())}
    limits.add(max(new.values()) + 1000)  # as it was, it would fit
    failures = 0
    for limit in sorted(limits):
        try:
            with disk_for_files_of(limit):
                rewrite(base)
        except DataError as error:
            failures += 1
            assert contents(base) == before, limit
            assert "cannot write" in str(error) and "free space" in str(error)
    assert failures > 2
    rewrite(base)
    assert contents(base) != before
    load_policy(base)


def test_files_that_belong_together_are_all_there_or_none(tmp_path):
    def refuse(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    write_json(tmp_path / "a.json", "old")
    before = contents(tmp_path)
    with pytest.raises(DataError, match=r"cannot write .*b\.bin: No space left"), written_together() as files:
        files.add_json(tmp_path / "a.json", "new")
        files.add(tmp_path / "b.bin", refuse)
    assert contents(tmp_path) == before, "nor is a temporary file left"
    with written_together() as files:
        files.add_json(tmp_path / "a.json", "new")
        files.add(tmp_path / "b.bin", lambda path: path.write_bytes(b"whole"))  # type: ignore[arg-type]
    assert json.loads((tmp_path / "a.json").read_text()) == "new" and (tmp_path / "b.bin").read_bytes() == b"whole"


def test_what_a_finished_stage_has_left_outlives_a_full_disk_at_the_next(tmp_path):
    modules = torch.nn.Linear(20, 20)
    kept = Resume(tmp_path, {}, torch.zeros(1))
    kept.save(modules, {"stage": "first"})
    with disk_for_files_of(500), pytest.raises(DataError):
        kept.save(torch.nn.Linear(20, 20), {"stage": "second"})
    found = Resume(tmp_path, {}, torch.zeros(1))
    assert found.records == [{"stage": "first"}]
    loaded = torch.nn.Linear(20, 20)
    found.load(loaded)
    assert torch.equal(loaded.weight, modules.weight)


def test_a_writer_that_fails_says_so_whatever_writes(tmp_path):
    tensors = {"a": {"b": torch.zeros(1000)}}
    with disk_for_files_of(100):
        for write in (
            lambda: write_atomically(tmp_path / "text", lambda path: path.write_text("x" * 200) and None),
            lambda: write_checkpoint(tmp_path, {}, tensors),
        ):
            with pytest.raises(DataError, match="cannot write"):
                write()
    assert contents(tmp_path) == {}


@pytest.mark.slow
def test_output_that_goes_to_a_full_disk_is_one_line_and_exit_code_2(base):
    command = [sys.executable, "-m", "dysl_vla_ros.commands.main", "inspect", str(base), "--steps", "0"]
    with open("/dev/full", "w") as full:
        one = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
        both = subprocess.run(command, stdout=full, stderr=full, timeout=120)
    assert one.returncode == both.returncode == 2
    assert_one_line(one.stderr, "inspect")


# -- commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bag(tmp_path_factory.mktemp("bags") / "one", ticks=8, episodes=(INSTRUCTION, OTHER) * 2)


@pytest.mark.slow
def test_distilling_and_calibrating_on_a_full_disk_leave_adapters_that_load(bag, tmp_path, capsys):
    checkpoint = make_tiny_checkpoint(tmp_path / "base", layers=6)
    dysl = checkpoint / "dysl"
    choose = ["calibrate", str(checkpoint), str(bag), "--observations", "40", "--static", "spread"]
    with disk_for_files_of(10):
        assert main(choose) == 2
    assert_one_line(capsys.readouterr().err, "calibrate")
    assert main(choose) == 0
    command = [str(checkpoint), str(bag), *SHORT]
    assert main(["distill", *command]) == 0
    trained = contents(dysl)

    def still_loads() -> None:
        assert {name: digest for name, digest in contents(dysl).items() if name in trained} == trained
        Runtime.load(str(checkpoint), "")

    other = [*command, "--seed", "1"]
    for limit in (min(sizes(dysl).values()) - 1, max(sizes(dysl).values()) - 1):
        with disk_for_files_of(limit):
            assert main(["distill", *other]) == 2
        assert_one_line(capsys.readouterr().err, "distill")
        still_loads()
    assert main(["distill", *other]) == 0
    assert contents(dysl)["adapters.safetensors"] != trained["adapters.safetensors"]
    assert not list(dysl.glob("unfinished*"))
    before = contents(dysl)
    with disk_for_files_of(sizes(dysl)["adapters.safetensors"] - 1):
        assert main(["calibrate", str(checkpoint), str(bag)]) == 2
    assert_one_line(capsys.readouterr().err, "calibrate")
    assert contents(dysl) == before


@pytest.mark.slow
def test_a_distillation_that_a_full_disk_has_ended_goes_on_behind_its_last_stage(bag, tmp_path, capsys, monkeypatch):
    checkpoint = make_tiny_checkpoint(tmp_path / "base", layers=6)
    assert main(["calibrate", str(checkpoint), str(bag), "--observations", "40", "--static", "spread"]) == 0
    joint = Distillation.train_joint

    def fills(self: Distillation) -> float:
        loss = joint(self)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return loss

    with monkeypatch.context() as patched, disk_for_files_of(2**40):
        patched.setattr(Distillation, "train_joint", fills)
        assert main(["distill", str(checkpoint), str(bag), *SHORT]) == 2
    capsys.readouterr()
    assert main(["distill", str(checkpoint), str(bag), *SHORT]) == 0
    assert capsys.readouterr().out.count("(finished before)") == 2


@pytest.mark.slow
def test_training_on_a_full_disk_leaves_the_last_checkpoint_and_goes_on(tmp_path, capfd):
    data = write_noise_episodes(tmp_path / "data", ["reach"], range(9, 15))
    out = tmp_path / "out"

    def command(steps: int) -> list[str]:
        return ["train", str(data), str(out), "--tasks", "reach", f"--steps={steps}", "--processes=2", *TINY]

    with disk_for_files_of(1000):
        assert main(command(4)) == 2
    assert_one_line(capfd.readouterr().err, "train")
    assert main(command(4)) == 0
    first = {name: digest for name, digest in contents(out).items() if not name.startswith("training-state")}
    for name in ("config.json", "training-state.safetensors"):  # the first is the smallest: nothing is written then
        with disk_for_files_of(sizes(out)[name] - 1):
            assert main(command(6)) == 2, name
        assert_one_line(capfd.readouterr().err, "train")
        load_policy(out)
        if name == "config.json":  # the state is written behind the checkpoint
            assert {known: contents(out)[known] for known in first} == first
    assert main(command(6)) == 0
    assert json.loads((out / "config.json").read_text())["training"]["steps"] == 6


@pytest.mark.slow
def test_replays_and_tunings_on_a_full_disk_leave_reports_that_are_whole(bag, base, tmp_path, capsys):
    reports = {
        "replay": [str(bag), "--checkpoint", str(base), "--out", str(tmp_path / "replay")],
        "tune": [
            str(bag), "--checkpoint", str(base), "--max-deviation", "1000", "--trials", "10",
            "--out", str(tmp_path / "tune"), "--force",
        ],
        "floors": [
            str(base), str(bag), "--observations", "40", "--hidden-steps", "2", "--action-steps", "2",
            "--static-layers", "2", "--out", str(tmp_path / "floors"), "--no-compile",
        ],
    }  # fmt: skip
    for verb, command in reports.items():
        assert main([verb, *command]) in (0, 1), capsys.readouterr().err[-1500:]
        whole = sizes(tmp_path / verb)
        for limit in sorted({size - 1 for size in whole.values() if size > 1}):
            folder = tmp_path / verb
            before = contents(folder)
            capsys.readouterr()
            with disk_for_files_of(limit):
                code = main([verb, *command])
            said = capsys.readouterr().err
            after = contents(folder)
            assert set(after) <= set(before), "no half-written file is left"
            assert set(before) == set(after), "and none is gone"
            if code == 2:
                assert_one_line(said, verb)
                assert verb != "tune" or after == before, "the four belong together"
            for name in after:
                if name.endswith(".json"):
                    json.loads((folder / name).read_text())
            if limit == min(size - 1 for size in whole.values()):
                assert code == 2 or verb == "floors", f"{verb} {limit}: {said[-1500:]}"
