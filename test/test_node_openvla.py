"""An OpenVLA-OFT checkpoint through the node over real DDS: what no file says, damage, motion, a killed worker."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import wait_until
from processes import descendants
from tiny_openvla import HORIZON, INSTRUCTION, LAYERS, STATE_NAMES, convert, write_tiny_openvla
from vla_rig import ACTION, LIMIT, NODE, REPORT, TWIST, Rig, gentle, running_rig

pytestmark = [pytest.mark.ros, pytest.mark.slow]
CHUNK = f"/{NODE}/action_chunk"
SAID = {
    "robot.cameras.full_image": "image",
    "robot.cameras.wrist_image": "wrist_image",
    "robot.state.names": list(STATE_NAMES),
    "robot.state.units": ["rad"] * 7 + ["1"],
    "robot.action.kind": "end_effector_delta",
    "robot.action.time_step": 0.1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(write_tiny_openvla(tmp_path_factory.mktemp("openvla") / "checkpoint"))


@pytest.fixture(scope="module")
def arm(ros_domain: int, folder: Path) -> Iterator[Rig]:
    """Return an unconfigured rig, of whose model neither horizon nor bounds are said."""
    from dysl_vla_ros.msg import ActionChunk

    with running_rig(gentle(folder) | SAID | {"model.load_timeout": 200.0}) as rig:
        rig.peer.listen(CHUNK, ActionChunk)
        rig.robot.joints = [dict.fromkeys(STATE_NAMES[:-1], 0.1)]
        yield rig


def test_what_no_file_says_and_damage_leave_the_node_unconfigured_and_alive(arm: Rig, folder: Path) -> None:
    assert not arm.change("configure") and arm.state() == "unconfigured"
    arm.wait_for_error("worker", "model.horizon is not said")
    assert arm.peer.set_parameters(NODE, {"model.horizon": HORIZON, "model.bounds": "q99"}, LIMIT, atomically=True) == (
        True,
        "",
    )
    shard = next(folder.glob("model-00001*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    assert not arm.change("configure") and arm.state() == "unconfigured"
    arm.wait_for_error("worker", str(shard))
    shard.write_bytes(whole)
    assert not arm.heard(TWIST)


def test_the_arm_moves_and_a_killed_worker_stops_it(arm: Rig) -> None:
    arm.bring_to("active")
    arm.instruct(INSTRUCTION)
    arm.wait_for_motion()
    report = arm.peer.wait_for(REPORT, None, LIMIT, "a skip report")
    assert len(report.executed) == LAYERS and report.full_depth_reason == "no DySL folder"
    chunk = arm.peer.wait_for(CHUNK, None, LIMIT, "a chunk")
    assert chunk.horizon == HORIZON and len(chunk.rotation) == 3 * HORIZON
    before = arm.heard(ACTION)
    worker = [own for own in descendants(arm.node.pid) if b"dysl_vla_ros.worker" in _words(own.pid)]
    os.kill(worker[0].pid, signal.SIGKILL)
    arm.peer.wait_for(ACTION, lambda action: action.stop_reason, LIMIT, "a stop", before)
    wait_until(lambda: arm.state() != "active", LIMIT, "the node to leave active")
    arm.bring_to("unconfigured")


def _words(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
