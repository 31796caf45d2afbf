"""An arm of joints over real DDS: what is missing is asked for, commands start where the arm is, a stop holds."""

import importlib.util
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.interfaces import ActionSpec
from harness import install_prefix, wait_until
from joint_arm import JOINTS, joint_positions, joint_velocities
from vla_rig import LIMIT, NODE, Rig, gentle, running_rig, wait_steadily
from warm_program import run

pytestmark = pytest.mark.ros

COMMAND, GRIPPER = f"/{NODE}/joint_command", f"/{NODE}/gripper"
ACTION, CHUNK = f"/{NODE}/joint_action", f"/{NODE}/joint_action_chunk"
START = {"wrist": -0.4, "shoulder": 0.3, "finger": 0.0, "elbow": -0.2}  # rad, in an order of the driver's own
MEASURED = np.array([START[name] for name in JOINTS])
LIMITS = {
    "safety.joint.min_position": [-1.0, -1.0, -1.4],
    "safety.joint.max_position": [1.0, 1.0, 0.9],
    "safety.joint.max_velocity": [1.0, 1.0, 1.0],
    "safety.joint.max_acceleration": [8.0, 8.0, 8.0],
}
FIRST_STEP = 0.01


@pytest.fixture(scope="module", params=["positions", "velocities"])
def arm(request: pytest.FixtureRequest, ros_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return an unconfigured rig and its actions; velocities go out as trajectories where these are installed."""
    from std_msgs.msg import Float64MultiArray

    from dysl_vla_ros.msg import JointAction, JointActionChunk
    from tiny_checkpoint import make_tiny_checkpoint

    positions = request.param == "positions"
    array = positions or importlib.util.find_spec("trajectory_msgs") is None
    spec = joint_positions() if positions else joint_velocities()
    checkpoint = make_tiny_checkpoint(
        tmp_path_factory.mktemp("base"), joints={"shoulder": "rad", "elbow": "deg"}, action=spec
    )
    said = {
        "robot.action.message": "float64_multi_array" if array else "joint_trajectory",
        "robot.action.names": list(spec.names),
        "robot.state.units": ["m", "m", "m", "1", "rad", "deg"],
        "safety.max_first_step": FIRST_STEP,
    }
    if not positions:  # the robot's topics, exchanged
        said |= {"robot.cameras.image": "wrist_image", "robot.cameras.wrist_image": "image"}
    with running_rig(gentle(checkpoint) | said) as rig:
        message: Any = Float64MultiArray
        if not array:
            from trajectory_msgs.msg import JointTrajectory as message  # noqa: N813
        for topic, kind in ((COMMAND, message), (ACTION, JointAction), (CHUNK, JointActionChunk)):
            rig.peer.listen(topic, kind)
        rig.robot.joints = [START]
        yield rig, spec


def told(message: Any, spec: ActionSpec) -> np.ndarray:
    """Return what a message on ~/joint_command tells the joints."""
    if hasattr(message, "data"):
        return np.array(message.data)
    (point,) = message.points
    assert message.joint_names == list(JOINTS)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (0, 0), "a controller reads it as: at once"
    assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 50_000_000)
    values, others = (point.positions, point.velocities)[:: 1 if spec.kind == "joint_position" else -1]
    assert not len(others), "one meaning a message"
    return np.array(values)


def moving(rig: Rig) -> Any:
    return rig.peer.wait_for(
        ACTION, lambda action: not action.stop_reason, LIMIT, "an action that moves", rig.heard(ACTION)
    )


def test_limits_that_nobody_gave_refuse_to_configure_and_the_log_has_the_block_to_fill_in(arm: Any) -> None:
    rig, spec = arm
    assert not rig.change("configure") and rig.state() == "unconfigured"
    rig.wait_for_error(
        "worker", "safety.joint.min_position has 0 values, expected 3 in the order shoulder, elbow, wrist"
    )
    wait_until(lambda: "max_acceleration: [..., ..., ...]" in rig.node.output, LIMIT, "the block in the log")
    camera = "image" if spec.kind == "joint_position" else "wrist_image"
    for line in (f"        image: {camera}\n", f"kind: {spec.kind}", f'names: ["{spec.names[0]}", ', "time_step: 0.05"):
        assert line in rig.node.output
    assert rig.peer.set_parameters(NODE, LIMITS, LIMIT, atomically=True) == (True, "")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"robot.action.kind": "end_effector_delta"},
            "robot.action.kind is end_effector_delta, but the checkpoint has",
        ),
        ({"robot.action.time_step": 0.1}, "robot.action.time_step is 0.1 s, but the checkpoint has 0.05 s"),
        (
            {"robot.action.units": ["deg"] * 4},
            "robot.action.units is deg, deg, deg, deg, but the checkpoint has rad, deg",
        ),
        ({"safety.joint.max_velocity": [1.0]}, "safety.joint.max_velocity has 1 values, expected 3"),
    ],
)
def test_a_contract_that_contradicts_the_checkpoint_refuses_to_configure(arm: Any, wrong: Any, said: str) -> None:
    rig, spec = arm
    right = LIMITS | {
        "robot.action.kind": spec.kind, "robot.action.time_step": 0.05, "robot.action.units": list(spec.units)
    }  # fmt: skip
    assert rig.peer.set_parameters(NODE, LIMITS | wrong, LIMIT, atomically=True) == (True, "")
    assert not rig.change("configure")
    rig.wait_for_error("worker", said)
    assert rig.peer.set_parameters(NODE, right, LIMIT, atomically=True) == (True, "")


def test_a_missing_joint_is_named_and_nothing_goes_out(arm: Any) -> None:
    rig, _ = arm
    rig.robot.joints = [{name: value for name, value in START.items() if name != "wrist"}]
    rig.bring_to("active")
    rig.instruct()
    rig.wait_for_error("inputs", "no joint wrist; there are: shoulder, finger, elbow")
    assert not rig.heard(COMMAND) and not rig.heard(ACTION)
    rig.bring_to("inactive")
    rig.robot.joints = [START]


@pytest.mark.slow
def test_the_doctor_sees_who_obeys_and_which_joints_are_measured(arm: Any) -> None:
    rig, _ = arm
    rig.bring_to("inactive")
    well, absent = "heard by /\\S+; each is measured", {name: value for name, value in START.items() if name != "wrist"}
    for measured, line in (
        (START, rf"OK +joints +3 commanded on {COMMAND}, {well}"),
        (absent, "FAIL +joints +/joint_states has no wrist; there are shoulder, finger, elbow"),
    ):
        rig.robot.joints = [measured]
        command = [str(install_prefix() / "bin" / "dysl_vla"), "doctor"]
        done = run(command, LIMIT, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=install_prefix())
        assert re.search(line, done.stdout), done.stdout
    rig.robot.joints = [START]


def test_an_arm_starts_where_it_is_and_holds_when_it_stops(arm: Any) -> None:
    rig, spec = arm
    positions = spec.kind == "joint_position"
    begun = rig.heard(ACTION), rig.heard(COMMAND)
    rig.bring_to("active")
    rig.instruct()
    first = rig.peer.wait_for(ACTION, lambda action: not action.stop_reason, LIMIT, "the first action", begun[0])
    assert list(first.names) == list(JOINTS) and first.kind == spec.kind
    if positions:
        command = told(rig.peer.received(COMMAND)[begun[1]], spec)
        assert np.all(np.abs(command - MEASURED) <= FIRST_STEP + 1e-9)
        assert np.any(command != MEASURED), "a policy that stands still proves nothing"
    moving(rig)
    rig.robot.silent.add("image")
    silent = rig.peer.wait_for(
        ACTION, lambda action: "/image" in action.stop_reason, LIMIT, "a stop for the camera", rig.heard(ACTION)
    )
    actions, commands = rig.peer.received(ACTION)[begun[0] :], rig.peer.received(COMMAND)[begun[1] :]
    values = [told(message, spec) for message in commands]
    low, high = (np.array(LIMITS[f"safety.joint.{end}_position"]) for end in ("min", "max"))
    if positions:
        assert all(np.all(value >= low) and np.all(value <= high) for value in values)
        last = actions[actions.index(silent) - 1]
        assert list(silent.positions) == list(last.positions) and any(last.positions), "held, not sent to zero"
        steps = np.diff([MEASURED, *values], axis=0) * 20.0
    else:
        assert not any(silent.velocities) and not len(silent.positions)
        steps = np.array(values)
    assert np.all(np.abs(steps) <= np.array(LIMITS["safety.joint.max_velocity"]) + 1e-6)
    assert math.isnan(silent.gripper), "the gripper holds"
    rig.robot.silent.clear()
    moving(rig)
    assert rig.heard(GRIPPER)


def test_a_camera_is_heard_on_the_topic_that_is_said(arm: Any) -> None:
    rig, spec = arm
    rig.robot.sent = []
    topic = "image" if spec.kind == "joint_position" else "wrist_image"

    def answers(action: Any, of: str) -> bool:
        return any(action.image_stamp == message.header.stamp for name, message in rig.robot.sent if name == of)

    action = rig.peer.wait_for(
        ACTION, lambda action: answers(action, topic), LIMIT, f"an answer to {topic}", rig.heard(ACTION)
    )
    assert not answers(action, {"image": "wrist_image", "wrist_image": "image"}[topic])
    rig.robot.sent = None


def test_leaving_active_is_one_last_command_and_then_silence(arm: Any) -> None:
    rig, spec = arm
    moving(rig)
    before = rig.heard(ACTION)
    assert rig.change("deactivate")
    last = rig.peer.wait_for(ACTION, lambda action: action.stop_reason == "deactivated", LIMIT, "the last", before)
    heard = rig.heard(COMMAND), rig.heard(ACTION)
    wait_steadily(0.5)
    assert (rig.heard(COMMAND), rig.heard(ACTION)) == heard and rig.peer.received(ACTION)[-1] is last
    before_it, command = (told(message, spec) for message in rig.peer.received(COMMAND)[-2:])
    if spec.kind == "joint_position":
        assert command.tolist() == before_it.tolist() == list(last.positions)
    else:
        assert command.tolist() == [0.0] * 3


def test_the_chunk_is_published_as_the_policy_gave_it(arm: Any) -> None:
    rig, spec = arm
    chunk = rig.peer.received(CHUNK)[-1]
    assert (chunk.kind, list(chunk.names), list(chunk.units)) == (spec.kind, list(spec.names), list(spec.units))
    assert len(chunk.actions) == chunk.horizon * spec.dimensions == spec.horizon * spec.dimensions


def test_an_arm_that_never_moved_is_told_to_stay_where_it_is_measured(arm: Any) -> None:
    rig, spec = arm
    begun = rig.heard(COMMAND)
    rig.robot.joints = [{name: value + 0.05 for name, value in START.items()}]
    rig.robot.silent.add("image")
    rig.bring_to("active")
    rig.wait_for_status("inputs", lambda status: "/joint_states age [s]" in {v.key for v in status.values}, "joints")
    wait_steadily(0.3)
    assert rig.heard(COMMAND) == begun, "nothing goes out before the first action"
    assert rig.change("deactivate")
    rig.peer.wait_for(COMMAND, None, LIMIT, "the last command", begun)
    (command,) = (told(message, spec) for message in rig.peer.received(COMMAND)[begun:])
    rig.robot.silent.clear()
    rig.robot.joints = [START]
    wanted = MEASURED + 0.05 if spec.kind == "joint_position" else np.zeros(3)
    np.testing.assert_allclose(command, wanted, atol=1e-9)


def test_trajectories_without_their_package_are_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from dysl_vla_ros.nodes.joint_outputs import trajectory_messages

    monkeypatch.setitem(sys.modules, "trajectory_msgs.msg", None)
    with pytest.raises(SettingError, match="trajectory_msgs cannot be imported .*float64_multi_array"):
        trajectory_messages()
