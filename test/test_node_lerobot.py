"""LeRobot's checkpoints through the node over real DDS; nothing of ours is installed where their worker runs."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

import dysl_vla_ros
from faulty_worker import FaultyWorker
from harness import wait_until
from processes import descendants
from vla_rig import LIMIT, NODE, REPORT, Rig, gentle, running_rig, wait_steadily
from warm_worker import WarmWorkers

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv-lerobot" / "bin" / "python"
IMPORTS = 240.0  # s to import LeRobot from a cold disk
STEP_TIMEOUT = 5.0  # s
pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.timeout(5 * IMPORTS),
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-lerobot; `make setup-lerobot` makes it"),
]
COMMAND, GRIPPER = f"/{NODE}/joint_command", f"/{NODE}/gripper"
ACTION, CHUNK = f"/{NODE}/joint_action", f"/{NODE}/joint_action_chunk"
JOINTS = ["pan", "lift", "elbow", "flex", "roll"]
START = {"roll": 0.05, "flex": 0.1, "pan": -0.2, "lift": 0.3, "elbow": -0.1}  # rad
STATE = {
    "robot.state.names": [*JOINTS, "gripper.opening"],
    "robot.state.units": ["deg", "deg", "deg", "range_100", "deg", "percent"],
}
REST = STATE | {
    "robot.action.kind": "joint_position",
    "robot.action.names": [*JOINTS, "jaw"],
    "robot.action.units": ["deg", "deg", "deg", "range_100", "deg", "percent"],
    "robot.action.gripper": "jaw",
    "robot.action.low": [0.0, 0.0, 0.0, -1.5, 0.0, 0.0],
    "robot.action.high": [0.0, 0.0, 0.0, 1.6, 0.0, 0.0],
    "robot.action.time_step": 0.05,
    "safety.joint.min_position": [-1.5] * 5,
    "safety.joint.max_position": [1.5] * 5,
    "safety.joint.max_velocity": [1.0] * 5,
    "safety.joint.max_acceleration": [8.0] * 5,
}
FAMILIES = ("smolvla", "pi0", "xvla")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where tiny checkpoints are, one a family, once ``warm`` is there."""
    return tmp_path_factory.mktemp("lerobot")


@pytest.fixture(scope="module")
def warm(folder: Path) -> Iterator[str]:
    """Return a Python whose workers need not import LeRobot."""
    beside = folder / "beside"  # what the worker's private link gives it
    beside.mkdir()
    for package in (dysl_vla_ros, msgpack):
        (beside / package.__name__).symlink_to(Path(str(package.__file__)).parent)
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"PYTHONPATH": str(beside), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    server = str(ROOT / "test" / "lerobot" / "warm_lerobot.py")
    workers = WarmWorkers(folder, (server, str(folder), *FAMILIES), (str(PYTHON), environment))
    try:
        wait_until(lambda: workers.ready, IMPORTS, "LeRobot to be imported, and three checkpoints")
        yield workers.python
    finally:
        workers.close()


@pytest.fixture(scope="module")
def faulty(folder: Path, warm: str) -> FaultyWorker:
    return FaultyWorker(folder, warm)


@pytest.fixture(scope="module")
def arm(ros_domain: int, folder: Path, faulty: FaultyWorker) -> Iterator[Rig]:
    """Return an unconfigured rig with a tiny SmolVLA, of which nothing but the cameras is said."""
    from std_msgs.msg import Float64MultiArray

    from dysl_vla_ros.msg import JointAction, JointActionChunk

    said = {
        "model.python": faulty.python,
        "model.tokenizer": str(folder / "smolvla" / "hub"),
        "model.step_timeout": STEP_TIMEOUT,
        "robot.action.message": "float64_multi_array",
        "robot.cameras.observation.images.top": "image",
        "robot.cameras.observation.images.wrist": "wrist_image",
    }
    with running_rig(gentle(folder / "smolvla" / "checkpoint") | said) as rig:
        for topic, kind in ((COMMAND, Float64MultiArray), (ACTION, JointAction), (CHUNK, JointActionChunk)):
            rig.peer.listen(topic, kind)
        rig.robot.joints = [START]
        yield rig


def configure(rig: Rig) -> bool:
    return rig.peer.change_state(NODE, "configure", IMPORTS + LIMIT)


def move(rig: Rig) -> Any:
    assert configure(rig), rig.node.output[-2000:]
    rig.bring_to("active")
    rig.instruct("pick up the red cube")
    return rig.peer.wait_for(ACTION, lambda it: not it.stop_reason, LIMIT, "an action that moves", rig.heard(ACTION))


def test_what_no_file_says_is_asked_for_before_anything_moves(arm: Rig) -> None:
    assert not configure(arm) and arm.state() == "unconfigured"
    arm.wait_for_error("worker", "robot.action.kind is not said, and no file of the checkpoint says it")
    wait_until(lambda: 'names: ["...", "...", ' in arm.node.output, LIMIT, "the block in the log")
    assert "observation.images.top: image\n" in arm.node.output and "time_step: ..." in arm.node.output
    assert not arm.heard(COMMAND)
    assert arm.peer.set_parameters(NODE, REST | {"model.python": str(PYTHON)}, LIMIT, atomically=True) == (True, "")


def test_joint_commands_come_of_a_smolvla_and_a_killed_worker_stops_the_arm(arm: Rig, faulty: FaultyWorker) -> None:
    """Its worker is a plain process of LeRobot's Python, which imports for itself."""
    first = move(arm)
    assert list(first.names) == JOINTS
    commands = [np.array(message.data) for message in arm.peer.received(COMMAND)]
    assert np.all(np.abs(commands[0] - [START[name] for name in JOINTS]) <= 0.1 + 1e-9), "it begins where the arm is"
    report = arm.peer.wait_for(REPORT, None, LIMIT, "a skip report")
    assert len(report.executed) == 6 and all(report.executed) and report.full_depth_reason == "no DySL folder"
    chunk = arm.peer.wait_for(CHUNK, None, LIMIT, "a chunk")
    assert list(chunk.units) == REST["robot.action.units"]
    arm.peer.wait_for(GRIPPER, None, LIMIT, "the gripper's opening")
    pid = worker_of(arm)
    before = arm.heard(ACTION)
    os.kill(pid, signal.SIGKILL)
    arm.peer.wait_for(ACTION, lambda it: it.stop_reason, LIMIT, "a stop", before)
    wait_until(lambda: arm.state() == "unconfigured", LIMIT, "the node to be unconfigured")
    arm.wait_for_error("worker", "SIGKILL")
    assert arm.peer.set_parameters(NODE, {"model.python": faulty.python}, LIMIT) == (True, "")
    assert move(arm), "configured again, it moves again"


def test_a_hung_worker_stops_the_arm_and_is_given_up(arm: Rig, faulty: FaultyWorker) -> None:
    before = arm.heard(ACTION)
    faulty.set("hang", lock=True)
    held = arm.peer.wait_for(
        ACTION, lambda it: "has not answered yet" in it.stop_reason, LIMIT, "a stop that names the worker", before
    )
    assert len(held.positions) == 5 and np.all(np.isfinite(held.positions)), "a stop holds a position"
    wait_until(lambda: arm.state() == "unconfigured", LIMIT, "the node to be unconfigured")
    arm.wait_for_error("worker", f"model.step_timeout is {STEP_TIMEOUT:g} s")
    counts = arm.heard(COMMAND)
    wait_steadily(0.3)
    assert arm.heard(COMMAND) == counts and not arm.node.children()
    faulty.set("none")


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_the_other_families_move_the_same_arm(family: str, arm: Rig, folder: Path) -> None:
    other = {"model.checkpoint": str(folder / family / "checkpoint"), "model.tokenizer": str(folder / family / "hub")}
    assert arm.peer.set_parameters(NODE, other, LIMIT, atomically=True) == (True, "")
    before = arm.heard(REPORT)
    assert list(move(arm).names) == JOINTS
    report = arm.peer.wait_for(REPORT, None, LIMIT, "a skip report", before)
    assert len(report.executed) == 6 and all(report.executed)
    assert arm.change("deactivate")
    counts = arm.heard(COMMAND), arm.heard(ACTION)
    wait_steadily(0.3)
    assert (arm.heard(COMMAND), arm.heard(ACTION)) == counts, "after the one last command there is silence"
    arm.bring_to("unconfigured")


def worker_of(rig: Rig) -> int:
    """Return the process id of the node's worker."""
    for process in descendants(rig.node.pid):
        if b"dysl_vla_ros.worker" in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            return process.pid
    raise AssertionError("there is no worker")
