"""Calibration and distillation of another project's checkpoint: recordings are read here, a worker computes."""

import dataclasses
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.distillation.beside.memory import MemorySizes, memory_lines, memory_need
from dysl_vla_ros.distillation.settings import DistillationSettings, ModuleSettings
from dysl_vla_ros.errors import DataError, WorkerError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.job_worker.client import JobWorker
from dysl_vla_ros.job_worker.opening import opened_worker
from dysl_vla_ros.jobs import apart
from dysl_vla_ros.jobs.settings import Apart, CalibrateSettings, DistillSettings
from dysl_vla_ros.policies.openvla.network import OpenVlaNetwork, Sizes, TowerSizes
from dysl_vla_ros.runs.frame_store import FrameStore, FrameWriter
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import GuidanceSettings, RuntimeSettings, SkippingSettings
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.streams import Stream
from job_worker_thread import in_a_thread
from joint_bag import write_joint_bag
from tiny_openvla import HORIZON, INSTRUCTION, JOINTS, STATE_NAMES, convert, said, write_tiny_openvla

STAGES = DistillationSettings(hidden_steps=2, action_steps=4, joint_steps=3, batch_size=4)
LONGER = "pick up the bowl and put it away"
LIMIT = 300.0  # s


def parameters(folder: Path) -> Path:
    """Write what no file of the tiny checkpoint says."""
    robot = {
        "cameras": {"full_image": "/full_image"},
        "state": {"names": list(STATE_NAMES), "units": ["rad"] * 7 + ["1"]},
        "action": {"kind": "end_effector_delta", "time_step": 0.1},
    }
    model = {"horizon": HORIZON, "bounds": "q99", "threads": 1}
    path = folder / "arm.yaml"
    path.write_text(yaml.safe_dump({"/**/dysl_vla": {"ros__parameters": {"model": model, "robot": robot}}}))
    return path


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("apart")
    texts = (INSTRUCTION, LONGER) * 2
    return {
        "checkpoint": convert(write_tiny_openvla(folder / "oft")),
        "bag": write_joint_bag(folder / "bag", JOINTS, {"/full_image": (40, 48)}, texts, 12, period=0.1),
        "params": parameters(folder),
    }


@contextmanager
def worker(there: dict[str, Path], folder: Path) -> Iterator[JobWorker]:
    own = Apart(there["params"], together=4)
    with opened_worker(there["checkpoint"], folder, own, "cpu", in_a_thread) as opened:
        yield opened


@pytest.mark.slow
def test_from_a_bag_to_a_folder_that_skips(there: dict[str, Path], tmp_path: Path, caplog: Any) -> None:
    """All of it over the worker's protocol: static layers, both stages, thresholds; prompts of two lengths."""
    folder = tmp_path / "dysl"
    caplog.set_level(logging.INFO, "dysl_vla_ros")
    choosing = CalibrateSettings(static="spread", static_layers=3, observations=6, target_layers=0.9)
    with worker(there, folder) as opened:
        seen = apart.open_here(opened, there["bag"], choosing.data)
        assert apart.choose_layers(opened, seen, folder, choosing).partition.static == (0, 4, 7)
    with worker(there, folder) as opened:
        seen = apart.open_here(opened, there["bag"], choosing.data)
        settings = DistillSettings(observations=12, stages=STAGES, modules=ModuleSettings(bottleneck=8))
        made = apart.train(opened, seen, folder, settings)
        found = apart.search_thresholds(opened, made.data, folder, choosing)
    assert made.report["frames"] == 12 and made.report["training_steps"] == 9
    assert made.report["recordings"]["bags"] == [str(there["bag"])]
    assert found.inferences >= 10 and found.front and set(found.signals) >= {"controllers", "-C"}
    assert "memory that this needs" in caplog.text and "the policy's weights" in caplog.text
    runtime = Runtime.load(str(there["checkpoint"]), str(folder), options=said("full_image"))
    runtime.warm_up()
    settings = RuntimeSettings(SkippingSettings(threshold=0.0), GuidanceSettings(prior=False, verify=False, warmup=0))
    step = runtime.step(next(seen.held_out_observations(1)), np.zeros((0, 7), np.float32), settings)
    assert step.trace.layer_calls == 3 and step.trace.executed == tuple(layer in (0, 4, 7) for layer in range(8))


def test_what_cannot_be_computed_is_told_and_the_worker_lives_on(there: dict[str, Path], tmp_path: Path) -> None:
    with worker(there, tmp_path) as opened:
        assert opened.reads(INSTRUCTION) == "" and "</s>" in opened.reads("pick </s> up")
        with pytest.raises(DataError, match="name one or more bags"):
            apart.open_here(opened, (), CalibrateSettings().data)
        seen = apart.open_here(opened, there["bag"], CalibrateSettings().data)
        with pytest.raises(WorkerError, match="static_layers.json is missing"):
            apart.train(opened, seen, tmp_path, DistillSettings(observations=4, stages=STAGES))
        with pytest.raises(DataError, match="--variants 1"):
            apart.train(opened, seen, tmp_path, DistillSettings(variants=1, stages=STAGES))
        assert opened.reads(INSTRUCTION) == ""
    with pytest.raises(WorkerError, match="model.horizon is not said"):
        bare = tmp_path / "bare.yaml"
        bare.write_text("/**/dysl_vla:\n  ros__parameters:\n    model: {threads: 1}\n")
        with opened_worker(there["checkpoint"], tmp_path, Apart(bare), "cpu", in_a_thread):
            pass


def test_an_interrupted_command_lets_the_worker_keep_what_was_learned(there: dict[str, Path], tmp_path: Path) -> None:
    folder, long = tmp_path / "dysl", dataclasses.replace(STAGES, hidden_steps=100_000)
    with worker(there, folder) as opened:
        seen = apart.open_here(opened, there["bag"], CalibrateSettings().data)
        apart.choose_layers(opened, seen, folder, CalibrateSettings(static="spread", static_layers=3, observations=6))

    class AfterSomeSteps(Exception):
        pass

    with pytest.raises(KeyboardInterrupt), worker(there, folder) as opened:
        seen = apart.open_here(opened, there["bag"], CalibrateSettings().data)
        show = opened._show

        def interrupt(told: Any) -> None:
            show(told)
            if told.label.startswith("stage 1") and told.done >= 2:
                raise KeyboardInterrupt

        opened._show = interrupt  # type: ignore[method-assign]
        apart.train(opened, seen, folder, DistillSettings(observations=12, stages=long))
    assert {"unfinished.safetensors", "unfinished.json"} <= {path.name for path in folder.iterdir()}
    state = yaml.safe_load((folder / "unfinished.json").read_text())
    assert state["within"]["stage"] == "stage 1: hidden states" and state["within"]["step"] >= 2


def test_another_projects_checkpoint_needs_a_parameter_file(
    there: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    for verb in ("calibrate", "distill"):
        if verb == "distill":
            (tmp_path / "static_layers.json").write_text("{}")
        words = [verb, str(there["checkpoint"]), str(there["bag"]), "--adapters", str(tmp_path)]
        assert main(words) == 2
        assert "--params" in (told := capsys.readouterr().err) and "dysl_vla inspect" in told and told.count("\n") == 1
    assert main(["calibrate", str(there["checkpoint"]), "--params", str(there["params"])]) == 2
    assert "name one or more bags" in capsys.readouterr().err


def test_what_trains_imports_nothing_of_the_command() -> None:
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'tqdm', 'optuna', 'rosbags', 'mcap', 'rclpy', 'mujoco', 'transformers'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import dysl_vla_ros.job_worker.server, dysl_vla_ros.distillation.beside.run\n"
        "import dysl_vla_ros.distillation.beside.static_choice, dysl_vla_ros.calibration.remembered_passes\n"
        "import dysl_vla_ros.calibration.tolerated, dysl_vla_ros.runtime.step\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, cwd="/")
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_store_gives_back_what_was_written_in_any_order(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frames = [
        Observation(
            {"a": random.integers(0, 256, (3 + n, 4, 3), np.uint8), "b": random.integers(0, 256, (2, 2, 3), np.uint8)},
            random.normal(size=n).astype(np.float32),
            f"take {n} ä",
        )
        for n in range(4)
    ]
    writer = FrameWriter(tmp_path)
    store = FrameStore(writer.descriptor)
    assert writer.add(frames[:2]) == 2 and len(store) == 0
    writer.add(frames[2:])
    store.refresh()
    assert list(tmp_path.iterdir()) == [], "the file has no name"
    for number in (3, 0, 2, 1):
        found = store[number]
        assert found.instruction == frames[number].instruction
        np.testing.assert_array_equal(found.proprioception, frames[number].proprioception)
        assert found.images.keys() == frames[number].images.keys()
        assert all(np.array_equal(found.images[name], image) for name, image in frames[number].images.items())
    assert [own.instruction for own in store[1:3]] == ["take 1 ä", "take 2 ä"] and len(store[1:][1:]) == 2
    first = writer.digest
    writer.add(frames[:1])
    assert writer.digest != first
    writer.close()


def test_a_teacher_of_seven_billion_parameters_in_bfloat16_fits_into_24_gigabytes() -> None:
    """The real shapes of OpenVLA-OFT on two pictures and eight actions, from its configuration, without weights."""
    llama = {
        "vocab_size": 32064, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32,
    }  # fmt: skip
    with torch.device("meta"):
        network = OpenVlaNetwork(Sizes(TowerSizes(1024, 4096, 24), TowerSizes(1152, 4304, 27), llama, 7, 8))
        partition = LayerPartition(32, (0, 5, 10, 16, 21, 26, 31))
        modules = DyslModules(partition, (Stream("stack", 4096),), **ModuleSettings().sizes(4096))
    count = sum(parameter.numel() for parameter in network.parameters())
    layer = sum(parameter.numel() for parameter in network.layers[0].parameters())
    assert 7.3e9 < count < 7.8e9 and 2.0e8 < layer < 2.1e8
    trained = sum(parameter.numel() for parameter in modules.parameters())
    assert trained < 31e6
    tokens = 1 + 2 * 256 + 1 + 30 + 8 * 7 + 1
    sizes = MemorySizes(count, layer, 32, 4096, tokens, 2)
    need = {together: memory_need(sizes, partition, trained, together) for together in (1, 4)}
    totals = {together: sum(own.values()) for together, own in need.items()}
    assert 15.0 < totals[1] < totals[4] < 24.0
    lines = memory_lines(need[4], 22.0)
    assert len(lines) == len(need[4]) + 2 and lines[1].endswith("the policy's weights") and "15." in lines[1]
    assert "may be too little" in memory_lines(need[4], 10.0)[-1]


@pytest.mark.slow
@pytest.mark.timeout(3 * LIMIT)  # 18 s of computing
def test_the_memory_of_a_run_does_not_grow_with_its_frames(tmp_path: Path) -> None:
    """The kernel's peak of a process that distills over few frames and over many, beyond what it has at its start."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import re, torch\n"
        "from pathlib import Path\n"
        "from dataclasses import replace\n"
        "from test_beside import SHORT, PARTITION, policy_of, new_modules, observation, TEXTS\n"
        "from dysl_vla_ros.distillation.beside.progress import RunProgress\n"
        "from dysl_vla_ros.distillation.beside import stages\n"
        "stages.JUDGED = (6, 3)\n"
        "from dysl_vla_ros.distillation.beside.stages import DistillationBeside\n"
        "from dysl_vla_ros.distillation.beside.teacher import TeacherBeside\n"
        "from dysl_vla_ros.runs.frame_store import FrameStore, FrameWriter\n"
        "torch.set_num_threads(1)\n"
        "def status(name): return int(re.search(name + r':\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])\n"
        "policy = policy_of('flow')\n"
        "def run(count):\n"
        "    writer = FrameWriter(Path(sys.argv[2]))\n"
        "    writer.add(replace(observation(policy, n % 40), instruction=TEXTS[0]) for n in range(count))\n"
        "    store = FrameStore(writer.descriptor)\n"
        "    own = TeacherBeside(policy, store, PARTITION, together=3)\n"
        "    job = DistillationBeside(PARTITION, new_modules(policy), own, SHORT, own, RunProgress())\n"
        "    job.train_hidden(); job.train_actions(); job.train_joint(); job.judge.floor_error()\n"
        "    writer.close()\n"
        "run(150)\n"
        "for count in (150, 1500):\n"
        "    Path('/proc/self/clear_refs').write_text('5')\n"
        "    before = status('VmRSS'); run(count); print(status('VmHWM') - before)\n"
    )
    words = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=2 * LIMIT)
    assert done.returncode == 0, done.stderr[-2000:]
    few, many = map(int, done.stdout.split())
    assert many < few + 8_000, f"{few} kB over 150 frames, {many} kB over 1500, whose pictures have 31,000"
