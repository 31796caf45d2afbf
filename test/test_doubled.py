"""Two publishers of one input stop the real node with both names, in two ways: by gid, and as on Jazzy without it.

A publisher that was killed stays in the graph for 20 s: nothing here may wait for that.
"""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dysl_vla_ros.control.publishers import LEAST_WINDOW
from harness import RosPeer, wait_until
from vla_rig import ACTION, CHUNK, DIAGNOSTICS, LIMIT, Rig, gentle, running_rig

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy")

HERE = Path(__file__).parent
JOINTS = {"shoulder": "rad", "elbow": "rad", "finger": "m"}
GRAPH_MEMORY = 15.0  # s in which a killed node is still in the graph for certain
PROGRAMS = [
    pytest.param("vla_node", id="gid"),
    pytest.param(str(HERE / "node_without_gid.py"), id="numbers", marks=pytest.mark.slow),
]
GIVE = "give instructions, the newest counts"
DOUBLED = "at the same time"


@pytest.fixture(scope="module", params=PROGRAMS)
def rig(request: pytest.FixtureRequest, ros_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    from tiny_checkpoint import make_tiny_checkpoint

    checkpoint = make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), joints=JOINTS)
    with running_rig(gentle(checkpoint) | {"safety.max_arrival_age": 0.6}, program=request.param) as rig:
        rig.robot.joints = [{"elbow": 0.2, "shoulder": -0.1}, {"finger": 0.02, "head": 1.0}]
        rig.move()
        yield rig


@contextlib.contextmanager
def publishing(
    name: str, topic: str, kind: str, rate: float = 20.0, standby: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Start another publisher; ``standby``: it is ready, and begins with :func:`begin`."""
    command = [sys.executable, str(HERE / "lone_publisher.py"), name, topic, kind, str(rate), *["standby"] * standby]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            if standby:
                assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            yield process
        finally:
            kill(process)


def begin(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def kill(process: "subprocess.Popen[bytes]") -> float:
    """End it without a word to the graph; returns when (time.monotonic())."""
    process.send_signal(signal.SIGKILL)
    process.wait(LIMIT)
    return time.monotonic()


def robot_of(rig: Rig) -> str:
    return str(rig.peer.node.get_fully_qualified_name())


KINDS = {  # topic: kind of the second publisher's messages, what is told
    "image": ("image", "/image: {} publish it at the same time"),
    "ee_pose": ("pose", "/ee_pose: {} publish it at the same time"),
    "gripper_state": ("opening", "/gripper_state: {} publish it at the same time"),
    "joint_states": ("zeros", "/joint_states: joints shoulder, elbow, finger: {} publish it at the same time"),
}


def test_a_second_publisher_of_any_input_stops_the_arm_by_name_until_it_is_silent(rig):
    rig.wait_for_motion()
    names = " and ".join(sorted((robot_of(rig), "/second")))
    for topic, (kind, told) in KINDS.items():
        before = rig.heard(DIAGNOSTICS), rig.heard(ACTION)
        with publishing("second", topic, kind) as process:
            rig.wait_for_error("inputs", told.format(names), before[0])
            stop = rig.wait_for_stop(told.format(names), before[1])
            assert is_still(stop)
            assert "; stop one of them" in stop.stop_reason
            received, chunks = value(rig, f"/{topic} received"), rig.heard(CHUNK)
            rig.wait_for_status(
                "inputs", lambda status, topic=topic, least=received: read(status, f"/{topic} received") > least, "more"
            )
            assert rig.heard(CHUNK) == chunks, "an inference was made"
            rig.peer.wait_for_publisher(topic, LIMIT, 2)
            killed = kill(process)
    rig.wait_for_motion()
    assert time.monotonic() - killed < GRAPH_MEMORY
    assert rig.peer.node.count_publishers(topic) == 2, "the graph no longer shows it: nothing was tested"
    assert rig.state() == "active"


def test_a_killed_camera_that_starts_again_is_no_second_one(rig):
    rig.wait_for_motion()
    rig.robot.silent.add("image")
    listed = gids(rig, "image")  # others that were killed may still be among them
    try:
        rig.wait_for_stop("/image has stopped")
        with publishing("camera", "image", "image") as camera:
            rig.wait_for_motion()
            first = wait_until(lambda: gids(rig, "image") - listed, LIMIT, "the camera in the graph")
            with publishing("camera", "image", "image", standby=True) as successor:
                second = wait_until(lambda: gids(rig, "image") - listed - first, LIMIT, "its successor in the graph")
                before = rig.heard(ACTION), rig.heard(DIAGNOSTICS)
                killed = kill(camera)
                begin(successor)
                rig.wait_for_motion()
                assert first | second <= gids(rig, "image"), "the graph no longer shows it: nothing was tested"
                rig.wait_for_status("inputs", lambda status: status.message.startswith("fresh"), "fresh inputs")
                wait_until(lambda: time.monotonic() - killed > LEAST_WINDOW, LIMIT, "as long as it would last")
        assert not [a for a in rig.peer.received(ACTION)[before[0] :] if DOUBLED in a.stop_reason]
        told = [status.message for m in rig.peer.received(DIAGNOSTICS)[before[1] :] for status in m.status]
        assert told and not [text for text in told if DOUBLED in text]
    finally:
        rig.robot.silent.clear()


@pytest.mark.slow
def test_the_doctor_says_of_a_running_node_what_the_node_says(rig):
    from test_doctor import doctor, one

    with publishing("joint_state_publisher", "joint_states", "zeros"):
        rig.wait_for_error("inputs", "/joint_state_publisher")
        code, found = doctor("--live", 2.0)
    assert code == 1
    level, _, told, fix = one(found, "publishers")
    both = " and ".join(sorted((robot_of(rig), "/joint_state_publisher")))
    assert level == "FAIL" and told.startswith(f"/joint_states: joints elbow, finger, shoulder: {both} publish it")
    assert "no joint_state_publisher beside the robot's own driver" in fix
    rig.wait_for_motion()


def test_drivers_of_different_joints_may_share_the_topic(rig):
    rig.wait_for_motion()
    before = rig.heard(ACTION)
    finger = rig.robot.joints.pop()
    try:
        with RosPeer("gripper_driver") as other:
            publisher = other.publisher("joint_states", joint_state_type(), sensor_qos())
            for _ in range(40):
                publisher.publish(joint_state(other, finger))
                rig.peer.wait_for(ACTION, None, LIMIT, "a command", rig.heard(ACTION))
    finally:
        rig.robot.joints.append(finger)
    assert not [a for a in rig.peer.received(ACTION)[before:] if DOUBLED in a.stop_reason]


def test_of_two_that_give_instructions_the_newest_counts_and_both_are_named(rig):
    rig.instruct("push the puck")
    rig.wait_for_motion()
    before = rig.heard(DIAGNOSTICS)
    with publishing("second", "instruction", "instruction") as process:
        status = rig.wait_for_status(
            "inputs", lambda status: GIVE in status.message, "two that give instructions", before
        )
        assert status.level == b"\x01"
        assert robot_of(rig) in status.message and "/second" in status.message
        rig.wait_for_status("inputs", lambda status: text(status, "instruction") == "close the drawer", "the newest")
        kill(process)
        rig.wait_for_motion()
        rig.instruct("lift the puck")
        rig.wait_for_status("inputs", lambda status: text(status, "instruction") == "lift the puck", "the newest")
        rig.wait_for_motion()


# -- messages ----------------------------------------------------------------------------------------------------------


def gids(rig, topic):
    return {bytes(end.endpoint_gid) for end in rig.peer.node.get_publishers_info_by_topic(topic)}


def is_still(action):
    return not any(getattr(part, axis) for part in (action.translation, action.rotation) for axis in "xyz")


def text(status, key):
    return next((pair.value for pair in status.values if pair.key == key), "")


def read(status, key):
    return float(text(status, key))


def value(rig, key):
    return read(rig.wait_for_status("inputs", lambda status: text(status, key), key), key)


def sensor_qos():
    from rclpy.qos import qos_profile_sensor_data

    return qos_profile_sensor_data


def joint_state_type():
    from sensor_msgs.msg import JointState

    return JointState


def joint_state(peer, positions):
    message = joint_state_type()(name=list(positions), position=list(positions.values()))
    message.header.stamp = peer.node.get_clock().now().to_msg()
    return message
