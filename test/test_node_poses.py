"""An arm that takes absolute poses, over real DDS: it starts where it is measured, a stop holds, then it is silent."""

import math
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dysl_vla_ros.poses import of_vectors, turn
from harness import install_prefix
from pose_arm import FRAME, end_effector_poses
from vla_rig import LIMIT, NODE, Rig, gentle, running_rig, wait_steadily
from warm_program import run

pytestmark = pytest.mark.ros

COMMAND, GRIPPER = f"/{NODE}/pose_command", f"/{NODE}/gripper"
ACTION, CHUNK = f"/{NODE}/pose_action", f"/{NODE}/pose_action_chunk"
START, FACING = (0.1, 0.5, 0.2), of_vectors(np.array([0.0, 0.4, 0.0]))
FIRST_STEP, SPEED, TURNING = 0.01, 0.1, 0.5  # m and rad, m/s, rad/s
SPEC = end_effector_poses(unused=1)


@pytest.fixture(scope="module")
def arm(ros_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Return an unconfigured rig whose policy declares no proprioception of the hand's orientation."""
    from geometry_msgs.msg import PoseStamped

    from dysl_vla_ros.msg import PoseAction, PoseActionChunk
    from tiny_checkpoint import make_tiny_checkpoint

    said = {
        "robot.action.kind": "end_effector_pose",
        "robot.action.frame": "another",
        "safety.max_first_step": FIRST_STEP,
        "safety.max_linear_speed": SPEED,
        "safety.max_angular_speed": TURNING,
        "control.command_frame": "base_link",
    }
    checkpoint = make_tiny_checkpoint(tmp_path_factory.mktemp("base"), action=SPEC)
    with running_rig(gentle(checkpoint) | said) as rig:
        for topic, kind in ((COMMAND, PoseStamped), (ACTION, PoseAction), (CHUNK, PoseActionChunk)):
            rig.peer.listen(topic, kind)
        rig.robot.place, rig.robot.rotation = START, tuple(map(float, FACING))  # type: ignore[assignment]
        yield rig


def at(pose: Any) -> tuple[np.ndarray, np.ndarray]:
    point, quaternion = pose.position, pose.orientation
    return np.array([point.x, point.y, point.z]), np.array([quaternion.x, quaternion.y, quaternion.z, quaternion.w])


def moving(rig: Rig) -> Any:
    return rig.peer.wait_for(
        ACTION, lambda action: not action.stop_reason, LIMIT, "an action that moves", rig.heard(ACTION)
    )


def test_poses_in_another_frame_than_the_checkpoints_are_refused(arm: Rig) -> None:
    assert not arm.change("configure") and arm.state() == "unconfigured"
    arm.wait_for_error("worker", "robot.action.frame is another, but the checkpoint has base")
    assert f"frame: {FRAME}" in arm.node.output, "the log has the block"
    assert arm.set(robot__action__frame=FRAME) == (True, "")


@pytest.mark.slow
def test_the_doctor_sees_who_obeys_and_that_the_pose_is_measured(arm: Rig) -> None:
    arm.bring_to("inactive")
    for silent, line in (
        (set(), rf"OK +poses +commanded on {COMMAND}, heard by /\S+; measured on /ee_pose"),
        ({"ee_pose"}, "FAIL +poses +/ee_pose: no message was heard in"),
    ):
        arm.robot.silent |= silent
        command = [str(install_prefix() / "bin" / "dysl_vla"), "doctor"]
        done = run(command, LIMIT, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=install_prefix())
        assert re.search(line, done.stdout), done.stdout
    arm.robot.silent.clear()


def test_an_arm_starts_where_it_is_measured_and_holds_when_it_stops(arm: Rig) -> None:
    begun = arm.heard(ACTION), arm.heard(COMMAND)
    arm.bring_to("active")
    arm.instruct()
    arm.peer.wait_for(ACTION, lambda action: not action.stop_reason, LIMIT, "the first action", begun[0])
    first = arm.peer.received(COMMAND)[begun[1]]
    assert first.header.frame_id == "base_link"
    position, orientation = at(first.pose)
    assert 0.0 < np.linalg.norm(position - START) <= FIRST_STEP + 1e-9, "a policy that stands still proves nothing"
    assert np.linalg.norm(turn(FACING, orientation)) <= FIRST_STEP + 1e-9
    moving(arm)
    arm.robot.silent.add("image")
    silent = arm.peer.wait_for(
        ACTION, lambda action: "/image" in action.stop_reason, LIMIT, "a stop for the camera", arm.heard(ACTION)
    )
    actions, commands = arm.peer.received(ACTION)[begun[0] :], arm.peer.received(COMMAND)[begun[1] :]
    last = actions[actions.index(silent) - 1]
    assert silent.pose == last.pose and not any((silent.linear.x, silent.angular.x)), "held, not sent to zero"
    assert math.isnan(silent.gripper), "the gripper holds"
    path = [(np.array(START), FACING), *(at(command.pose) for command in commands)]
    for (here, facing), (there, turned) in zip(path, path[1:], strict=False):
        assert np.linalg.norm(there - here) * 20.0 <= SPEED + 1e-6
        assert np.linalg.norm(turn(facing, turned)) * 20.0 <= TURNING + 1e-6
    arm.robot.silent.clear()
    moving(arm)
    assert arm.heard(GRIPPER)


def test_leaving_active_is_one_last_pose_and_then_silence(arm: Rig) -> None:
    moving(arm)
    before = arm.heard(ACTION)
    assert arm.change("deactivate")
    last = arm.peer.wait_for(ACTION, lambda action: action.stop_reason == "deactivated", LIMIT, "the last", before)
    heard = arm.heard(COMMAND), arm.heard(ACTION)
    wait_steadily(0.5)
    assert (arm.heard(COMMAND), arm.heard(ACTION)) == heard and arm.peer.received(ACTION)[-1] is last
    before_it, command = arm.peer.received(COMMAND)[-2:]
    assert command.pose == before_it.pose == last.pose


def test_the_chunk_is_published_as_the_policy_gave_it(arm: Rig) -> None:
    chunk = arm.peer.received(CHUNK)[-1]
    assert (chunk.header.frame_id, list(chunk.names), list(chunk.units)) == (FRAME, list(SPEC.names), list(SPEC.units))
    assert len(chunk.actions) == chunk.horizon * SPEC.dimensions == SPEC.horizon * SPEC.dimensions


def test_an_arm_that_never_moved_is_told_to_stay_where_it_is_measured(arm: Rig) -> None:
    begun = arm.heard(COMMAND)
    arm.robot.place = (0.2, 0.4, 0.3)
    arm.robot.silent.add("image")
    arm.bring_to("active")
    arm.wait_for_status("inputs", lambda status: "/ee_pose age [s]" in {v.key for v in status.values}, "the pose")
    wait_steadily(0.3)
    assert arm.heard(COMMAND) == begun, "nothing goes out before the first action"
    assert arm.change("deactivate")
    arm.peer.wait_for(COMMAND, None, LIMIT, "the last command", begun)
    (command,) = arm.peer.received(COMMAND)[begun:]
    position, orientation = at(command.pose)
    np.testing.assert_allclose(position, (0.2, 0.4, 0.3), atol=1e-9)
    np.testing.assert_allclose(orientation, FACING, atol=1e-9)
    arm.robot.silent.clear()
    arm.robot.place = START
