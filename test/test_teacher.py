"""`dysl_vla train --teacher`: a shallower student learns the teacher's chunks, and goes on bit by bit when killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.policies.reference import ReferenceNetwork, save_reference
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.runs.training_data import draw_evenly
from dysl_vla_ros.simulation.tasks import TASKS
from dysl_vla_ros.skipping.stack import full_result
from dysl_vla_ros.skipping.streams import no_bridge
from dysl_vla_ros.training.batches import Batches
from dysl_vla_ros.training.behaviour_cloning import configure_model
from dysl_vla_ros.training.dataset import load_episodes, observations
from dysl_vla_ros.training.keeper import STATE, claim
from dysl_vla_ros.training.options import TrainingSettings
from dysl_vla_ros.training.teacher import CHUNKS, config_of, load_origin, load_teacher, teacher_chunks
from harness import wait_until
from noise_episodes import write_noise_episodes

TASK = "reach"
SIZES = {"layers": 4, "width": 16, "heads": 2, "feed_forward": 24}
STEPS = 24
START = 120.0  # s
LINE = [f"--steps={STEPS}", "--tasks", TASK, "--layers=2", "--batch-size=4", "--no-compile", "--processes=2"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """Six short episodes of noise."""
    return write_noise_episodes(tmp_path_factory.mktemp("noise"), [TASK], range(9, 15))


@pytest.fixture(scope="module")
def episodes(recorded):
    return load_episodes(recorded, [TASKS[TASK]], quiet=True)


@pytest.fixture(scope="module")
def teacher(episodes, tmp_path_factory) -> Path:
    """A teacher of random weights, whose chunks are no expert's."""
    torch.manual_seed(5)
    config = configure_model(episodes, TrainingSettings(**SIZES))
    folder = tmp_path_factory.mktemp("teacher")
    save_reference(ReferenceNetwork(config), folder, {"data": "none: random weights"})
    return folder


def command(recorded: Path, output: Path, teacher: Path, *more: str) -> list[str]:
    line = ["train", str(recorded), str(output), "--teacher", str(teacher), *LINE, *more]
    return [sys.executable, "-m", "dysl_vla_ros.commands.main", *line]


def run(line: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(line, capture_output=True, text=True, timeout=START, check=False, env=dict(os.environ))


@pytest.fixture(scope="module")
def whole(recorded, teacher, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("whole")
    done = run(command(recorded, output, teacher))
    assert done.returncode == 0, done.stderr
    return output


@pytest.mark.slow
def test_the_student_is_the_teacher_with_fewer_layers_and_says_what_it_took(whole, teacher, episodes):
    student, its = (json.loads((folder / "config.json").read_text()) for folder in (whole, teacher))
    assert student["model"]["layers"] == 2
    assert student["model"] | {"layers": 4} == its["model"]
    said = student["training"]
    policy = load_policy(whole)
    assert len(policy.layers) == 2
    assert said["teacher"] == its["files"]["model.safetensors"]
    assert said["parameters"] == sum(p.numel() for p in policy.network.parameters())
    assert (said["steps"], said["frames"]) == (STEPS, len(episodes)) and said["seconds"] >= 0


@pytest.mark.slow
def test_the_targets_are_what_the_teacher_does_with_each_frame(whole, teacher, episodes):
    policy = load_teacher(teacher)
    chunks = load_file(whole / CHUNKS)["chunks"]
    assert chunks.shape == (len(episodes), 8, 4)
    for frame, seen in zip(draw_evenly(episodes.task, 6), observations(episodes, 6), strict=True):
        with torch.no_grad():
            hidden, context = policy.prepare([seen])
            for layer in policy.layers:
                hidden = layer(hidden, context)
            wanted, _ = policy.decode(full_result(hidden, len(policy.layers)), context, None, None, no_bridge)
        torch.testing.assert_close(chunks[int(frame)], wanted[0], atol=1e-5, rtol=1e-4)


def test_the_targets_take_the_experts_place_and_nothing_else_changes(teacher, episodes):
    policy = load_teacher(teacher)
    targets = np.random.default_rng(1).normal(size=(len(episodes), 8, 4)).astype(np.float32)
    device = torch.device("cpu")
    plain, taught = Batches(episodes, policy.config, device), Batches(episodes, policy.config, device, targets)
    frames = np.array([0, len(episodes) - 1])
    one, other = plain.plain(frames), taught.plain(frames)
    assert torch.equal(other.actions, torch.from_numpy(targets[frames])) and bool(other.mask.all())
    assert not bool(one.mask.all()), "the experts' chunk ends with the episode"
    for name in ("words", "proprioception", "scene"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    drawn, again = plain.drawn(6, (0, 3, 0)), taught.drawn(6, (0, 3, 0))
    assert all(torch.equal(drawn.pictures[camera], again.pictures[camera]) for camera in drawn.pictures)
    assert torch.equal(drawn.words, again.words) and not torch.equal(drawn.actions, again.actions)


def test_a_student_begins_with_layers_spread_over_its_teachers(teacher):
    origin = load_origin([TASKS[TASK]], TrainingSettings(layers=2, teacher=str(teacher)))
    network = ReferenceNetwork(origin.config)
    network.load_state_dict(origin.first_weights())
    its = load_teacher(teacher).network.state_dict()
    for name, value in network.state_dict().items():
        source = name.replace("layers.1.", "layers.3.")  # the first and the last of four
        assert torch.equal(value, its[source]), name


def test_what_was_computed_is_read_again_and_only_for_this_teacher_and_data(teacher, episodes, tmp_path):
    policy, accelerator = load_teacher(teacher), Accelerator(cpu=True)
    path = tmp_path / CHUNKS
    first = teacher_chunks(policy, episodes, accelerator, path)
    written = path.stat().st_mtime_ns
    np.testing.assert_array_equal(teacher_chunks(policy, episodes, accelerator, path), first)
    assert path.stat().st_mtime_ns == written
    policy.weights_hash = "f" * 64
    np.testing.assert_array_equal(teacher_chunks(policy, episodes, accelerator, path), first)
    assert path.stat().st_mtime_ns > written, "another teacher's are computed anew"
    path.write_bytes(b"half")
    np.testing.assert_array_equal(teacher_chunks(policy, episodes, accelerator, path), first)


def free(output: Path) -> bool:
    try:
        with claim(output):
            return True
    except DataError:
        return False


@pytest.mark.slow
def test_a_killed_student_that_goes_on_ends_bit_identical_to_one_that_was_not(recorded, teacher, whole, tmp_path):
    state = tmp_path / STATE
    interrupted = command(recorded, tmp_path, teacher, "--save-seconds=0")
    with subprocess.Popen(interrupted, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: state.exists() or process.poll() is not None, START, "the first saved step")
        process.kill()
    wait_until(lambda: free(tmp_path), START, "the end of the killed run's processes")
    assert int(load_file(state)["step"]) < STEPS, "it was to be killed on its way"
    resumed = run(interrupted)
    assert resumed.returncode == 0, resumed.stderr
    once, twice = load_file(whole / STATE), load_file(state)
    assert [name for name in once if not torch.equal(once[name], twice[name])] == []
    for name in ("model.safetensors", CHUNKS):
        assert (whole / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.slow
def test_the_state_of_a_student_is_not_gone_on_with_under_another_teacher_or_none(recorded, whole, episodes, tmp_path):
    torch.manual_seed(6)
    config = configure_model(episodes, TrainingSettings(**SIZES))
    save_reference(ReferenceNetwork(config), tmp_path, {"data": "none: random weights"})
    before = (whole / STATE).read_bytes()
    done = run(command(recorded, whole, tmp_path))
    assert done.returncode == 2
    assert "is of a run with other tasks, data or model sizes, or a teacher" in done.stderr
    assert (whole / STATE).read_bytes() == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--width", "320"], "--width 320: the teacher's 16 is kept, leave it out"),
        (["--heads", "3", "--width", "12"], "--width 12: the teacher's 16 is kept, leave it out; --heads 3: the"),
        (["--layers", "5"], "--layers 5: a student has 2 to 4, its teacher's"),
        (["--teacher", "nowhere"], "'nowhere' is not a folder"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_before_anything_starts(recorded, teacher, tmp_path, capsys, more, said):
    line = ["train", str(recorded), str(tmp_path / "out"), "--teacher", str(teacher), *LINE, *more]
    assert main(line) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sizes_that_are_not_named_are_the_teachers(teacher):
    own = load_teacher(teacher).config
    taken = config_of(own, TrainingSettings(layers=3), "teacher", layers=3)
    assert (taken.layers, taken.width, taken.heads, taken.feed_forward) == (3, 16, 2, 24)
    assert config_of(own, TrainingSettings(layers=3, width=16, heads=2), "teacher", layers=3) == taken
