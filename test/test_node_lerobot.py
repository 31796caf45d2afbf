"""A LeRobot checkpoint through the node over real DDS; nothing of ours is installed where its worker runs."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import wait_until
from processes import descendants
from vla_rig import LIMIT, NODE, REPORT, Rig, gentle, running_rig

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv-lerobot" / "bin" / "python"
IMPORTS = 240.0  # s to import LeRobot from a cold disk
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


@pytest.fixture(scope="module")
def arm(ros_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Return an unconfigured rig with a tiny SmolVLA, of which nothing but the cameras is said."""
    from std_msgs.msg import Float64MultiArray

    from dysl_vla_ros.msg import JointAction, JointActionChunk

    folder = tmp_path_factory.mktemp("lerobot")
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {"HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [PYTHON, ROOT / "test" / "lerobot" / "write_checkpoint.py", "smolvla", folder],
        check=True, env=environment, timeout=IMPORTS,
    )  # fmt: skip
    said = {
        "model.python": str(PYTHON),
        "model.tokenizer": str(folder / "hub"),
        "model.load_timeout": IMPORTS,
        "robot.action.message": "float64_multi_array",
        "robot.cameras.observation.images.top": "image",
        "robot.cameras.observation.images.wrist": "wrist_image",
    }
    with running_rig(gentle(folder / "checkpoint") | said) as rig:
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
    assert arm.peer.set_parameters(NODE, REST, LIMIT, atomically=True) == (True, "")


def test_joint_commands_come_of_a_smolvla_and_a_killed_worker_stops_the_arm(arm: Rig) -> None:
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
    wait_until(lambda: arm.state() != "active", LIMIT, "the node to leave active")
    arm.bring_to("unconfigured")
    assert move(arm), "configured again, it moves again"
    arm.bring_to("unconfigured")


def worker_of(rig: Rig) -> int:
    """Return the process id of the node's worker."""
    for process in descendants(rig.node.pid):
        if b"dysl_vla_ros.worker" in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            return process.pid
    raise AssertionError("the node has no worker")
