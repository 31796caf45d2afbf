"""The examples run as they are, on tiny data."""

import runpy
from pathlib import Path

import pytest

from dysl_vla_ros.runtime.step import Runtime
from tiny_bag import write_tiny_bag
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint, make_tiny_dysl

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", [name, *map(str, words)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_a_policy_is_loaded_and_stepped(tmp_path, monkeypatch, capsys) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "base", layers=6)
    make_tiny_dysl(checkpoint / "dysl", checkpoint, offset=9.0)
    run("load_and_step.py", monkeypatch, checkpoint)
    said = capsys.readouterr().out.splitlines()
    assert "step 0: 6 layer calls" in said[1] and "full depth because: warm-up" in said[1]
    assert "full depth because: -" in said[4], "the last step skips"
    assert said[-1].startswith("full depth: 6 layer calls")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_what_an_example_imports_is_there(path: Path) -> None:
    assert runpy.run_path(str(path), run_name="imported")["__doc__"]


@pytest.mark.slow  # test_own_robot.py goes the same way by the commands
def test_a_recording_becomes_a_policy_that_skips(tmp_path, monkeypatch, capsys) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "base", layers=6)
    bag = write_tiny_bag(tmp_path / "bag", ticks=10, episodes=(INSTRUCTION, "open the drawer") * 3)
    run("distill_from_a_bag.py", monkeypatch, bag, checkpoint, tmp_path / "out", 2, 40)
    said = capsys.readouterr().out
    for text in ("static layers: (0, ", "stage 2, error: loss ", " of 6 layers at an action error of ", "target met: "):
        assert text in said
    assert not (checkpoint / "dysl").exists() and (tmp_path / "out" / "tuned" / "tuned.yaml").is_file()
    Runtime.load(str(checkpoint), str(tmp_path / "out" / "dysl")).warm_up()
