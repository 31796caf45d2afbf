"""A comparison: equal scenes, bit for bit again, resumed as if never broken off, refused under other settings."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.comparison.decision_plots import write_decision_pictures
from dysl_vla_ros.comparison.episode_figures import MILLISECONDS
from dysl_vla_ros.comparison.methods.method import MethodOptions
from dysl_vla_ros.comparison.methods.registry import METHODS, method_named
from dysl_vla_ros.comparison.plan import Comparison, Entry, entries_named
from dysl_vla_ros.comparison.plots import write_pictures
from dysl_vla_ros.comparison.results import layers_beyond_free, results_of
from dysl_vla_ros.comparison.run import play
from dysl_vla_ros.comparison.table import FIELDS, table_of
from dysl_vla_ros.comparison.text import markdown, print_comparison
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings
from dysl_vla_ros.records.phases import CLOSING, FREE, PHASES
from dysl_vla_ros.settings import AUTOMATIC
from dysl_vla_ros.simulation.tasks import tasks_named
from floor_records import write_floors
from harness import wait_until
from processes import descendants, is_alive
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

pytestmark = pytest.mark.slow  # a minute and a half in all

TICKS, SEEDS = 5, 2
LABELS = (*METHODS, "full@4", "static@4", "dysl@4")
TASK_NAMES = ("reach", "push-red")  # one of each set


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("base"))
    make_tiny_dysl(folder / "dysl", folder)
    floors = folder / "floors"
    make_tiny_dysl(floors / "small", folder)
    write_floors(floors, {"small": (3, {"reach": "1", "push-red": "0"})}, dict.fromkeys(TASK_NAMES, "1"))
    return folder


def shallow(checkpoint):
    return dict.fromkeys(("shallow", "shallow_distilled"), str(checkpoint))


def comparison(checkpoint, labels=LABELS, **changes):
    values = {
        "entries": entries_named(labels),
        "options": MethodOptions(str(checkpoint), checkpoints=shallow(checkpoint), floors=str(checkpoint / "floors")),
        "evaluation": EvaluationSettings(max_ticks=TICKS, seeds=SEEDS, tasks=tuple(tasks_named(TASK_NAMES))),
        "calibration_seeds": 3,
    }
    return Comparison(**values | changes)


def played_in(folder, own):
    return play(own, folder, jobs=1)


def kept(folder: Path) -> dict[str, dict]:
    """Return every episode of a run by its file's name, without milliseconds."""
    found = {}
    for path in sorted(folder.glob("episodes/*/[a-z]*.json")):  # a kill may leave a temporary file, .NAME
        values = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
        found[f"{path.parent.name}/{path.name}"] = {k: v for k, v in values.items() if k not in MILLISECONDS}
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def played(checkpoint, folder):
    return played_in(folder, comparison(checkpoint))


def test_every_method_plays_every_scene_once(played, folder):
    scenes = {(task, 10_000 + number) for task in TASK_NAMES for number in range(SEEDS)}
    assert [entry.label for entry in played.episodes] == list(LABELS)
    for entry, episodes in played.episodes.items():
        assert len(episodes) == len(scenes)
        assert {(own.task, own.seed) for own in episodes} == scenes
        assert all(own.method == entry.label and own.ticks == TICKS for own in episodes)
        assert all(len(own.layer_calls) == -(-TICKS // entry.m) for own in episodes)
    clocks = SEEDS * len(TASK_NAMES)  # of the second stage; in the first, full takes part
    assert len(kept(folder)) == len(LABELS) * len(scenes) + clocks


@pytest.fixture(scope="module")
def rerun(tmp_path_factory, checkpoint):
    """A second run, of fewer methods."""
    folder = tmp_path_factory.mktemp("rerun")
    own = comparison(checkpoint, ("full", "dysl", "random", "oracle"))
    played_in(folder, own)
    return folder, own


def test_the_same_seeds_give_the_same_bits_whoever_else_plays(played, folder, rerun):
    before, again = kept(folder), kept(rerun[0])
    assert len(again) == (4 + 1) * SEEDS * len(TASK_NAMES)
    assert all(before[name] == again[name] for name in again)


def test_a_run_that_was_broken_off_goes_on_as_if_it_never_was(rerun):
    folder, own = rerun
    whole, paths = kept(folder), sorted(folder.glob("episodes/*/*.json"))
    gone, left = paths[::5], {path: path.stat().st_mtime_ns for number, path in enumerate(paths) if number % 5}
    for path in gone[1:]:
        path.unlink()
    gone[0].write_text("{ cut off")
    (folder / "matched.json").unlink()
    played_in(folder, own)
    assert kept(folder) == whole
    assert {path: path.stat().st_mtime_ns for path in left} == left, "nothing was played twice"


def test_a_run_grows_by_further_scenes_and_plays_none_again(rerun):
    folder, own = rerun
    before = {path: path.stat().st_mtime_ns for path in folder.glob("episodes/*/*.json")}
    grown = played_in(folder, replace(own, evaluation=replace(own.evaluation, seeds=own.evaluation.seeds + 1)))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for entry, episodes in grown.episodes.items():
        assert len(episodes) == len(TASK_NAMES) * (own.evaluation.seeds + 1), entry.label


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"evaluation": EvaluationSettings(max_ticks=9, seeds=1, tasks=tuple(tasks_named(TASK_NAMES)))},
         "max_ticks was 5, now 9"),
        ({"depth": 5.0}, "depth was null, now 5.0"),
        ({"entries": entries_named(("full",))}, r'methods was \["full", "dysl",.*\], now \["full"\]'),
    ],
)  # fmt: skip
def test_a_folder_of_other_settings_is_refused_and_what_differs_is_named(played, folder, checkpoint, change, said):
    before = kept(folder)
    with pytest.raises(DataError, match=f"holds a run with other settings: {said}; name another folder by --out"):
        played_in(folder, comparison(checkpoint, **change))
    assert kept(folder) == before


def test_other_weights_are_other_settings(played, folder, checkpoint, tmp_path):
    other = make_tiny_dysl(tmp_path / "dysl", checkpoint, seed=4)
    options = MethodOptions(str(checkpoint), str(other), checkpoints=shallow(checkpoint))
    with pytest.raises(DataError, match=r"files.adapters/adapters.safetensors was .*, now"):
        played_in(folder, comparison(checkpoint, options=options))


def test_methods_of_equal_depth_are_set_to_the_depth_of_dysl_in_each_set(played):
    for tasks, names in (("easy", ("reach",)), ("hard", ("push-red",))):
        group = played.groups[f"{tasks}@1"]
        own = [call for e in played.episodes[Entry("dysl", 1)] if e.task in names for call in e.layer_calls]
        assert group.depth == pytest.approx(sum(own) / len(own))
        fixed = [e for e in played.episodes[Entry("fixed", 1)] if e.task in names]
        wanted = min(6, max(3, int(group.depth + 0.5)))
        assert {call for e in fixed for call in e.layer_calls} == {wanted}
        assert "full-depth calibration runs" in group.values["fixed_plan_choice"]
    assert played.groups["easy@4"].depth is None


def test_a_depth_that_is_given_needs_no_dysl_and_no_calibration_runs_where_none_are_wanted(checkpoint, tmp_path):
    one = EvaluationSettings(max_ticks=3, seeds=1, tasks=tuple(tasks_named(["reach"])))
    labels = ("fixed", "random", "oracle")
    given = comparison(checkpoint, labels, evaluation=one, depth=4.4, calibration_seeds=0, oracle_threshold=0.1)
    played = played_in(tmp_path, given)
    group = played.groups["easy@1"]
    assert (group.depth, group.values["fixed_plan_choice"]) == (4.4, "blocks filled evenly")
    assert group.values["oracle_threshold"] == 0.1
    assert {call for own in played.episodes[Entry("fixed", 1)] for call in own.layer_calls} == {4}
    assert len(played.clocks[Entry("fixed", 1)]) == 1, "without full, the first ticks are measured at full depth"
    assert table_of(played, "tiny")["methods"][0]["stack_speedup"] > 0
    assert table_of(played, "tiny")["methods"][0]["difference"] is None


def test_without_a_depth_to_come_to_nothing_is_played(checkpoint, tmp_path):
    with pytest.raises(DataError, match=r"fixed, random must know the depth to come to: name dysl"):
        played_in(tmp_path / "out", comparison(checkpoint, ("full", "fixed", "random", "dysl@4")))
    assert not (tmp_path / "out").exists()


def test_the_oracle_without_calibration_runs_needs_the_tolerated_error_or_a_threshold(checkpoint, tmp_path):
    with pytest.raises(DataError, match="has no tolerated error for the oracle; name a threshold by"):
        played_in(tmp_path, comparison(checkpoint, ("oracle",), calibration_seeds=0))


# --- what comes of it


def test_the_table_has_every_field_and_no_nan(played, tmp_path):
    table = table_of(played, "tiny")
    text = json.dumps(table, allow_nan=False)
    assert json.loads(text) == table
    assert {"machine", "versions", "commit", "methods"} <= table.keys()
    assert len(table["methods"]) == 2 * len(LABELS)
    for row in table["methods"]:
        assert tuple(row) == FIELDS
        assert row["tasks"] in ("easy", "hard") and row["episodes"] == SEEDS
        assert 0.0 <= row["success_low"] <= row["successes"] / row["episodes"] <= row["success_high"] <= 1.0
        bound, full = method_named(row["method"]).bound, row["method"] == "full"
        assert (row["stack_ms_mean"] is None) == (row["step_ms_p99"] is None) == (row["stack_speedup"] is None) == bound
        assert (row["difference"] is None) == (row["difference_low"] is None) == full
        if not bound:
            assert row["stack_ms_mean"] <= row["step_ms_mean"]
            assert row["stack_ms_p50"] <= row["stack_ms_p99"]
    rows = {(row["method"], row["tasks"], row["actions_per_inference"]): row for row in table["methods"]}
    assert rows["full", "easy", 1]["stack_speedup"] == 1.0
    assert rows["static", "easy", 1]["layers_mean"] == 3.0 and rows["static", "easy", 1]["layers_std_within"] == 0.0
    assert rows["shallow", "hard", 1]["layers_total"] == 6
    assert rows["full", "hard", 1]["training_steps"] == 0 and rows["dysl", "hard", 1]["training_steps"] is None


def test_the_results_say_where_layers_went_and_what_decided(played):
    details = results_of(played)
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    rows = {(row["method"], row["tasks"], row["actions_per_inference"]): row for row in details["methods"]}
    assert len(rows) == 2 * len(LABELS)
    for row in rows.values():
        assert set(row["phases"]) == set(PHASES)
        assert sum(own["inferences"] for own in row["phases"].values()) == row["inferences"]
        assert sum(own["episodes"] for own in row["by_task"]) == SEEDS
    dysl, static = rows["dysl", "easy", 1], rows["static", "easy", 1]
    for block in dysl["allow_points"]:
        assert sum(block["counts"]) == dysl["inferences"]
        assert len(block["counts"]) == block["end"] - block["first"] + 1
    assert rows["controllers", "easy", 1]["held_back_share"] == static["held_back_share"] == 0.0
    assert rows["full", "easy", 1]["held_back_share"] is None, "its depth is not up to it"
    assert static["corrections"] is None and rows["verify", "easy", 1]["corrections"]["mean"] > 0.0
    assert details["set"]["easy@1"]["fixed_plan"] is not None
    signals = details["set"]["hard@1"]["signals"]
    assert signals["controllers"]["rank_correlation"] is not None and "-dC" in signals
    assert details["set"]["easy@4"]["signals"] is None, "no calibration runs were played for it"
    assert static["layers_beyond_free"]["mean"] in (0.0, None), "its depth is constant"


def test_layers_beyond_free_motion_are_counted_episode_by_episode(played):
    episode = next(iter(played.episodes.values()))[0]
    calls = [(2, 4), (3, 9)]  # layers in free motion, and where the gripper closes
    own = [replace(episode, phases=[0, 0, PHASES.index(CLOSING)], layer_calls=[a, a, b]) for a, b in calls]
    constant = replace(episode, phases=[0, 0, 0], layer_calls=[2, 2, 2])
    found = layers_beyond_free([*own, constant])
    assert (found["mean"], found["episodes"]) == (4.0, 2), "an episode of free motion alone tells nothing"
    assert found["low"] < 4.0 < found["high"]
    assert layers_beyond_free([constant])["mean"] is None


def test_the_decisions_are_drawn_where_there_are_any(played, tmp_path):
    details = results_of(played)
    rows = {row["method"]: row for row in details["methods"] if row["actions_per_inference"] == 1}
    phases = rows["dysl"]["phases"]
    phases[CLOSING] = {"inferences": 3, "layers_mean": phases[FREE]["layers_mean"] + 2.0, "verified_share": 1.0}
    names = [path.name for path in write_decision_pictures(tmp_path, {"methods": [rows["dysl"]]})]
    assert names == ["phases.png", "allow_points.png"] and all((tmp_path / name).is_file() for name in names)
    assert write_decision_pictures(tmp_path / "none", {"methods": [rows["static"]]}) == []


def test_the_table_is_printed_and_drawn(played, tmp_path, capsys):
    table = table_of(played, "tiny")
    print_comparison(table, Console(width=120))
    said = capsys.readouterr().out
    assert all(label in said for label in LABELS) and "oracle: a bound" in said
    for path in write_pictures(tmp_path, table):
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000
    shown = markdown(table)
    assert shown.count("\n| `") == 2 * len(LABELS)
    assert len({line.count("|") for line in shown.splitlines() if line}) == 1, "every row has as many cells"


# --- the command


def command(checkpoint, out, *more):
    return ["evaluate", str(checkpoint), "--out", str(out), "--max-ticks", "3", "--seeds", "1", "--jobs", "1", *more]


def test_the_command_takes_the_tasks_that_the_policy_was_trained_on(checkpoint, tmp_path, capsys):
    assert main(command(checkpoint, tmp_path, "--methods", "full", "dysl@4", "dysl@auto")) == 0
    said = capsys.readouterr().out
    assert "the policy was not trained on reach, push" in said
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["tasks"] == {"easy": ["drawer-open"]}
    rows = {(row["method"], row["actions_per_inference"]): row for row in table["methods"]}
    assert list(rows) == [("full", 1), ("dysl", 4), ("dysl", AUTOMATIC)]
    assert rows["dysl", 4]["difference"] is None, "there is no full@4 to compare it with"
    assert rows["dysl", AUTOMATIC]["difference"] is not None, "full plays one action, as it does where m is automatic"
    assert [row["inferences_mean"] for row in rows.values()] == [3.0, 1.0, 3.0], "of 3 ticks: nothing is known yet"
    assert "dysl@auto" in said and "inferences" in said
    for name in ("table.json", "results.json", "pareto.png", "layers.png"):
        assert (tmp_path / name).is_file() and str(tmp_path / name) in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "ful"], "unknown method 'ful', did you mean full? there are"),
        (["--methods", "dysl@"], "'dysl@': behind the @ stands the number of actions"),
        (["--methods", "shallow"], "the method shallow is another checkpoint: name it by --shallow"),
        (["--methods", "full", "--full-depth"], "--full-depth is the method full"),
        (["--methods", "full", "--json", "x"], "--json is for one method"),
        (["--methods", "full", "--depth", "nan"], "--depth must be 1 or more, not nan"),
        (["--methods", "full", "--calibration-seeds", "-1"], "--calibration-seeds must be at least 0"),
        (["--depth", "5"], "--out, --depth: for several methods side by side; name them by --methods"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(checkpoint, tmp_path, capsys, words, said):
    assert main(command(checkpoint, tmp_path / "out", *words)) == 2
    assert said in capsys.readouterr().err.replace("; there are", " there are")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)  # six processes that load torch and the simulator
def test_a_killed_run_leaves_no_process_and_goes_on_in_several(checkpoint, tmp_path):
    line = [sys.executable, "-m", "dysl_vla_ros.commands.main", "evaluate", str(checkpoint), "--tasks", *TASK_NAMES]
    line += ["--methods", "full", "dysl", "--seeds", "4", "--max-ticks", "60", "--jobs", "2"]
    alone = subprocess.run(
        [*line, "--out", str(tmp_path / "whole")], capture_output=True, text=True, timeout=280, check=False
    )
    assert alone.returncode == 0, alone.stderr
    broken = [*line, "--out", str(tmp_path / "broken")]
    with subprocess.Popen(broken, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: len(kept(tmp_path / "broken")) >= 3 or process.poll() is not None, 120, "three episodes")
        players = descendants(process.pid)
        process.kill()
    assert 3 <= len(kept(tmp_path / "broken")) < len(kept(tmp_path / "whole"))
    assert len(players) >= 2
    wait_until(lambda: not any(map(is_alive, players)), 30, "the end of the killed run's processes")
    resumed = subprocess.run(broken, capture_output=True, text=True, timeout=280, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert kept(tmp_path / "broken") == kept(tmp_path / "whole")
