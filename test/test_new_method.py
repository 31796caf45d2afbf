"""A new compared method is one file and one line of the registry: options, help, errors, table and pictures have it."""

import json
from pathlib import Path

import pytest

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.comparison.methods import registry
from dysl_vla_ros.comparison.methods.registry import Registered
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

pytest.importorskip("mujoco")

HALFWAY = '''
"""``halfway``: every block is left in its middle; ``tiny``: another checkpoint."""

from dysl_vla_ros.comparison.methods.method import Method, Prepared, Trained, trained, unguided
from dysl_vla_ros.skipping.depth_rules import FixedPlan


def set_up(scenes):
    _, dysl = scenes.loaded()
    return {"halfway_plan": [(first + end) // 2 for first, end in dysl.partition.blocks]}


def prepare(given):
    runtime, dysl = given.loaded()
    plan = tuple(given.values["halfway_plan"])
    runtime.rule_override = lambda points: FixedPlan(dysl.partition, dysl.modules, plan)
    return Prepared(runtime, unguided(given.settings), trained(dysl, plan))


def prepare_tiny(given):
    return Prepared(given.library.alone(given.options.checkpoints["tiny_policy"]), given.settings, Trained(1, 2, 3.0))


METHOD = Method("half of every block", prepare, set_up=set_up, sets=("halfway_plan",), bound=True, guided=True)
TINY = Method("a tiny policy", prepare_tiny, adapters=False)
'''


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Add one file and a line a method, as somebody outside the package does."""
    (tmp_path / "halfway_method.py").write_text(HALFWAY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.METHODS, "halfway", Registered("halfway_method"))
    monkeypatch.setitem(registry.METHODS, "tiny_policy", Registered("halfway_method:TINY", checkpoint=True))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("base"), layers=8)
    make_tiny_dysl(folder / "dysl", folder)
    return folder


def words(checkpoint, *more):
    tasks = ["--tasks", "reach", "--max-ticks", "3", "--seeds", "1", "--jobs", "1", "--calibration-seeds", "0"]
    return ["evaluate", str(checkpoint), *tasks, *map(str, more)]


def test_a_method_that_is_added_is_played_shown_and_drawn(added, checkpoint, tmp_path, capsys):
    small, out = make_tiny_checkpoint(tmp_path / "small", layers=3), tmp_path / "out"
    more = ["--methods", "full", "halfway", "halfway@4", "tiny_policy", "--tiny-policy", small, "--out", out]
    assert main(words(checkpoint, *more)) == 0
    said = capsys.readouterr().out
    assert "halfway@4" in said and "halfway: a bound; " in said, "in the printed table"
    table = json.loads((out / "table.json").read_text())
    rows = {(own["method"], own["actions_per_inference"]): own for own in table["methods"]}
    assert list(rows) == [("full", 1), ("halfway", 1), ("halfway", 4), ("tiny_policy", 1)]
    assert rows["halfway", 1]["layers_mean"] == 4 + 0 + 1 + 0, "blocks (1, 2), (3, 5), (6, 7) are left in their middle"
    assert rows["halfway", 1]["stack_ms_mean"] is None, "it is a bound"
    tiny = rows["tiny_policy", 1]
    assert (tiny["layers_total"], tiny["trainable_parameters"], tiny["training_steps"]) == (3, 1, 2)
    results = json.loads((out / "results.json").read_text())
    assert results["set"]["easy@1"]["halfway_plan"] == [1, 4, 6] and results["set"]["easy@1"]["fixed_plan"] is None
    assert (out / "allow_points.png").is_file(), "its allow points are drawn"
    played = {own.name for own in (out / "episodes").iterdir()}
    assert played == {"full", "halfway", "halfway@4", "tiny_policy", "clock1@4"}
    kept = json.loads((out / "settings.json").read_text())["files"]
    assert kept["tiny_policy"] and set(kept) >= {"checkpoint", "adapters/adapters.safetensors"}


def test_help_and_errors_name_a_method_that_is_added(added, checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "shallow_distilled, halfway, tiny_policy; dysl@4" in said
    assert "--tiny-policy FOLDER checkpoint of the method tiny_policy" in said
    for more, error in (
        (["--methods", "halfwy"], "unknown method 'halfwy', did you mean halfway?; there are full, dysl,"),
        (["--methods", "tiny_policy"], "the method tiny_policy is another checkpoint: name it by --tiny-policy"),
        (["--methods", "tiny_policy", "--tiny-policy", tmp_path / "none"], f"{tmp_path / 'none'}"),
        (["--tiny-policy", checkpoint], "--tiny-policy: for several methods side by side; name them by --methods"),
    ):
        assert main(words(checkpoint, *more)) == 2
        assert error in capsys.readouterr().err
