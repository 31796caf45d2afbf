"""`evaluate` and `compare` as functions: plain results, the verb's figures, every policy loaded once."""

import json

import pytest

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.comparison.compare import ComparisonSettings, compare
from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings
from dysl_vla_ros.evaluation.evaluate import evaluate
from dysl_vla_ros.runtime import step
from dysl_vla_ros.settings import ControlSettings
from dysl_vla_ros.simulation.tasks import tasks_named
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

pytest.importorskip("mujoco")
SHORT = EvaluationSettings(max_ticks=2, seeds=2, tasks=tuple(tasks_named(["push", "reach"])))
MEASURED = {"timings"}  # what differs from run to run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("base"))
    make_tiny_dysl(folder / "dysl", folder)
    return folder


@pytest.fixture
def loads(monkeypatch):
    """Return the checkpoints that this process loads, as it loads them."""
    found, load = [], step.load_policy

    def noted(path, *more):
        found.append(path)
        return load(path, *more)

    monkeypatch.setattr(step, "load_policy", noted)
    return found


def test_evaluating_loads_the_policy_once_and_returns_what_the_verb_writes(checkpoint, loads, tmp_path):
    done = evaluate(checkpoint, SHORT)
    assert loads == [checkpoint]
    assert [(own.task, own.seed) for own in done.episodes] == [
        ("reach", 10_000), ("reach", 10_001), ("push", 10_000), ("push", 10_001),
    ]  # fmt: skip
    line = ["evaluate", str(checkpoint), "--tasks", "push", "reach", "--max-ticks", "2", "--seeds", "2", "--jobs", "1"]
    assert main([*line, "--json", str(tmp_path / "summary.json")]) == 0
    assert loads == [checkpoint] * 2, "once more, for another evaluation"
    written = json.loads((tmp_path / "summary.json").read_text())
    assert unmeasured(written) == unmeasured(done.summary)


def unmeasured(values):
    """Return figures without those that are measured."""
    if isinstance(values, dict):
        return {name: unmeasured(own) for name, own in values.items() if name not in MEASURED}
    return [unmeasured(own) for own in values] if isinstance(values, list) else values


def test_without_tasks_those_that_the_policy_was_trained_on_are_played_and_said(checkpoint, caplog):
    with caplog.at_level("INFO"):
        done = evaluate(str(checkpoint), EvaluationSettings(max_ticks=1, seeds=1))
    assert [task.name for task in done.settings.tasks] == ["drawer-open"]
    assert "the policy was not trained on reach, push" in caplog.text


def test_what_a_node_would_refuse_is_refused(checkpoint):
    with pytest.raises(SettingError, match="control.rate is 30 Hz"):
        evaluate(checkpoint, EvaluationSettings(tasks=SHORT.tasks, deployed=ControlSettings(rate=30.0)))


def test_comparing_loads_every_policy_once(checkpoint, loads, tmp_path):
    done = compare(checkpoint, ComparisonSettings(("full", "dysl", "static"), SHORT), tmp_path / "out")
    assert loads == [checkpoint]
    assert [row["method"] for row in done.table["methods"]] == ["full", "dysl", "static"]
    assert all(path.is_file() for path in done.written)
