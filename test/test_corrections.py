"""`dysl_vla demonstrations --policy`, `dysl_vla train --base`: a policy's own mistakes, and the way back from them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.policies.reference import ReferenceNetwork, save_reference
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import AT_FLOOR, RuntimeSettings, SkippingSettings
from dysl_vla_ros.simulation.demonstrations import record_episode
from dysl_vla_ros.simulation.scene import Scene
from dysl_vla_ros.simulation.tasks import TASKS
from dysl_vla_ros.training import corrections
from dysl_vla_ros.training.behaviour_cloning import configure_model
from dysl_vla_ros.training.corrections import EXPERT_TURN, NOTHING, POLICY_TURN, Actor, Turns
from dysl_vla_ros.training.dataset import VALIDATION_EPISODES, load_episodes
from dysl_vla_ros.training.options import TrainingSettings
from noise_episodes import write_noise_episodes
from tiny_checkpoint import make_tiny_dysl

TASK, EPISODES, CORRECTED = "reach", VALIDATION_EPISODES + 1, 1
SMALL = TrainingSettings(layers=3, width=16, heads=2, feed_forward=24)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """Short episodes of noise in the experts' place."""
    return write_noise_episodes(tmp_path_factory.mktemp("data"), [TASK], range(9, 9 + EPISODES))


@pytest.fixture(scope="module")
def checkpoint(recorded, tmp_path_factory) -> Path:
    """A policy of random weights, which knows nothing."""
    torch.manual_seed(3)
    config = configure_model(load_episodes(recorded, [TASKS[TASK]], quiet=True), SMALL)
    folder = tmp_path_factory.mktemp("policy")
    save_reference(ReferenceNetwork(config), folder, {"data": "none: random weights", "steps": 7, "seconds": 2})
    return folder


@pytest.fixture(scope="module")
def corrected(recorded, checkpoint) -> list[Path]:
    assert main(["demonstrations", str(recorded), "--policy", str(checkpoint), "--tasks", TASK, "--jobs", "1",
                 "--episodes", str(CORRECTED)]) == 0  # fmt: skip
    return sorted((recorded / TASK).glob("corrected-*.npz"))


def seen_in(path: Path) -> list[tuple[Observation, np.ndarray]]:
    with np.load(path, allow_pickle=False) as file:
        moments = zip(file["image"], file["wrist_image"], file["proprioception"], file["action"], strict=True)
        said = str(file["instruction"])
        return [(Observation({"image": i, "wrist_image": w}, p, said), a) for i, w, p, a in moments]


def test_the_arm_goes_where_the_policy_takes_it_and_labels_are_the_experts(corrected, checkpoint):
    assert len(corrected) == CORRECTED
    actor = Actor(checkpoint, None)
    for path in corrected:
        moments = seen_in(path)
        seed = int(path.stem.removeprefix(f"corrected-{actor.name}-"))
        alone = record_episode(scene := Scene(TASK), seed, disturbed=False)
        again = record_episode(scene, seed, disturbed=False, drive=Turns(actor, seed))
        scene.close()
        assert len(moments) > len(alone["action"]), "what knows nothing loses time"
        np.testing.assert_array_equal(moments[0][1], alone["action"][0])
        np.testing.assert_array_equal(np.stack([label for _, label in moments]), again["action"])
        assert all(np.all(np.abs(label[:3]) <= 0.0125 + 1e-6) for _, label in moments)


def test_turns_change_hands_within_their_lengths_and_depend_on_the_seed_alone(checkpoint, corrected):
    actor, (observation, label) = Actor(checkpoint, None), seen_in(corrected[0])[0]

    def hands(seed):
        turns = Turns(actor, seed)
        return [not np.array_equal(turns(observation, label), label) for _ in range(200)]

    drawn = hands(5)
    changes = np.flatnonzero(np.diff(np.array(drawn).astype(int))) + 1
    assert drawn[0], "the policy begins"
    lengths = np.diff([0, *changes])
    for number, length in enumerate(lengths):
        low, high = EXPERT_TURN if number % 2 else POLICY_TURN
        assert low <= length < high
    assert hands(5) == drawn != hands(6)


def test_with_adapters_the_policy_acts_at_its_floor_and_its_episodes_have_names_of_their_own(
    checkpoint, corrected, tmp_path
):
    adapters = make_tiny_dysl(tmp_path / "dysl", checkpoint, offset=-9.0)  # controllers that never would
    observation, _ = seen_in(corrected[0])[3]
    full, floor = Actor(checkpoint, None), Actor(checkpoint, adapters)
    runtime = Runtime.load(str(checkpoint), str(adapters))
    asked = {"full": (full, RuntimeSettings(SkippingSettings(rule="full"))), "floor": (floor, AT_FLOOR)}
    given = {name: runtime.step(observation, NOTHING, settings) for name, (_, settings) in asked.items()}
    for name, (actor, _) in asked.items():
        np.testing.assert_array_equal(actor.action(observation), given[name].chunk.actions[0])
    assert given["floor"].trace.layer_calls < given["full"].trace.layer_calls
    assert floor.name != full.name


def test_recording_again_changes_nothing(corrected, recorded, checkpoint):
    before = {path: path.stat().st_mtime_ns for path in (recorded / TASK).iterdir()}
    corrections.record_task(TASK, recorded, checkpoint, CORRECTED)
    assert {path: path.stat().st_mtime_ns for path in (recorded / TASK).iterdir()} == before


def test_scenes_go_down_from_the_first_one(checkpoint, tmp_path):
    (tmp_path / TASK).mkdir()
    for seed in (2, 1, 0):  # failed before: not tried again
        (tmp_path / TASK / f"corrected-{Actor(checkpoint, None).name}-{seed:05d}.failed").touch()
    with pytest.raises(DataError, match="only 3 scenes are for demonstrations, 3 failed"):
        corrections.record_task(TASK, tmp_path, checkpoint, 1, first=2)


def test_adapters_without_their_policy_are_refused(recorded, tmp_path, capsys):
    assert main(["demonstrations", str(recorded), "--adapters", str(tmp_path)]) == 2
    assert "--adapters goes with --policy" in capsys.readouterr().err


def test_corrections_are_learnt_from_and_never_validate(corrected, recorded):
    frames = sum(len(seen_in(path)) for path in corrected)
    learnt = load_episodes(recorded, [TASKS[TASK]], quiet=True)
    validation = load_episodes(recorded, [TASKS[TASK]], validation=True, quiet=True)
    assert len(learnt.instructions) == EPISODES - VALIDATION_EPISODES + CORRECTED
    plain = sorted((recorded / TASK).glob("[0-9]*.npz"))
    assert len(learnt) == frames + sum(len(seen_in(path)) for path in plain[:-VALIDATION_EPISODES])
    assert len(validation) == sum(len(seen_in(path)) for path in plain[-VALIDATION_EPISODES:])


@pytest.mark.slow
def test_training_goes_on_from_the_bases_weights_with_its_words_and_statistics(
    recorded, corrected, checkpoint, tmp_path
):
    line = ["train", str(recorded), str(tmp_path / "out"), "--base", str(checkpoint), "--tasks", TASK, "--steps=1",
            "--batch-size=4", "--no-compile", "--processes=1", "--learning-rate=1e-12"]  # fmt: skip
    assert main(line) == 0
    base, made = (load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "out"))
    assert all(torch.equal(base[name], made[name]) for name in base)
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (checkpoint, tmp_path / "out"))
    assert old["model"] == new["model"]
    assert new["training"]["base"] == load_policy(checkpoint).weights_hash
    assert new["training"]["base_steps"] == old["training"]["steps"]
    assert new["training"]["base_seconds"] == old["training"]["seconds"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--layers=5"], "--layers 5: the base's 3 are kept, leave it out"),
        (["--width=32", "--heads=2"], "--width 32: the base's 16 is kept, leave it out"),
        (["--teacher", "elsewhere"], "--base and --teacher go apart"),
    ],
)
def test_a_base_that_does_not_fit_is_refused(recorded, checkpoint, tmp_path, capsys, more, said):
    assert main(["train", str(recorded), str(tmp_path / "out"), "--base", str(checkpoint), "--tasks", TASK, *more]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
