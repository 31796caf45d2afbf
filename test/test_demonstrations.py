"""Recording goes on where it stopped; training goes on where it stopped; what comes out loads."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import ActionSpec
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.runs.training_data import draw_evenly
from dysl_vla_ros.simulation.demonstrations import record_task
from dysl_vla_ros.simulation.tasks import TASKS
from dysl_vla_ros.training.behaviour_cloning import learning_rate, train
from dysl_vla_ros.training.dataset import load_episodes, mapped, observations, observations_in_order
from dysl_vla_ros.training.options import TrainingSettings
from harness import wait_until
from processes import descendants, is_alive

EPISODES = 6


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demonstrations")
    record_task("reach", folder, EPISODES)
    return folder


def test_episodes_hold_pictures_and_clean_labels_of_equal_length(recorded):
    paths = sorted((recorded / "reach").glob("*.npz"))
    assert len(paths) == EPISODES
    disturbed, said = [], set()
    for path in paths:
        with np.load(path, allow_pickle=False) as episode:
            lengths = {len(episode[name]) for name in ("image", "wrist_image", "proprioception", "action", "scene")}
            assert len(lengths) == 1
            assert np.all(np.abs(episode["action"][:, :3]) <= 0.0125 + 1e-6), "a label is the expert's, without noise"
            disturbed.append(bool(episode["disturbed"]))
            said.add(str(episode["instruction"]))
    assert set(disturbed) == {False, True}
    assert len(said) > 1 and said <= set(TASKS["reach"].instructions), "trained paraphrases, no held-out one"


def test_recording_again_changes_nothing_and_a_lost_episode_is_made_again_as_it_was(recorded):
    paths = sorted((recorded / "reach").glob("*.npz"))
    times = [path.stat().st_mtime_ns for path in paths]
    lost = paths[2].read_bytes()
    paths[2].unlink()
    record_task("reach", recorded, EPISODES)
    assert [path.stat().st_mtime_ns for path in paths if path != paths[2]] == times[:2] + times[3:]
    assert paths[2].read_bytes() == lost


@pytest.mark.timeout(180)  # two processes that load the simulator
def test_a_recording_that_is_ended_leaves_no_process(tmp_path):
    line = [sys.executable, "-m", "dysl_vla_ros.commands.main", "demonstrations", str(tmp_path / "data")]
    line += ["--tasks", "reach", "push", "--episodes", "500", "--jobs", "2"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: any((tmp_path / "data").glob("*/*.npz")), 120, "a first episode")
        recorders = descendants(process.pid)
        process.terminate()
    assert len(recorders) >= 2
    wait_until(lambda: not any(map(is_alive, recorders)), 30, "the end of the recording processes")


def test_chunks_are_cut_at_the_end_of_their_episode(recorded):
    episodes = load_episodes(recorded, [TASKS["reach"]], quiet=True)
    last = int(episodes.end[0]) - 1
    actions, mask = episodes.chunks(np.array([0, last]), 8)
    assert actions.shape == (2, 8, 4)
    np.testing.assert_array_equal(mask[0], np.ones(8))
    np.testing.assert_array_equal(mask[1], [1, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(actions[0], episodes.action[:8])


def test_frames_become_observations_of_the_task_that_they_are_from(recorded):
    episodes = load_episodes(recorded, [TASKS["reach"]], quiet=True)
    seen = list(observations(episodes, 5))
    assert len(seen) == 5
    assert {observation.instruction for observation in seen} <= set(episodes.instructions)
    assert seen[0].images["wrist_image"].shape == (96, 96, 3), "as recorded: the policy shrinks it"


def test_whole_episodes_come_in_their_order_and_each_beginning_is_told(recorded):
    episodes = load_episodes(recorded, [TASKS["reach"]], quiet=True)
    length = int(episodes.end[0])
    seen, begins = observations_in_order(episodes, length + 1)
    seen = list(seen)
    assert len(seen) == len(begins) > length and sum(begins) == 2 and begins[0]
    first = next(start for start in np.flatnonzero(np.diff(episodes.episode, prepend=-1))
                 if np.array_equal(episodes.proprioception[start], seen[0].proprioception))  # fmt: skip
    for number, observation in enumerate(seen[: begins.index(True, 1)]):
        assert np.array_equal(observation.proprioception, episodes.proprioception[first + number])


def test_frames_are_drawn_from_all_tasks_alike_while_they_last(recorded):
    rare, many = 5, 60
    kinds = np.where(np.arange(many) < rare, 1, 0)
    for count in (2 * rare, 2 * rare + 4):
        frames = draw_evenly(kinds, count)
        assert len(set(frames)) == count and (frames < rare).sum() == rare
    np.testing.assert_array_equal(np.sort(draw_evenly(kinds, many + 9)), np.arange(many))

    episodes = load_episodes(recorded, [TASKS["reach"]], quiet=True)
    mixed = dataclasses.replace(episodes, task=(np.arange(len(episodes)) < rare).astype(np.int64))
    first = {episodes.proprioception[frame].tobytes() for frame in range(rare)}
    assert sum(seen.proprioception.tobytes() in first for seen in observations(mixed, 2 * rare)) == rare


def test_training_goes_on_at_the_step_it_stopped_at_and_its_checkpoint_loads(recorded, tmp_path):
    def run(steps):
        settings = TrainingSettings(
            steps=steps, batch_size=4, compile=False, layers=3, width=16, heads=2, feed_forward=16
        )
        train(recorded, tmp_path / "out", [TASKS["reach"]], settings)
        return json.loads((tmp_path / "out" / "config.json").read_text())

    assert run(1)["training"]["steps"] == 1
    config = run(2)
    assert config["training"]["steps"] == 2
    policy = load_policy(tmp_path / "out")
    assert len(policy.layers) == 3
    assert isinstance(policy.action, ActionSpec) and policy.action.horizon == 8


def test_the_learning_rate_rises_then_falls_to_its_final_share():
    settings = TrainingSettings(steps=1000)
    rates = [learning_rate(step, settings) for step in range(1000)]
    top = int(np.argmax(rates))
    assert rates[top] == pytest.approx(settings.learning_rate) and top < 40
    assert np.all(np.diff(rates[:top]) > 0) and np.all(np.diff(rates[top + 1 :]) < 0)
    assert rates[-1] == pytest.approx(settings.final_rate * settings.learning_rate, rel=0.01)


def test_a_task_without_episodes_is_named_with_the_command_that_records_it(tmp_path):
    with pytest.raises(DataError, match="dysl_vla demonstrations .* --tasks push"):
        load_episodes(tmp_path, [TASKS["push"]])


def test_mapped_pictures_are_those_of_the_file_and_cannot_be_written_to(recorded):
    path = next((recorded / "reach").glob("*.npz"))
    found = mapped(path, ("image", "wrist_image"))
    with np.load(path, allow_pickle=False) as arrays:
        for name, pictures in found.items():
            np.testing.assert_array_equal(pictures, arrays[name])
            with pytest.raises(ValueError, match="read-only"):
                pictures[0] = 0


def test_a_damaged_episode_is_named(recorded, tmp_path):
    folder = tmp_path / "reach"
    folder.mkdir()
    for path in (recorded / "reach").glob("*.npz"):
        (folder / path.name).write_bytes(path.read_bytes())
    whole = (folder / "00001.npz").read_bytes()
    for damaged in (
        b"PK\x03\x04 not a whole file",
        whole[: len(whole) // 2],
        whole.replace(b"wrist_image", b"waist_image"),
    ):
        (folder / "00001.npz").write_bytes(damaged)
        with pytest.raises(DataError, match="00001.npz cannot be read"):
            load_episodes(tmp_path, [TASKS["reach"]], quiet=True)
