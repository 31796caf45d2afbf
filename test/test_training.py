"""Training: a killed run goes on bit by bit; augmentation keeps pictures pictures; any launcher starts it."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.policies.checkpoint import read_config
from dysl_vla_ros.policies.reference_config import PADDING, UNKNOWN
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.simulation.tasks import TASKS
from dysl_vla_ros.training.augmentation import mishear, move, seen_again, shift, vary, with_variants
from dysl_vla_ros.training.batches import Batches, as_pictures
from dysl_vla_ros.training.behaviour_cloning import configure_model
from dysl_vla_ros.training.dataset import load_episodes
from dysl_vla_ros.training.keeper import STATE, claim
from dysl_vla_ros.training.options import TrainingSettings, add_arguments, as_arguments, settings_from
from harness import wait_until
from noise_episodes import write_noise_episodes

TASK_NAMES = ("reach", "push-red")
STEPS = 30
TINY = ["--layers=2", "--width=16", "--heads=2", "--feed-forward=16", "--batch-size=4", "--no-compile"]
START = 120.0  # s


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Six short episodes of each of two tasks, of noise: what is learnt does not matter here."""
    return write_noise_episodes(tmp_path_factory.mktemp("noise"), TASK_NAMES, range(9, 15))


@pytest.fixture(scope="module")
def episodes(recorded):
    return load_episodes(recorded, [TASKS[name] for name in TASK_NAMES], quiet=True)


def command(recorded, output, *more):
    arguments = [str(recorded), str(output), "--tasks", *TASK_NAMES, f"--steps={STEPS}", *TINY, *more]
    return [sys.executable, "-m", "dysl_vla_ros.commands.main", "train", *arguments]


def run(line: list[str], **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        line, capture_output=True, text=True, timeout=START, check=False, env={**os.environ, **environment}
    )


def saved_step(state: Path) -> int:
    """Return the step of a saved state; 0 before the first."""
    try:
        with safe_open(state, "pt") as source:
            return int(source.get_tensor("step"))
    except (OSError, SafetensorError):
        return 0


@pytest.mark.slow
def test_a_killed_run_that_goes_on_ends_bit_identical_to_one_that_was_not(recorded, tmp_path):
    whole = run(command(recorded, tmp_path / "whole", "--processes=2"))
    assert whole.returncode == 0, whole.stderr
    interrupted = command(recorded, tmp_path / "killed", "--processes=2", "--save-seconds=0")
    state = tmp_path / "killed" / STATE
    with subprocess.Popen(interrupted, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: saved_step(state) >= 3 or process.poll() is not None, START, "the third step")
        process.kill()
    assert 3 <= saved_step(state) < STEPS, "it was to be killed on its way"
    # the launcher's processes are killed with it: the folder is free as soon as they are gone
    wait_until(lambda: free(tmp_path / "killed"), START, "the end of the killed run's processes")
    resumed = run(interrupted)
    assert resumed.returncode == 0, resumed.stderr
    once, twice = load_file(tmp_path / "whole" / STATE), load_file(state)
    assert once.keys() == twice.keys() and int(twice["step"]) == STEPS
    different = [name for name in once if not torch.equal(once[name], twice[name])]
    assert not different
    models = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "killed")]
    assert models[0] == models[1]
    assert len(load_policy(tmp_path / "killed").layers) == 2
    assert read_config(tmp_path / "killed")["training"]["seconds"] >= 0


def free(output: Path) -> bool:
    try:
        with claim(output):
            return True
    except DataError:
        return False


@pytest.mark.parametrize(
    "launcher",
    [
        ["-m", "dysl_vla_ros.training"],
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "dysl_vla_ros.training"],
        ["-m", "accelerate.commands.launch", "--cpu", "--num_processes=1", "-m", "dysl_vla_ros.training"],
    ],
    ids=["python", "torchrun", "accelerate"],
)
@pytest.mark.slow
def test_any_launcher_starts_it(recorded, tmp_path, launcher):
    arguments = [str(recorded), str(tmp_path), "--tasks", *TASK_NAMES, "--steps=2", *TINY]
    done = run([sys.executable, *launcher, *arguments], GLOO_SOCKET_IFNAME="lo")
    assert done.returncode == 0, done.stderr
    assert saved_step(tmp_path / STATE) == 2


@pytest.mark.slow
def test_a_second_run_into_the_same_folder_is_refused(recorded, tmp_path):
    with claim(tmp_path):
        done = run(command(recorded, tmp_path, "--processes=1"))
    assert done.returncode == 2
    said = f"dysl_vla train: error: another run is training into {tmp_path}; end it, or name another folder; "
    assert done.stderr.strip().splitlines() == [f"{said}then run again to go on"]


@pytest.mark.slow
def test_a_state_of_another_model_is_refused_and_kept(recorded, tmp_path):
    assert run(command(recorded, tmp_path, "--processes=1")).returncode == 0
    before = (tmp_path / STATE).read_bytes()
    done = run(command(recorded, tmp_path, "--processes=1", "--layers=3"))
    assert done.returncode == 2
    assert "is of a run with other tasks, data or model sizes" in done.stderr
    assert (tmp_path / STATE).read_bytes() == before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("--steps=0", "--steps must be at least 1"),
        ("--wrist-pixels=50", "--wrist-pixels must be a multiple of 24"),
        ("--heads=3", "--width 160 must be a multiple of twice --heads 3"),
        ("--processes=-1", "--processes must be at least 1"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_starts(recorded, tmp_path, capsys, wrong, said):
    assert main(["train", str(recorded), str(tmp_path / "out"), wrong]) == 2
    assert said in capsys.readouterr().err


def test_a_missing_task_is_refused_before_anything_starts(recorded, tmp_path, capsys):
    assert main(["train", str(recorded), str(tmp_path / "out"), "--tasks", "reach", "hard"]) == 2
    assert "run `dysl_vla demonstrations" in capsys.readouterr().err


def test_settings_survive_the_way_to_another_process():
    settings = TrainingSettings(steps=7, learning_rate=1e-3, seed=5, compile=False, wrist_pixels=48)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    line = as_arguments(Path("data"), Path("out"), [TASKS["reach"], TASKS["assembly"]], settings)
    arguments = parser.parse_args(line)
    assert settings_from(vars(arguments)) == settings
    assert (arguments.data, arguments.output, arguments.tasks) == (Path("data"), Path("out"), ["reach", "assembly"])


def test_augmentation_keeps_type_and_range_and_is_repeated_by_its_seed():
    pictures = {"image": torch.rand(6, 3, 96, 96), "wrist_image": torch.rand(6, 3, 72, 72)}
    first, again, other = (vary(pictures, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for camera, before in pictures.items():
        varied = first[camera]
        assert varied.shape == before.shape and varied.dtype == torch.float32
        assert float(varied.min()) >= 0.0 and float(varied.max()) <= 1.0
        assert torch.equal(varied, again[camera]) and not torch.equal(varied, other[camera])
        assert not torch.equal(varied, before)


def test_brightness_goes_from_070_to_130_alike_for_all_cameras_of_a_frame():
    pictures = {camera: torch.full((400, 3, 24, 24), 0.5) for camera in ("image", "wrist_image")}
    varied = vary(pictures, np.random.default_rng(3))
    gains = {camera: own.mean((1, 2, 3)) / 0.5 for camera, own in varied.items()}
    assert 0.68 < float(gains["image"].min()) < 0.74 and 1.26 < float(gains["image"].max()) < 1.32
    torch.testing.assert_close(gains["image"], gains["wrist_image"], atol=0.01, rtol=0.0)
    noise = varied["image"].std((1, 2, 3))
    assert float(noise.min()) < 0.005 and 0.025 < float(noise.max()) < 0.032


def test_a_shift_moves_whole_pixels_and_repeats_the_edge():
    picture = torch.arange(25.0).reshape(1, 1, 5, 5).repeat(40, 1, 1, 1)
    moved = shift(picture, 1, np.random.default_rng(0))
    assert moved.shape == picture.shape
    assert {float(own[0, 2, 2]) for own in moved} == {float(6 + 5 * y + x) for y in range(3) for x in range(3)}
    assert set(moved.unique().tolist()) <= set(range(25))


def test_an_observation_is_seen_again_by_other_cameras_in_another_light_and_nothing_else():
    random = np.random.default_rng(0)
    shapes = {"image": (96, 96, 3), "side": (48, 64, 3)}  # names and sizes of any robot
    images = {name: random.integers(0, 256, shape, dtype=np.uint8) for name, shape in shapes.items()}
    seen = [Observation(images, np.full(4, n, np.float32), f"do {n}") for n in range(3)]
    told = list(with_variants(iter(seen), 2, seed=5))
    assert len(told) == 9
    for number, own in enumerate(seen):
        first, *others = told[3 * number : 3 * number + 3]
        assert first is own
        for other in others:
            assert other.instruction == own.instruction and other.proprioception is own.proprioception
            for name, picture in other.images.items():
                assert picture.shape == shapes[name] and picture.dtype == np.uint8
                assert not np.array_equal(picture, images[name])
    assert not np.array_equal(told[1].images["image"], told[2].images["image"])
    for one, same in zip(told, with_variants(seen, 2, seed=5), strict=True):
        assert all(np.array_equal(one.images[name], same.images[name]) for name in shapes)
    assert [own is same for own, same in zip(with_variants(seen, 0), seen, strict=True)] == [True] * 3


def test_a_picture_seen_again_is_moved_by_no_more_than_a_mounting_is(monkeypatch):
    monkeypatch.setattr("dysl_vla_ros.training.augmentation.NOISE", 0.0)
    picture = np.zeros((48, 48, 3), np.uint8)
    picture[20:28, 20:28] = 100
    moves = set()
    for seed in range(60):
        own = seen_again(Observation({"any": picture}, np.zeros(4, np.float32), ""), np.random.default_rng(seed))
        rows, columns = np.nonzero(own.images["any"].max(-1))
        moves.add((int(rows.min()) - 20, int(columns.min()) - 20))
        assert (rows.max() - rows.min(), columns.max() - columns.min()) == (7, 7)
        assert 70 <= own.images["any"].max() <= 130
    assert {move for axis in moves for move in axis} == {-2, -1, 0, 1, 2}  # a 24th of 48


def test_only_the_position_is_moved():
    before = np.ones((500, 4), dtype=np.float32)
    after = move(before, np.random.default_rng(0))
    assert after.dtype == np.float32
    np.testing.assert_array_equal(after[:, 3], before[:, 3])
    assert (after - before)[:, :3].std() == pytest.approx(0.003, rel=0.1)
    assert np.all(before == 1.0)


def test_words_that_a_task_needs_are_always_heard(episodes):
    batches = Batches(episodes, configure_model(episodes, TrainingSettings()), torch.device("cpu"))
    vocabulary = configure_model(episodes, TrainingSettings()).vocabulary
    red = vocabulary.index("red") + 2
    words = torch.cat([batches.drawn(64, (0, step)).words for step in range(10)])
    assert torch.all((words == red).any(1)), "both tasks are about something red in all their instructions"
    share = float((words == UNKNOWN).sum() / (words != PADDING).sum())
    assert 0.01 < share < 0.08
    untouched = mishear(words.numpy(), np.ones(words.shape, dtype=bool), np.random.default_rng(0))
    np.testing.assert_array_equal(untouched, words.numpy())


def test_a_batch_is_repeated_by_its_seed_and_plain_frames_come_as_recorded(episodes):
    config = configure_model(episodes, TrainingSettings())
    batches = Batches(episodes, config, torch.device("cpu"))
    first, again, other = (batches.drawn(8, (0, step, 0)) for step in (4, 4, 5))
    assert torch.equal(first.pictures["image"], again.pictures["image"])
    assert torch.equal(first.actions, again.actions) and not torch.equal(first.actions, other.actions)
    plain = batches.plain(np.array([0, len(episodes) - 1]))
    assert plain.pictures["wrist_image"].shape == (2, 3, 72, 72)
    expected = torch.from_numpy(episodes.image[np.array([0])][0]).permute(2, 0, 1) / 255.0
    assert torch.equal(plain.pictures["image"][0], expected)
    np.testing.assert_allclose(config.action.denormalise(plain.actions[0].numpy())[0], episodes.action[0], atol=1e-6)
    assert plain.mask[1, :, 0].tolist() == [1.0] + [0.0] * 7


def test_the_wrist_picture_is_shrunk_in_training_as_the_policy_does():
    from dysl_vla_ros.policies.reference import picture_to_tensor

    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    assert torch.equal(as_pictures(picture[None], 72, torch.device("cpu")), picture_to_tensor(picture, 72))
