"""examples/replay.py runs as it stands."""

import runpy
from pathlib import Path

from tiny_bag import write_tiny_bag
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

EXAMPLE = Path(__file__).parents[1] / "examples" / "replay.py"


def test_it_says_what_skipping_costs_and_saves(tmp_path, monkeypatch, capsys):
    checkpoint = make_tiny_checkpoint(tmp_path / "base", layers=6)
    make_tiny_dysl(checkpoint / "dysl", checkpoint, offset=9.0)
    bag = write_tiny_bag(tmp_path / "bag", ticks=6)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(EXAMPLE), str(bag), str(checkpoint)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    said = capsys.readouterr().out
    assert " of 6 layers an inference" in said and "criteria" in said
    assert "furthest apart " in said and (tmp_path / "replay_out" / "replay.html").is_file()
