"""docs/moveit-servo.md without MoveIt: what Servo would hear of the real node, and the programs that the page gives.

Servo's side is a subscription made as its source makes it: the system's default QoS on its default topic.
"""

import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dysl_vla_ros.launching.arguments import VLA_ARGUMENTS, vla_program
from harness import NodeProcess, RosPeer, install_prefix, wait_until
from vla_rig import DIAGNOSTICS, LIMIT, NODE, Rig, is_zero

pytestmark = pytest.mark.ros

SERVO = "/servo_node/delta_twist_cmds"
TIMEOUT = 0.1  # s, Servo's incoming_command_timeout
HELD = "held by ~/hold"
PAGE = (Path(__file__).parents[1] / "docs" / "moveit-servo.md").read_text(encoding="utf-8")


# -- what Servo hears ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rig(ros_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The node as the page launches it, held as the page holds it, and Servo's subscription."""
    from geometry_msgs.msg import TwistStamped
    from rclpy.qos import qos_profile_system_default

    from tiny_checkpoint import make_tiny_checkpoint

    values = {name: argument.default for name, argument in VLA_ARGUMENTS.items()}
    given = {"checkpoint": str(make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))), "twist": SERVO}
    program = vla_program({**values, **given, "params_file": "moveit_servo.yaml"})
    parameters = {**program.parameters, "diagnostics.period": 0.1, "model.threads": 1, "model.step_timeout": 10.0}
    (file,) = program.parameter_files
    with (
        NodeProcess(program.executable, parameters, dict(program.remappings), parameter_file=Path(file)) as node,
        RosPeer() as peer,
    ):
        rig = Rig(node, peer)
        peer.listen(SERVO, TwistStamped, qos_profile_system_default)
        peer.wait_for(DIAGNOSTICS, None, LIMIT, "the node's first message")
        # for a busy machine
        rig.set(safety__max_arrival_age=1.0, safety__max_stamp_age=2.0, safety__max_camera_skew=1.0)
        rig.bring_to("inactive")
        assert hold(rig, True)
        rig.bring_to("active")
        rig.instruct()
        yield rig
        rig.robot.close()


def hold(rig: Rig, on: bool) -> bool:
    from std_srvs.srv import SetBool

    return bool(rig.peer.call(f"{NODE}/hold", SetBool.Request(data=on), LIMIT).success)


def test_held_from_the_start_nothing_is_commanded_and_nothing_else_is_wrong(rig: Rig) -> None:
    rig.wait_for_status("commands", lambda status: status.message == f"stopped: {HELD}", "a hold and nothing else")
    rig.wait_for_status("inference", lambda status: status.message == "running", "inferences while held")
    assert rig.heard(SERVO) == 0


def test_servo_hears_fresh_stamps_in_the_policys_frame_and_a_gentle_start(rig: Rig) -> None:
    assert hold(rig, False)
    rig.wait_for_motion()
    wait_until(lambda: rig.heard(SERVO) >= 40, LIMIT, "two seconds of twists")
    twists = rig.peer.received(SERVO)
    assert {twist.header.frame_id for twist in twists} == {"base"}
    stamps = [twist.header.stamp.sec + twist.header.stamp.nanosec * 1e-9 for twist in twists]
    gaps = [after - before for before, after in zip(stamps, stamps[1:], strict=False)]
    assert min(gaps) > 0.0 and statistics.median(gaps) < TIMEOUT
    speeds = [sum(getattr(twist.twist.linear, axis) ** 2 for axis in "xyz") ** 0.5 for twist in twists]
    assert 0.0 < max(speeds) <= 0.1 + 1e-9, "safety.max_linear_speed of the file"
    assert speeds[0] < 0.1 * max(speeds), "control.ramp_in of the file"


def test_held_again_servo_hears_zero_twists_that_go_on(rig: Rig) -> None:
    before = rig.heard(SERVO)
    assert hold(rig, True)
    held = rig.heard(SERVO)
    wait_until(lambda: rig.heard(SERVO) >= held + 10, LIMIT, "ten more twists")
    assert rig.heard(SERVO) > before and all(map(is_zero, rig.peer.received(SERVO)[held:]))


def test_another_commander_is_named_while_the_arm_is_held(rig: Rig) -> None:
    from geometry_msgs.msg import TwistStamped

    publisher = rig.peer.node.create_publisher(TwistStamped, SERVO, 1)
    told = f"stopped: {HELD}; {SERVO}: /{rig.peer.node.get_name()} publishes there as well"
    rig.wait_for_status("commands", lambda status: told in status.message, "the other commander")
    rig.peer.destroy(rig.peer.node.destroy_publisher, publisher)


def test_leaving_active_is_one_zero_twist_and_then_silence(rig: Rig) -> None:
    rig.bring_to("inactive")
    last = rig.heard(SERVO)
    assert is_zero(rig.peer.received(SERVO)[-1])
    rig.wait_for_status("commands", lambda status: "inactive" in status.message, "inactive")
    assert rig.heard(SERVO) == last


# -- the page's programs ---------------------------------------------------------------------------------------------


def program_of_page(name: str) -> str:
    """Return the program of the page that defines the class ``name``."""
    (found,) = [text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if f"class {name}" in text]
    return found


@contextmanager
def running(text: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    file = folder / "program.py"
    file.write_text(text)
    process = subprocess.Popen([sys.executable, str(file), "--ros-args", *arguments], cwd=folder, env=dict(os.environ))
    try:
        yield process
    finally:
        process.kill()
        process.wait(LIMIT)


def test_the_gripper_adapter_goes_both_ways(peer: RosPeer, tmp_path: Path) -> None:
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Float64, Float64MultiArray

    peer.listen("gripper_controller/commands", Float64MultiArray)
    peer.listen("gripper_state", Float64, qos_profile_sensor_data)
    arguments = ("-p", "joint:=finger", "-p", "closed:=0.02", "-p", "open:=0.1")
    with running(program_of_page("GripperAdapter"), tmp_path, *arguments):
        openings: Any = peer.publisher("opening", Float64)
        joints: Any = peer.publisher("joint_states", JointState)
        for topic in ("opening", "joint_states"):
            peer.wait_for_subscriber(topic, LIMIT)
        for opening, position in ((0.0, 0.02), (1.0, 0.1), (0.25, 0.04)):

            def commanded(opening: float = opening, position: float = position) -> bool:
                openings.publish(Float64(data=opening))  # as the node does at each tick: the first ones may be lost
                heard = peer.received("gripper_controller/commands")
                return bool(heard) and list(heard[-1].data) == pytest.approx([position])

            wait_until(commanded, LIMIT, f"the joint at {position}")
        for position, opening in ((0.02, 0.0), (0.06, 0.5), (0.2, 1.0)):

            def measured(position: float = position, opening: float = opening) -> bool:
                joints.publish(JointState(name=["elbow"], position=[1.0]))  # the arm's own message: not the gripper's
                joints.publish(JointState(name=["elbow", "finger"], position=[1.0, position]))
                heard = peer.received("gripper_state")  # best effort: one may be lost
                return bool(heard) and heard[-1].data == pytest.approx(opening)

            wait_until(measured, LIMIT, f"an opening of {opening}")


def test_the_program_that_takes_the_pose_from_tf_is_python() -> None:
    compile(program_of_page("PoseFromTf"), "pose_from_tf.py", "exec")  # tf2_ros is not in this environment


def test_the_page_sets_what_the_file_and_the_launch_file_have() -> None:
    import yaml

    file = install_prefix() / "share" / "dysl_vla_ros" / "config" / "moveit_servo.yaml"
    ours = yaml.safe_load(file.read_text())["/**/dysl_vla"]["ros__parameters"]
    (servo,) = [text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "servo_node" in text]
    theirs = yaml.safe_load(servo)["/servo_node"]["ros__parameters"]["moveit_servo"]
    assert theirs["scale"]["linear"] == ours["safety"]["max_linear_speed"]
    assert theirs["scale"]["rotational"] == ours["safety"]["max_angular_speed"]
    assert theirs["incoming_command_timeout"] == TIMEOUT >= 2.0 / ours["control"]["rate"]
