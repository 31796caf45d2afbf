"""The way of one's own robot: from a recording to a policy that skips layers, with nothing of the simulator."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from dysl_vla_ros.bags.folder import is_bag
from dysl_vla_ros.commands.main import available_verbs, build_parser, main
from dysl_vla_ros.distillation.resume import STATE, WEIGHTS, Resume
from dysl_vla_ros.distillation.stage_report import BETTER, HARMED, USEFUL_FLOOR, verdicts
from dysl_vla_ros.distillation.stages import Distillation
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.files import sha256
from dysl_vla_ros.recordings.full_depth import full_depth_runs, observations
from dysl_vla_ros.recordings.learning_data import RecordedData
from dysl_vla_ros.recordings.source import Choice
from dysl_vla_ros.replay.job import ReplaySettings, replay
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import RuntimeSettings
from harness import install_prefix
from tiny_bag import write_tiny_bag
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint

OTHER = "open the drawer"
SHORT = ("--observations", "40", "--hidden-steps", "6", "--action-steps", "6", "--joint-steps", "6", "--no-compile")

BRIEF = ("--observations", "40", "--hidden-steps", "2", "--action-steps", "2", "--joint-steps", "2", "--no-compile")


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_tiny_bag(tmp_path_factory.mktemp("bags") / "one", ticks=10, episodes=(INSTRUCTION, OTHER) * 3)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_tiny_bag(tmp_path_factory.mktemp("bags") / "small", ticks=8, episodes=(INSTRUCTION, OTHER) * 2)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return Runtime.load(str(make_tiny_checkpoint(tmp_path_factory.mktemp("base"), layers=6)), "")


def bytes_of(observation):
    return observation.images["image"].tobytes()


def test_what_is_held_out_is_never_learned_from(runtime, bag):
    data = RecordedData([bag], runtime.description)
    assert [len(own.frames) for own in data.episodes] == [10] * 6
    learned = {bytes_of(own) for own in data.observations(10_000)}
    runs = data.held_out_runs(runtime, 1)
    kept = {bytes_of(own) for run in runs for own in run.observations}
    assert len(learned) == 4 * 10 and len(kept) == 2 * 10 and not learned & kept
    assert {run.observations[0].instruction for run in runs} == {INSTRUCTION, OTHER}


def test_the_same_seed_draws_the_same_observations_from_all_over_the_recording(runtime, bag):
    data = RecordedData([bag], runtime.description)
    one, again, other = ([bytes_of(own) for own in data.observations(20, seed)] for seed in (1, 1, 2))
    assert one == again != other and len(set(one)) == 20
    said = [own.instruction for own in data.observations(20, 1)]
    assert said.count(INSTRUCTION) == said.count(OTHER) == 10


def test_an_instruction_of_few_frames_is_drawn_as_often_as_the_others(runtime, tmp_path):
    bag = write_tiny_bag(tmp_path / "bag", ticks=10, episodes=(INSTRUCTION,) * 8 + (OTHER,) * 2)
    data = RecordedData([bag], runtime.description)
    said = [own.instruction for own in data.observations(18)]
    assert said.count(INSTRUCTION) == said.count(OTHER) == 9


@pytest.mark.slow
def test_every_frame_serves_at_5_hz_with_the_second_camera_behind_the_first(runtime, tmp_path):
    order = {"period": 200_000_000, "cameras": ("image", "wrist_image"), "behind": 20_000_000}
    bag = write_tiny_bag(tmp_path / "bag", ticks=10, episodes=(INSTRUCTION,) * 5, **order)
    data = RecordedData([bag], runtime.description)
    assert [list(own.frames) for own in data.episodes] == [list(range(first, first + 10)) for first in range(0, 50, 10)]
    assert len(list(data.observations(10_000))) == 40
    assert sum(len(run.chunks) for run in data.held_out_runs(runtime, 1)) == 10
    assert sum(len(run.chunks) for run in full_depth_runs([bag], runtime)) == 50
    assert len(list(observations([bag], runtime.description, 1000))) == 50
    about = replay(bag, make_tiny_checkpoint(tmp_path / "base"), ReplaySettings(output=tmp_path / "out")).about
    assert about["inferences"] == 50 and about["bag"]["frames"]["refused"] == []


def test_whole_episodes_come_in_their_order_for_a_policy_with_a_memory(bag, runtime):
    data = RecordedData([bag], runtime.description)
    for held_out, side in ((False, data.learned), (True, data.held_out)):
        seen, begins = data.in_order(10**6, held_out=held_out)
        assert len(list(seen)) == len(begins) == sum(len(own.frames) for own in side)
        assert sum(begins) == len(side) and begins[0]


def test_several_bags_are_one_recording(runtime, bag, tmp_path):
    second = write_tiny_bag(tmp_path / "two", ticks=10, episodes=(INSTRUCTION,) * 2, seed=5)
    data = RecordedData([bag, second], runtime.description)
    assert len(data.episodes) == 8
    assert {own.bag for own in data.learned} == {bag, second}


def test_a_single_episode_is_held_out_by_time(runtime, tmp_path):
    data = RecordedData([write_tiny_bag(tmp_path / "one", ticks=40, episodes=(INSTRUCTION,))], runtime.description)
    assert [len(own.frames) for own in (*data.learned, *data.held_out)] == [30, 10]
    assert max(data.learned[0].times) < min(data.held_out[0].times)
    (run,) = data.held_out_runs(runtime, 1)
    assert len(run.chunks) == 10


def test_with_m_actions_an_inference_the_held_out_runs_have_an_inference_each_m_steps(runtime, bag):
    data = RecordedData([bag], runtime.description)
    assert [len(run.chunks) for run in data.held_out_runs(runtime, 2)] == [5, 5]


def test_too_little_is_refused_and_little_is_warned_of(runtime, bag, tmp_path):
    with pytest.raises(DataError, match="too few to hold any out"):
        RecordedData([write_tiny_bag(tmp_path / "bag", ticks=12, episodes=(INSTRUCTION,))], runtime.description)
    little, few = RecordedData([bag], runtime.description).warnings()
    assert "3 s are little" in little
    assert f"fewer than 4 episodes of '{INSTRUCTION}', '{OTHER}'" in few
    unknown = RecordedData([bag], runtime.description, Choice(instruction="open the drawer push")).warnings()
    assert "the policy was not trained on 'open the drawer push'" in unknown[-1]


def test_bags_and_demonstrations_are_told_apart_by_what_they_hold(bag, tmp_path):
    assert is_bag(bag) and is_bag(next(bag.glob("*.db3"))) and not is_bag(bag / "metadata.yaml")
    assert not is_bag(tmp_path) and not is_bag(tmp_path / "nowhere")


@pytest.mark.parametrize("case", ["neither", "nowhere", "mixed", "two", "tasks", "topic"])
def test_data_that_cannot_serve_is_refused_by_name(case, bag, tmp_path, capsys):
    checkpoint = make_tiny_checkpoint(tmp_path / "base")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    photos = str(tmp_path / "photos")
    data, said = {
        "neither": ([photos], "is neither a folder of demonstrations (TASK/*.npz) nor a bag"),
        "nowhere": ([str(tmp_path / "nowhere")], "nowhere is not there"),
        "mixed": ([str(bag), photos], "is a bag, " + photos + " is none"),
        "two": ([photos, photos], "2 folders, none of them a bag"),
        "tasks": ([str(bag), "--tasks", "reach"], "--tasks names simulated tasks and does nothing for bags"),
        "topic": ([str(bag), "--topic", "image"], "must have the form image:=/camera"),
    }[case]
    assert main(["calibrate", str(checkpoint), *data]) == 2
    assert said in capsys.readouterr().err
    assert not (checkpoint / "dysl" / "static_layers.json").exists()


def walk(checkpoint, bags, *, steps=SHORT, capsys=None):
    """Calibrate and distill on bags; return what was said."""
    paths = [str(bag) for bag in bags]
    assert main(["calibrate", str(checkpoint), *paths, "--observations", "40", "--static", "spread"]) == 0
    assert main(["distill", str(checkpoint), *paths, *steps]) == 0
    return capsys.readouterr().out if capsys else ""


def test_the_way_from_a_bag_to_a_policy_that_skips_and_is_tuned(small, tmp_path, capsys):
    checkpoint = make_tiny_checkpoint(tmp_path / "base", layers=6)
    said = walk(checkpoint, [small], capsys=capsys, steps=BRIEF)
    assert "1 s in 4 episodes of 2 instructions, 32 frames; held out: 2 episodes" in said
    assert f"next: dysl_vla distill {checkpoint} {small}" in said and "stage 2, error" in said
    assert f"next: dysl_vla replay {small} --checkpoint {checkpoint}" in said
    calibration = json.loads((checkpoint / "dysl" / "calibration.json").read_text())
    assert calibration["runs"] == 2 and calibration["inferences"] == 16
    assert not (checkpoint / "dysl" / STATE).exists() and not (checkpoint / "dysl" / WEIGHTS).exists()

    runtime = Runtime.load(str(checkpoint), "")
    runtime.warm_up()
    observation = next(RecordedData([small], runtime.description).observations(1))
    assert np.isfinite(runtime.step(observation, np.zeros((0, 4), np.float32), RuntimeSettings()).chunk.actions).all()

    out = tmp_path / "tuned"
    arguments = ["--checkpoint", str(checkpoint), "--max-deviation", "1000", "--trials", "10", "--out", str(out)]
    assert main(["tune", str(small), *arguments]) == 0
    assert main(["calibrate", str(checkpoint), str(small)]) == 0, "with adapters there, thresholds are searched again"
    assert "chosen:" in capsys.readouterr().out


@pytest.mark.slow
def test_an_interrupted_distillation_goes_on_to_the_same_bits(small, tmp_path, capsys, monkeypatch):
    whole, broken = (make_tiny_checkpoint(tmp_path / name, layers=6) for name in ("whole", "broken"))
    walk(whole, [small])
    with monkeypatch.context() as patched:

        def interrupted(self):
            raise KeyboardInterrupt

        patched.setattr(Distillation, "train_joint", interrupted)
        assert main(["calibrate", str(broken), str(small), "--observations", "40", "--static", "spread"]) == 0
        assert main(["distill", str(broken), str(small), *SHORT]) == 130
    assert (broken / "dysl" / STATE).exists()
    capsys.readouterr()
    assert main(["distill", str(broken), str(small), *SHORT]) == 0
    said = capsys.readouterr().out
    assert said.count("(finished before)") == 2
    for name in ("adapters.safetensors", "calibration.json"):
        assert (broken / "dysl" / name).read_bytes() == (whole / "dysl" / name).read_bytes()


@pytest.mark.slow
def test_a_distillation_goes_on_from_the_adapters_of_another(small, tmp_path):
    checkpoint = make_tiny_checkpoint(tmp_path / "base", layers=6)
    walk(checkpoint, [small])
    first, further, still = (tmp_path / name for name in ("first", "further", "still"))
    shutil.copytree(checkpoint / "dysl", first)

    def go_on(folder, *more):
        command = ["distill", str(checkpoint), str(small), "--adapters", str(folder), "--go-on-from", str(first)]
        assert main([*command, *SHORT, *more]) == 0
        return json.loads((folder / "distillation.json").read_text()), load_file(folder / "adapters.safetensors")

    before, weights = json.loads((first / "distillation.json").read_text()), load_file(first / "adapters.safetensors")
    report, trained = go_on(further, "--bottleneck", "7")  # sizes are those of the folder, whatever is said
    assert [stage["stage"] for stage in report["stages"]] == ["stage 1, actions", "stage 2, error"]
    assert report["training_steps"] == before["training_steps"] + 12
    assert report["gone_on_from"]["sha256"] == sha256(first / "adapters.safetensors")
    assert {name: value.shape for name, value in trained.items()} == {n: v.shape for n, v in weights.items()}
    assert json.loads((further / "config.json").read_text())["modules"]["bottleneck"] != 7

    _, kept = go_on(still, "--learning-rate", "1e-30")
    offsets = [name for name in kept if name.endswith("offset")]
    moved = [name for name in kept if not torch.equal(kept[name], weights[name]) and name not in offsets]
    assert not moved, "as slow as that, nothing is learned: it begins with what the folder holds"
    assert any(not torch.equal(trained[name], weights[name]) for name in trained if name not in offsets)


@pytest.mark.slow
def test_a_distillation_goes_on_for_a_base_that_was_trained_further(small, tmp_path, capsys):
    first, second = (make_tiny_checkpoint(tmp_path / f"base{seed}", layers=6, seed=seed) for seed in (0, 1))
    walk(first, [small])
    command = ["distill", str(second), str(small), *SHORT, "--go-on-from", str(first / "dysl")]
    capsys.readouterr()
    assert main(command) == 0
    assert "was made for another checkpoint: its adapters are where training begins" in capsys.readouterr().out
    made, before = (json.loads((base / "dysl" / "config.json").read_text()) for base in (second, first))
    assert made["base"]["sha256"] != before["base"]["sha256"], "what was made belongs to the second"
    report = json.loads((second / "dysl" / "distillation.json").read_text())
    assert report["gone_on_from"]["base_sha256"] == before["base"]["sha256"]
    Runtime.load(str(second), "").warm_up()

    deeper = make_tiny_checkpoint(tmp_path / "deeper", layers=8)
    assert main(["distill", str(deeper), str(small), *SHORT, "--go-on-from", str(first / "dysl")]) == 2
    assert "partition.num_layers is 6, this checkpoint has 8" in capsys.readouterr().err


@pytest.mark.slow
def test_a_distillation_that_is_of_no_use_says_so_with_what_to_do_on_the_terminal_and_in_its_report(
    small, tmp_path, capsys
):
    checkpoint = make_tiny_checkpoint(tmp_path / "base", layers=6)
    assert main(["calibrate", str(checkpoint), str(small), "--observations", "40", "--static", "spread"]) == 0

    def distilled(*more):
        capsys.readouterr()
        assert main(["distill", str(checkpoint), str(small), *SHORT, *more]) == 0
        report = json.loads((checkpoint / "dysl" / "distillation.json").read_text())
        said = [f"warning: {warning}" for warning in report["warnings"]]
        assert capsys.readouterr().out.splitlines()[-1 - len(said) :][1:] == said, "the last lines"
        floors = [stage["floor_error"] for stage in report["stages"] if "floor_error" in stage]
        return report["floor_error_before"], floors, " ".join(said)

    start, floors, said = distilled("--learning-rate", "1e-30")
    assert floors == pytest.approx([start, start])
    assert "no better than" in said and "the identity has" in said and "--action-steps" in said
    start, floors, said = distilled("--action-steps", "60", "--joint-steps", "12")
    assert floors[-1] < start and "no better than" not in said
    shutil.copytree(checkpoint / "dysl", tmp_path / "trained")
    start, floors, said = distilled("--go-on-from", str(tmp_path / "trained"), "--learning-rate", "10")
    assert floors[-1] > max(start, 0.05), "so fast that it only does harm"
    assert "no better than" in said and "the adapters that it went on from have" in said and "keep those" in said
    assert "above 0.05" in said and "calibrate --static-ratio" in said


@given(
    start=st.floats(0.0, 1.0), first=st.floats(0.0, 1.0), end=st.floats(0.0, 1.0), gone_on=st.booleans(),
)  # fmt: skip
def test_each_verdict_is_given_where_its_figures_are_so_and_nowhere_else(start, first, end, gone_on):
    records = [{"stage": "stage 1"}, {"floor_error": first}, {"floor_error": end}]
    said = verdicts(start, records, gone_on=gone_on)
    assert [("no better than" in own, "stage 2 has" in own, "static layers" in own).index(True) for own in said] == [
        number for number, wrong in enumerate((end > BETTER * start, end > HARMED * first, end > USEFUL_FLOOR)) if wrong
    ]
    assert all("--" in own for own in said), "each says what to do"


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_adapter_rate_is_of_stage_two_alone(rate, small, tmp_path, monkeypatch):
    checkpoint = make_tiny_checkpoint(tmp_path / "base", layers=6)
    seen = []
    joint = Distillation.train_joint

    def watched(self):
        seen.append({name: value.clone() for name, value in self.modules.state_dict().items()})
        loss = joint(self)
        seen.append({name: value.clone() for name, value in self.modules.state_dict().items()})
        return loss

    monkeypatch.setattr(Distillation, "train_joint", watched)
    assert main(["calibrate", str(checkpoint), str(small), "--observations", "40", "--static", "spread"]) == 0
    assert main(["distill", str(checkpoint), str(small), *SHORT, "--adapter-rate", str(rate)]) == 0
    before, after = seen
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == ({"controllers"} if rate == 0.0 else {"controllers", "adapters", "pools"})


@pytest.mark.parametrize(
    ("option", "value"), [("--learning-rate", "0"), ("--learning-rate", "nan"), ("--adapter-rate", "-1")]
)
def test_rates_that_teach_nothing_are_refused_by_name(option, value, small, tmp_path, capsys):
    checkpoint = make_tiny_checkpoint(tmp_path / "base", layers=6)
    assert main(["distill", str(checkpoint), str(small), option, value]) == 2
    assert option in capsys.readouterr().err


def test_what_other_settings_or_data_left_unfinished_is_not_gone_on_with(tmp_path):
    modules, targets = torch.nn.Linear(2, 2), torch.zeros(3, 2)
    Resume(tmp_path, {"seed": 0}, targets).save(modules, {"stage": "stage 1", "steps": 3})
    assert Resume(tmp_path, {"seed": 0}, targets).records == [{"stage": "stage 1", "steps": 3}]
    assert Resume(tmp_path, {"seed": 1}, targets).records == []
    assert Resume(tmp_path, {"seed": 0}, targets + 1).records == []
    (tmp_path / WEIGHTS).write_bytes(b"half")
    assert Resume(tmp_path, {"seed": 0}, targets).records == []


@pytest.mark.slow
def test_nothing_of_the_simulator_is_needed(small, tmp_path):
    checkpoint = make_tiny_checkpoint(tmp_path / "base", layers=6)
    code = (
        "import sys\n"
        "for name in ('mujoco', 'metaworld', 'gymnasium', 'rclpy'): sys.modules[name] = None\n"
        "from dysl_vla_ros.commands.main import available_verbs, build_parser, main\n"
        f"base, bag, short = {str(checkpoint)!r}, {str(small)!r}, {SHORT!r}\n"
        "assert main(['calibrate', base, bag, '--observations', '40', '--static', 'spread']) == 0\n"
        "assert main(['distill', base, bag, *short]) == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_command_of_the_tutorial_is_one_that_exists():
    page = (Path(__file__).parents[1] / "docs" / "your-robot.md").read_text()
    commands = [line.removeprefix("$ ") for line in page.splitlines() if line.startswith("$ dysl_vla ")]
    assert len(commands) >= 5
    for command in commands:
        _, verb, *rest = shlex.split(command)
        build_parser(available_verbs(), verb).parse_args([verb, *rest])


TASKS = ("drawer-close", "button-press", "reach")
EPISODES = 4  # of each, at the same seeds at full depth and with skipping


def demo(folder, checkpoint, *arguments):
    """Play the demo over real DDS as a process; return its summary."""
    command = [str(install_prefix() / "bin" / "dysl_vla"), "demo", "--headless", "--checkpoint", str(checkpoint)]
    command += ["--tasks", *TASKS, "--episodes", str(EPISODES), "--seed", "46000", "--out", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "ROS_DOMAIN_ID"}
    command += map(str, arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.slow
@pytest.mark.ros
@pytest.mark.timeout(900)
def test_a_recording_of_the_robot_becomes_a_policy_that_skips_at_equal_success(tmp_path, capsys):
    pytest.importorskip("mujoco")
    reference = Path(__file__).parents[1] / "checkpoints" / "reference"
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for name in ("config.json", "model.safetensors"):  # the base alone: nothing of the shipped adapters
        shutil.copy(reference / name, checkpoint / name)
    bag = tmp_path / "bag"
    full = demo(tmp_path / "full", checkpoint, "--full-depth", "--record", bag)

    assert main(["calibrate", str(checkpoint), str(bag), "--static", "spread"]) == 0
    steps = ["--hidden-steps", "100", "--action-steps", "250", "--joint-steps", "150", "--observations", "1000"]
    assert main(["distill", str(checkpoint), str(bag), *steps]) == 0
    criteria = ["--max-deviation", "8", "--min-layer-reduction", "0.4"]
    arguments = ["replay", str(bag), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "replay"), *criteria]
    assert main(arguments) == 0, capsys.readouterr()

    skipping = demo(tmp_path / "skipping", checkpoint)
    assert full["overall"]["layers_mean"] == 24.0 and skipping["overall"]["layers_mean"] < 14.0
    assert skipping["overall"]["successes"] == full["overall"]["successes"] == len(TASKS) * EPISODES
