"""`evaluate` and `compare` as functions: plain results, the verb's figures, every policy loaded once."""

import json
from dataclasses import replace

import pytest

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.comparison.compare import ComparisonSettings, compare
from dysl_vla_ros.comparison.methods.method import Library, MethodOptions
from dysl_vla_ros.comparison.methods.registry import METHODS
from dysl_vla_ros.comparison.plan import Comparison, entries_named
from dysl_vla_ros.comparison.run import play
from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.evaluation.calibration_runs import SimulatedRuns, simulated_runs
from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings, full_depth_runs, play_episodes
from dysl_vla_ros.evaluation.evaluate import evaluate
from dysl_vla_ros.policies import registry
from dysl_vla_ros.settings import ControlSettings
from dysl_vla_ros.simulation.tasks import tasks_named
from test_devices import ABSENT, needs_gpu
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
    found, load = [], registry.load_policy

    def noted(path, *more):
        found.append(path)
        return load(path, *more)

    monkeypatch.setattr(registry, "load_policy", noted)
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


@pytest.mark.parametrize("words", [[], ["--methods", "full", "dysl"]])
def test_a_device_that_is_not_there_is_refused_before_any_work(words, checkpoint, loads, tmp_path, capsys):
    out = tmp_path / "out"
    line = ["evaluate", str(checkpoint), *words, *(["--out", str(out)] if words else [])]
    assert main([*line, "--device", ABSENT]) == 2
    assert f"--device is '{ABSENT}', this machine has cpu" in capsys.readouterr().err
    assert not loads and not out.exists()


def test_a_run_goes_on_with_no_other_device_and_old_runs_go_on_with_the_cpu(checkpoint):
    assert full_at("cuda", checkpoint).identity() == full_at("cpu", checkpoint).identity() | {"device": "cuda"}
    assert "device" not in full_at("cpu", checkpoint).identity(), "as before there was one"


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_device_is_that_of_every_process_that_plays(jobs, checkpoint, tmp_path):
    """Each of them loads the policy for itself, and refuses what is not there: none computes elsewhere."""
    settings = replace(SHORT, checkpoint=str(checkpoint), device=ABSENT)
    for play_all in (
        lambda: list(play_episodes(settings, jobs)),
        lambda: full_depth_runs(settings, jobs),
        lambda: simulated_runs(checkpoint, 1, SimulatedRuns(("reach",), seeds=1, jobs=jobs, device=ABSENT)),
        lambda: play(full_at(ABSENT, checkpoint), tmp_path / "methods", jobs, Library() if jobs > 1 else None),
    ):
        with pytest.raises(SettingError, match=f"is '{ABSENT}', this machine has cpu"):
            play_all()


def full_at(device, checkpoint):
    settings = replace(SHORT, checkpoint=str(checkpoint), device=device)
    return Comparison(entries_named(["full"]), MethodOptions(str(checkpoint)), settings, calibration_seeds=0)


@needs_gpu
def test_methods_are_played_on_a_gpu(checkpoint, tmp_path):
    settings = replace(SHORT, device="cuda")
    assert len(evaluate(checkpoint, settings, jobs=2).episodes) == 4
    methods = ("full", "dysl", "static", "fixed", "random", "oracle", "action_errors")
    named = tuple(name for name in methods if name in METHODS)
    compare(checkpoint, ComparisonSettings(named, settings, calibration_seeds=1), tmp_path, jobs=2)
    assert {row["method"] for row in json.loads((tmp_path / "table.json").read_text())["methods"]} == set(named)


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
