"""``make bench``: the figures that it writes, on a tiny policy; what they are is another matter."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

BENCH = Path(__file__).parents[1] / "benchmarks" / "step_latency.py"
KEYS = {"name", "value", "unit", "goal", "met", "spread", "runs", "machine"}


@pytest.mark.slow
def test_every_figure_has_its_spread_and_goals_are_judged(tmp_path):
    checkpoint = make_tiny_checkpoint(tmp_path / "base")
    make_tiny_dysl(checkpoint / "dysl", checkpoint)
    line = [sys.executable, str(BENCH), str(checkpoint), "--tasks", "reach", "--max-ticks", "6", "--out"]
    done = subprocess.run(
        [*line, str(tmp_path / "out")], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out" / "bench.json").read_text())
    by_name = {own["name"]: own for own in figures}
    assert {"stack_speedup", "step_speedup", "engine_cost_floor", "engine_cost_full"} <= by_name.keys()
    for own in figures:
        assert set(own) == KEYS and own["runs"] == 6 and own["value"] > 0
        assert own["spread"][0] <= own["spread"][1]
        assert (own["goal"] is None) == (own["met"] is None)
    engine = by_name["engine_cost_floor"]
    assert engine["goal"] == "at most 1.05" and engine["met"] is (engine["value"] <= 1.05)


@pytest.mark.slow
def test_both_runtimes_are_timed_at_the_same_plans_and_earlier_figures_stay(tmp_path):
    checkpoint = make_tiny_checkpoint(tmp_path / "base")
    make_tiny_dysl(checkpoint / "dysl", checkpoint)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bench.json").write_text(json.dumps([{"name": "stack_speedup"}]))
    program = BENCH.with_name("onnx_latency.py")
    line = [sys.executable, str(program), str(checkpoint), "--tasks", "reach", "--max-ticks", "6"]
    done = subprocess.run(
        [*line, "--out", str(tmp_path / "out")], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    figures = {own["name"]: own for own in json.loads((tmp_path / "out" / "bench.json").read_text())}
    assert {"stack_speedup", "step_ms_torch_full", "step_ms_onnx_floor", "onnx_over_torch_floor"} <= figures.keys()
    for engine in ("torch", "onnx"):
        assert figures[f"engine_cost_{engine}_floor"]["goal"] == "at most 1.05"
    own = figures["onnx_over_torch_floor"]
    assert own["goal"] == "at least 1.3" and own["met"] is (own["value"] >= 1.3) and own["threads"] == 1
