"""From a bag to a DySL folder that skips, for a SmolVLA: recordings are read here, LeRobot's Python computes.

The same bag is replayed then; and a folder in LeRobot's own format serves in its place.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dysl_vla_ros.interfaces import JOINT_POSITION, ActionSpec, Observation
from dysl_vla_ros.params_file import read_params_file
from dysl_vla_ros.settings import GuidanceSettings, ModelSettings, RuntimeSettings, SkippingSettings
from dysl_vla_ros.worker.client import StepReply, StepRequest, WorkerClient, WorkerSpec
from joint_bag import write_joint_bag
from recorded_bag import BagWriter
from test_node_lerobot import IMPORTS, JOINTS, PYTHON, REST, ROOT
from waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(6 * IMPORTS),
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-lerobot; `make setup-lerobot` makes it"),
]
TOPICS = {"observation.images.top": "/top", "observation.images.wrist": "/wrist"}
TEXTS = ("pick up the red cube", "put the ball in the tray")
SMALL = ("--observations", "16", "--together", "8", "--bottleneck", "16", "--batch-size", "8")
STEPS = ("--hidden-steps", "4", "--action-steps", "12", "--joint-steps", "4", "--target-layers", "0.9")
CAMERA = "robot.cameras."
ARM = ActionSpec(
    8, 0.05, False, (0.0,) * 6, (1.0,) * 6, kind=JOINT_POSITION, names=(*JOINTS, "jaw"),
    units=tuple(REST["robot.action.units"]), gripper="jaw",
)  # fmt: skip
DEGREES = [place for place, unit in enumerate(ARM.units) if unit == "deg"]


def stayed(writer: BagWriter, stamp: int) -> tuple[str, Any]:
    """Return a command to go to 0 rad, as it was recorded."""
    return "/dysl_vla/joint_action", writer.joint_action(stamp, ARM, np.zeros(len(JOINTS)), 0.5)


def nested(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        cameras = name.startswith(CAMERA)
        *groups, last = ["robot", "cameras", name.removeprefix(CAMERA)] if cameras else name.split(".")
        place = found
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return found


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("lerobot")
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {"HF_HUB_OFFLINE": "1"}
    writer = ROOT / "test" / "lerobot" / "write_checkpoint.py"
    subprocess.run([PYTHON, writer, "smolvla", folder], check=True, env=environment, timeout=IMPORTS)
    said = REST | {
        "model.python": str(PYTHON), "model.tokenizer": str(folder / "hub"), "model.load_timeout": IMPORTS,
        "model.threads": 1, **{f"{CAMERA}{name}": topic for name, topic in TOPICS.items()},
    }  # fmt: skip
    params = folder / "arm.yaml"
    params.write_text(yaml.safe_dump({"/**/dysl_vla": {"ros__parameters": nested(said)}}))
    pictures = {"/top": (48, 64), "/wrist": (40, 36)}
    bag = write_joint_bag(folder / "bag", JOINTS, pictures, TEXTS * 2, 12, answer=stayed)
    return {"checkpoint": folder / "checkpoint", "params": params, "bag": bag, "dysl": folder / "dysl"}


def verb(there: dict[str, Path], name: str, *more: str) -> list[str]:
    data = [str(there["checkpoint"]), str(there["bag"])]
    if name == "replay":
        data = [str(there["bag"]), "--checkpoint", str(there["checkpoint"])]
    words = [sys.executable, "-m", "dysl_vla_ros.commands.main", name, *data]
    words += ["--params", str(there["params"]), "--adapters", str(there["dysl"])]
    words += [word for role, topic in TOPICS.items() for word in ("--topic", f"{role}:={topic}")]
    return [*words, *more]


def run(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=3 * IMPORTS)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_calibrate_distill_and_replay_on_one_bag_and_the_worker_skips(there: dict[str, Path], tmp_path: Path) -> None:
    told = run(verb(there, "calibrate", "--static", "spread", "--static-layers", "3", "--observations", "12"))
    assert "static layers: spread [0, 3, 5] of 6" in told and f"--params {there['params']}" in told
    words = verb(there, "distill", *SMALL, *STEPS)
    interrupted = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert interrupted.stdout is not None
    for line in interrupted.stdout:
        if "before training" in line:
            interrupted.send_signal(signal.SIGINT)
            break
    interrupted.stdout.read()
    assert interrupted.wait(IMPORTS) == 130
    assert (there["dysl"] / "unfinished.json").exists(), "what was learned is kept"
    told = run(words)
    for part in ("memory that this needs", "before training: floor", "stage 2, error", "chosen: ", "next: dysl_vla "):
        assert part in told, told
    assert not (there["dysl"] / "unfinished.json").exists()
    assert executed_when_skipping(there) == (True, False, False, True, False, True)
    require_replay(there, tmp_path)


def test_a_lerobot_dataset_serves_in_place_of_bags(there: dict[str, Path], tmp_path: Path) -> None:
    folder, writer = tmp_path / "recorded", ROOT / "test" / "lerobot" / "tiny_dataset.py"
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {"HF_HUB_OFFLINE": "1"}
    counts = [str(count) for count in (12, 12, 12, 12)]
    subprocess.run([PYTHON, writer, folder, "20", *counts], check=True, env=environment, timeout=IMPORTS)
    words = [sys.executable, "-m", "dysl_vla_ros.commands.main"]
    dysl = tmp_path / "dysl"
    data = [str(there["checkpoint"]), str(folder), "--params", str(there["params"]), "--adapters", str(dysl)]
    told = run([*words, "calibrate", *data, "--static", "spread", "--static-layers", "3", "--observations", "12"])
    assert "static layers: spread [0, 3, 5] of 6" in told
    told = run([*words, "distill", *data, *SMALL, *STEPS])
    assert "4 episodes of 2 instructions, 48 frames; held out: 2 episodes" in told and "chosen: " in told
    report = json.loads((dysl / "distillation.json").read_text())
    assert report["recordings"] == {"datasets": [str(folder)]} and report["frames"] == 16


def require_replay(there: dict[str, Path], folder: Path) -> None:
    """Replay the bag; refuse figures that are not those of its moments and of the commands that it holds."""
    told = run(verb(there, "replay", "--out", str(folder)))
    assert "skipping" in told and "deg p95" in told
    found = json.loads((folder / "replay.json").read_text())
    assert found["policy"]["family"] == "smolvla" and str(there["dysl"]) in found["policy"]["adapters"]
    assert found["inferences"] == 48 and found["layers"]["total"] == 6 and found["layers"]["mean"] < 6.0
    assert found["bag"]["recorded_actions"] == "the commands as recorded, after the limits"
    full = np.array([moment["full depth"]["action"] for moment in found["moments"]])
    furthest = np.abs(full[:, DEGREES]).max(axis=1)
    recorded = found["recorded"]["full"]["all"]["joint_degrees"]
    assert recorded["max"] == pytest.approx(furthest.max(), rel=1e-4)
    assert recorded["mean"] == pytest.approx(furthest.mean(), rel=1e-4)


def executed_when_skipping(there: dict[str, Path]) -> tuple[bool, ...]:
    """Return which layers a worker, as the node starts it, runs when it is told to skip wherever it may."""
    given = read_params_file(there["params"])
    spec = WorkerSpec.from_settings(given.groups[ModelSettings.group], given.robot)
    spec = dataclasses.replace(spec, checkpoint=str(there["checkpoint"]), adapters=str(there["dysl"]))
    replies: list[StepReply] = []
    client = WorkerClient(spec, replies.append, lambda why: None)
    try:
        description = client.start()
        assert description.static_layers == (0, 3, 5) and description.calibrated
        guidance = GuidanceSettings(prior=False, verify=False, warmup=0)
        settings = RuntimeSettings(SkippingSettings(threshold=0.0), guidance)
        sizes = {"observation.images.top": (48, 64, 3), "observation.images.wrist": (40, 36, 3)}
        images = {name: np.full(size, 90, np.uint8) for name, size in sizes.items()}
        seen = Observation(images, np.zeros(6, np.float32), TEXTS[0])
        client.submit(StepRequest(1, 1, seen, np.zeros((0, 6), np.float32), (), 0, settings))
        wait_until(lambda: bool(replies), IMPORTS, "a reply")
        assert replies[0].result is not None, replies[0].error
        return replies[0].result.trace.executed
    finally:
        client.close()
