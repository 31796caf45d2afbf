"""examples/evaluate.py runs as it stands."""

import runpy
from pathlib import Path

import pytest

from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

EXAMPLE = Path(__file__).parents[1] / "examples" / "evaluate.py"


def test_it_plays_both_ways_on_the_same_scenes(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mujoco")
    checkpoint = make_tiny_checkpoint(tmp_path / "base", layers=6)
    make_tiny_dysl(checkpoint / "dysl", checkpoint, offset=9.0)
    monkeypatch.setattr("sys.argv", [str(EXAMPLE), str(checkpoint), "1"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    full, _, skipping, _ = capsys.readouterr().out.splitlines()
    assert full.startswith("full depth: 0 of 1 scenes, 6.0 of 6 layers an inference, ")
    assert skipping.startswith("skipping: 0 of 1 scenes, ") and " 6.0 of 6 " not in skipping
