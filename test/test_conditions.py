"""Conditions of closed-loop evaluation: each changes what it names and nothing else, for every method alike."""

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.comparison.methods.method import MethodOptions
from dysl_vla_ros.comparison.plan import Comparison, entries_named
from dysl_vla_ros.comparison.run_folder import RunFolder
from dysl_vla_ros.comparison.text import print_comparison
from dysl_vla_ros.errors import DataError, SettingError
from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings, play_episode
from dysl_vla_ros.evaluation.conditions import CONDITIONS, PUSH_SPEED, PUSH_TICKS, condition_named
from dysl_vla_ros.evaluation.evaluate import tasks_under
from dysl_vla_ros.records.summary import summarise
from dysl_vla_ros.records.summary_table import print_table
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import RuntimeSettings, SkippingSettings
from dysl_vla_ros.simulation.scene import Scene
from dysl_vla_ros.simulation.seeds import OTHER_SCENE
from dysl_vla_ros.simulation.tasks import TASKS, siblings
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

SEED, TICKS = 10_000, 4
TASK = TASKS["push-red"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("base"))
    make_tiny_dysl(folder / "dysl", folder)
    return folder


@pytest.fixture(scope="module")
def runtime(checkpoint):
    return Runtime.load(str(checkpoint), "")


class KeptCommands(Scene):
    """A scene that keeps the velocities that it was given since the reset."""

    def reset(self, seed):
        super().reset(seed)
        self.velocities = []

    def hold(self, velocity, gripper_opening):
        super().hold(velocity, gripper_opening)
        self.velocities = [*getattr(self, "velocities", []), np.array(velocity)]


@pytest.fixture(scope="module")
def scene():
    own = KeptCommands(TASK)
    yield own
    own.close()


@pytest.fixture(scope="module")
def play(runtime, scene):
    """Return a player of one episode: its record, observations, first actions and where the hand ended."""

    def played(seed=SEED, **changes):
        seen, actions = [], []

        def watch(observation, result):
            seen.append(observation)
            actions.append(result.chunk.actions)

        record = play_episode(runtime, scene, seed, EvaluationSettings(**{"max_ticks": TICKS} | changes), watch=watch)
        return record, seen, np.stack(actions), scene.state[:3].copy()

    return played


@pytest.fixture(scope="module")
def plain(play):
    return play()


def same_pictures(one, other):
    return all(np.array_equal(one.images[camera], other.images[camera]) for camera in one.images)


def test_plain_is_what_is_played_where_no_condition_is_named(play, plain):
    record, seen, actions, hand = play(condition="plain")
    assert record.instruction == plain[0].instruction == TASK.instruction
    assert all(same_pictures(one, other) for one, other in zip(seen, plain[1], strict=True))
    np.testing.assert_array_equal(actions, plain[2])
    np.testing.assert_array_equal(hand, plain[3])


def said_under(condition, scene):
    return [condition_named(condition).begin(scene, seed).instruction for seed in range(SEED, SEED + 20)]


@pytest.mark.parametrize(
    ("condition", "texts"),
    [
        ("paraphrases", TASK.instructions[1:]),
        ("held_out", TASK.held_out),
        ("other_instruction", (TASKS["push-green"].instruction, TASKS["push-blue"].instruction)),
    ],
)
def test_other_words_and_the_same_pictures(play, plain, scene, condition, texts):
    record, seen, _, _ = play(condition=condition)
    first, plain_first = seen[0], plain[1][0]
    assert record.task == TASK.name
    assert {own.instruction for own in seen} == {record.instruction}
    assert record.instruction in texts
    assert same_pictures(first, plain_first)
    np.testing.assert_array_equal(first.proprioception, plain_first.proprioception)
    said = said_under(condition, scene)
    assert set(said) == set(texts), "each of them comes in twenty scenes"
    assert said == said_under(condition, scene)


def test_dim_pictures_have_four_fifths_of_the_brightness(play, plain):
    _, seen, _, _ = play(condition="dim")
    first, plain_first = seen[0], plain[1][0]
    for camera, picture in plain_first.images.items():
        assert first.images[camera].dtype == np.uint8
        np.testing.assert_array_equal(first.images[camera], np.rint(0.8 * picture))
    np.testing.assert_array_equal(first.proprioception, plain_first.proprioception)
    assert first.instruction == plain_first.instruction


def test_other_images_are_those_of_another_scene_that_moves_with_the_arm(play, plain, scene):
    settings = {"condition": "other_images", "delay": 0.0125}  # so that time advances in two parts a tick
    record, seen, _, _ = play(**settings)
    scene.reset(SEED + OTHER_SCENE)
    assert same_pictures(seen[0], scene.observe().with_instruction(""))
    assert not same_pictures(seen[0], plain[1][0])
    np.testing.assert_array_equal(seen[0].proprioception, plain[1][0].proprioception)
    assert {own.instruction for own in seen} == {record.instruction} == {TASK.instruction}
    assert not same_pictures(seen[0], seen[-1]), "the other scene goes on"
    again = play(**settings)[1]
    assert all(same_pictures(one, two) for one, two in zip(seen, again, strict=True))


def test_the_other_scene_takes_every_command_of_the_first(scene):
    scene.reset(SEED)
    met = CONDITIONS["other_images"].begin(scene, SEED)
    for _ in range(5):
        met.hold(np.array([0.2, 0.0, 0.0]), 0.0)
        met.advance(1)
        met.advance(3)
    pictures = met.observe().images
    hand = scene.state[:3].copy()
    met.close()
    scene.reset(SEED + OTHER_SCENE)
    for _ in range(5):
        scene.hold(np.array([0.2, 0.0, 0.0]), 0.0)
        scene.advance(4)
    np.testing.assert_allclose(scene.state[:3], hand, atol=1e-3)
    assert all(np.array_equal(picture, scene.render(camera)) for camera, picture in pictures.items())


def disturbance(scene, seed, command, ticks=400):
    """Return what pushes add to the same command at each tick: (ticks, 3)."""
    scene.reset(seed)
    met = CONDITIONS["pushes"].begin(scene, seed)
    for _ in range(ticks):
        met.hold(np.array(command), 0.5)
    return np.stack(scene.velocities) - command


def test_pushes_have_one_strength_and_length_and_come_by_the_seed_alone(scene):
    own = disturbance(scene, SEED, (0.0, 0.0, 0.0))
    np.testing.assert_allclose(disturbance(scene, SEED, (0.2, -0.1, 0.0)), own, atol=1e-12)
    assert not np.array_equal(disturbance(scene, SEED + 1, (0.0, 0.0, 0.0)), own)
    pushed = [(*push, tick) for tick, push in enumerate(own) if np.any(push)]
    speeds = np.linalg.norm(own[np.any(own != 0.0, axis=1)], axis=1)
    np.testing.assert_allclose(speeds, PUSH_SPEED)
    ticks = [sum(1 for other in pushed if other[:3] == push) for push in {own[:3] for own in pushed}]
    assert len(ticks) > 5 and ticks.count(PUSH_TICKS) >= len(ticks) - 1, "only the last may be cut off"
    share = np.mean([np.any(disturbance(scene, seed, (0.0, 0.0, 0.0)), axis=1).mean() for seed in range(20)])
    assert share == pytest.approx(8 / (8 + 19), abs=0.05), "8 ticks, then 19 without one on average"


def test_pushes_move_the_arm_of_every_method_at_the_same_ticks(play, scene):
    def velocities(skipping, **changes):
        settings = RuntimeSettings(skipping=SkippingSettings(rule="dysl" if skipping else "full"))
        record, seen, _, _ = play(runtime=settings, max_ticks=30, **changes)
        assert record.ticks == len(scene.velocities) == 30, "one command a tick"
        return np.stack(scene.velocities), seen

    added = disturbance(scene, SEED, (0.0, 0.0, 0.0), 30)
    first = int(np.flatnonzero(np.any(added, axis=1))[0])
    for skipping in (True, False):
        held, seen = velocities(skipping, condition="pushes")
        plain_held, plain_seen = velocities(skipping)
        np.testing.assert_array_equal(held[:first], plain_held[:first])
        np.testing.assert_allclose(held[first] - plain_held[first], added[first], atol=1e-12)
        assert same_pictures(seen[first], plain_seen[first]) and not same_pictures(
            seen[first + 1], plain_seen[first + 1]
        )
        assert {own.instruction for own in seen} == {TASK.instruction}


def test_siblings_are_the_tasks_that_lay_out_the_same_markers():
    assert [own.name for own in siblings(TASK)] == ["push-green", "push-blue"]
    assert all(not siblings(task) for task in TASKS.values() if not (task.markers or task.chain))
    assert all(len(task.instructions) > 1 and task.held_out for task in TASKS.values())


def test_tasks_that_have_no_other_instruction_are_refused_by_name_or_left_out(caplog):
    unfit = (TASKS["reach"], TASKS["push"])
    said = "other_instruction cannot be had with reach, push: no other instruction is valid in the scene"
    with pytest.raises(SettingError, match=said):
        EvaluationSettings(condition="other_instruction", tasks=(*unfit, TASK))
    condition = condition_named("other_instruction")
    with caplog.at_level("INFO"):
        assert tasks_under(condition, [*unfit, TASK]) == [TASK]
    assert "no other instruction is valid in the scene of reach, push: left out" in caplog.text
    with pytest.raises(SettingError, match=said):
        tasks_under(condition, list(unfit))


def test_an_episode_of_such_a_task_is_refused_as_well(runtime):
    with pytest.raises(SettingError, match="cannot be had with reach"):
        play_episode(runtime, Scene("reach"), SEED, EvaluationSettings(condition="other_instruction"))


def test_a_name_that_is_none_is_refused_with_those_there_are(checkpoint, capsys):
    names = "plain, paraphrases, held_out, dim, other_instruction, other_images, pushes"
    with pytest.raises(SettingError, match=f"unknown condition 'dark'; there are {names}"):
        EvaluationSettings(condition="dark")
    assert main(["evaluate", str(checkpoint), "--condition", "dark"]) == 2
    assert f"unknown condition 'dark'; there are {names}" in capsys.readouterr().err


def test_the_help_says_what_each_condition_is(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    said = capsys.readouterr().out
    assert all(f"{own.name}: {own.description}" in said for own in CONDITIONS.values())


def test_a_run_of_another_condition_is_refused(checkpoint, tmp_path):
    own = Comparison(
        entries_named(["full"]), MethodOptions(str(checkpoint)), EvaluationSettings(tasks=(TASK,), condition="dim")
    )
    RunFolder(tmp_path).claim(own.identity())
    RunFolder(tmp_path).claim(own.identity())
    other = replace(own, evaluation=replace(own.evaluation, condition="pushes"))
    with pytest.raises(DataError, match='holds a run with other settings: condition was "dim", now "pushes"'):
        RunFolder(tmp_path).claim(other.identity())


def test_one_method_says_its_condition_in_the_summary_and_the_table(checkpoint, tmp_path, capsys):
    line = ["evaluate", str(checkpoint), "--tasks", "push-red", "push-green", "--condition", "other_instruction"]
    line += ["--seeds", "2", "--max-ticks", "2", "--jobs", "1", "--json", str(tmp_path / "summary.json")]
    assert main(line) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["condition"] == "other_instruction"
    for row in summary["tasks"]:
        assert row["instruction"] in {own.instruction for own in siblings(TASKS[row["task"]])}
    assert sum(row["episodes"] for row in summary["tasks"]) == summary["overall"]["episodes"] == 4
    assert "condition other_instruction" in capsys.readouterr().out


def test_two_tasks_that_are_told_the_same_have_a_row_each(play, capsys):
    record, *_ = play()
    summary = summarise([record, replace(record, task="push-green")], condition="other_instruction", runtime="torch")
    assert [row["task"] for row in summary["tasks"]] == ["push-red", "push-green"]
    print_table(summary, Console(width=140))
    assert f"push-green: {TASK.instruction}" in capsys.readouterr().out


def test_several_methods_say_their_condition_in_the_table(checkpoint, tmp_path, capsys):
    line = ["evaluate", str(checkpoint), "--tasks", "push-red", "--condition", "dim", "--methods", "full", "dysl"]
    line += ["--seeds", "1", "--max-ticks", "2", "--jobs", "1", "--out", str(tmp_path)]
    assert main(line) == 0
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["condition"] == "dim"
    assert "hard tasks, condition dim: success" in capsys.readouterr().out
    print_comparison(table | {"condition": "plain"}, Console(width=140))
    assert "hard tasks, condition plain: success" in capsys.readouterr().out
