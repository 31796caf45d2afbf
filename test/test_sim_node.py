"""The simulated robot over real DDS: it lives in real time, moves as told, and stands still when nobody tells it."""

import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest

from dysl_vla_ros.nodes.real_time import Pacer
from harness import NodeProcess, RosPeer, wait_until

pytestmark = pytest.mark.ros

COMMAND_TIMEOUT = 0.15  # s
TICK = 0.05  # s
SPEED = 0.1  # m/s


@pytest.fixture(scope="module")
def robot(ros_domain: int) -> Iterator[tuple[NodeProcess, RosPeer]]:
    """A running sim_node and a peer that has heard its first picture."""
    from geometry_msgs.msg import PoseStamped
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image, JointState
    from std_msgs.msg import Float64

    from dysl_vla_ros.msg import SceneState

    with NodeProcess("sim_node", {"task": "reach", "seed": 3, "scene.rate": 10.0}) as node, RosPeer() as peer:
        for topic in ("image", "wrist_image", "sim/scene_image"):
            peer.listen(topic, Image, qos_profile_sensor_data)
        peer.listen("joint_states", JointState, qos_profile_sensor_data)
        peer.listen("ee_pose", PoseStamped, qos_profile_sensor_data)
        peer.listen("gripper_state", Float64, qos_profile_sensor_data)
        peer.listen("sim/state", SceneState)
        peer.wait_for("image", None, 30.0, "the first picture")
        yield node, peer
        assert node.stop(signal.SIGTERM) == 0, node.output


def reset(peer: RosPeer, task: str, seed: int):
    from dysl_vla_ros.srv import ResetScene

    return peer.call("sim/reset", ResetScene.Request(task=task, seed=seed), 20.0)


def drive(peer: RosPeer, x: float, seconds: float, **fields) -> None:
    """Send a twist along x each 50 ms, as a controller would."""
    from geometry_msgs.msg import TwistStamped

    publisher = peer.publisher("twist", TwistStamped, 1)
    peer.wait_for_subscriber("twist", 10.0)
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        message = TwistStamped()
        message.header.stamp = peer.node.get_clock().now().to_msg()
        message.header.frame_id = fields.get("frame", "base")
        message.twist.linear.x = x
        publisher.publish(message)
        wait_until(lambda start=now: time.monotonic() - start >= TICK, 1.0, "the next control tick")


def position(message) -> np.ndarray:
    return np.array([getattr(message.pose.position, axis) for axis in "xyz"])


def stamp(message) -> float:
    return message.header.stamp.sec + message.header.stamp.nanosec * 1e-9


def path_after(peer: RosPeer, begin: float) -> list[tuple[float, np.ndarray]]:
    """Return time (since ``begin``, steady clock) and position of every pose received after it."""
    later = [record for record in peer.records("ee_pose") if record.arrival > begin]
    return [(record.arrival - begin, position(record.message)) for record in later]


def test_cameras_and_state_come_at_20_hz_under_one_stamp(robot):
    _, peer = robot
    before = len(peer.records("image"))
    peer.wait_for("image", lambda _: len(peer.records("image")) >= before + 41, 10.0, "41 pictures")
    images = peer.records("image")[before : before + 41]
    stamps = np.array([stamp(record.message) for record in images])
    assert 15.0 < 40 / (stamps[-1] - stamps[0]) <= 20.5
    assert np.all(np.diff(stamps) > 0)
    for record in images:
        assert (record.message.encoding, record.message.width, record.message.height) == ("rgb8", 96, 96)
        assert np.std(np.frombuffer(record.message.data, np.uint8)) > 5.0, "a picture shows something"
    wanted = {stamp(record.message) for record in images[1:-1]}
    for topic in ("wrist_image", "ee_pose", "joint_states", "sim/state"):
        assert wanted <= {stamp(message) for message in peer.received(topic)}, f"{topic} belongs to the same moments"
    scene = peer.wait_for("sim/scene_image", None, 5.0, "a picture for viewers")
    assert (scene.width, scene.height) == (320, 240)
    assert len(peer.received("joint_states")[-1].name) == len(peer.received("joint_states")[-1].position) == 7


def test_reset_changes_the_task_says_its_instruction_and_begins_a_new_episode(robot):
    _, peer = robot
    first = reset(peer, "reach", 5)
    second = reset(peer, "door-open", 5)
    assert (first.success, first.instruction) == (True, "reach the red marker")
    assert (second.success, second.instruction) == (True, "open the door")
    assert second.episode == first.episode + 1
    state = peer.wait_for("sim/state", lambda state: state.episode == second.episode, 5.0, "the new episode")
    assert (state.task, state.instruction, state.seed, state.success) == ("door-open", "open the door", 5, False)
    assert not state.commanded
    assert state.ticks <= 1


def test_an_unknown_task_is_refused_with_the_list_of_tasks_and_changes_nothing(robot):
    _, peer = robot
    assert reset(peer, "reach", 7).success
    episode = peer.wait_for("sim/state", lambda state: state.seed == 7, 5.0, "the reset").episode
    for task, seed, words in (("juggle", 1, ("juggle", "reach", "door-open")), ("reach", -1, ("seed", "-1"))):
        answer = reset(peer, task, seed)
        assert not answer.success
        assert all(word in answer.message for word in words), answer.message
        assert answer.episode == episode
    seen = len(peer.received("sim/state"))
    state = peer.wait_for("sim/state", None, 5.0, "the state after it", after=seen)
    assert (state.task, state.seed, state.episode) == ("reach", 7, episode)


def test_a_twist_moves_the_arm_as_far_as_its_speed_says_and_the_arm_stops_when_twists_stop(robot):
    _, peer = robot
    reset(peer, "reach", 3)
    begin = time.monotonic()
    drive(peer, SPEED, 1.5)
    last_command = time.monotonic() - TICK
    peer.wait_for("sim/state", lambda state: not state.commanded and state.ticks > 30, 5.0, "the command to run out")
    stopped_at = peer.records("sim/state")[-1].arrival
    assert stopped_at - last_command < COMMAND_TIMEOUT + 3 * TICK
    path = path_after(peer, begin)
    moved = path[-1][1] - path[0][1]
    commanded = sum(record.message.commanded for record in peer.records("sim/state") if record.arrival > begin)
    assert commanded > 10  # of some 33, where the machine keeps up with simulated time
    assert moved[0] == pytest.approx(SPEED * TICK * commanded, rel=0.25)
    assert np.abs(moved[1:]).max() < 0.03
    settled = time.monotonic()
    seen = len(peer.records("ee_pose"))
    peer.wait_for("ee_pose", lambda _: time.monotonic() - settled > 0.5, 5.0, "half a second", after=seen)
    later = [place for when, place in path_after(peer, settled) if when > 0.2]
    assert np.abs(later[-1] - later[0]).max() < 0.004, "the arm stands still"


def test_before_any_command_the_arm_holds(robot):
    _, peer = robot
    answer = reset(peer, "push", 11)
    begin = time.monotonic()
    peer.wait_for("sim/state", lambda s: s.episode == answer.episode and s.ticks >= 20, 10.0, "a second of it")
    places = [place for when, place in path_after(peer, begin) if when > 0.1]
    assert np.abs(places[-1] - places[0]).max() < 0.01


def test_commands_of_another_frame_or_not_finite_or_late_move_nothing(robot):
    from geometry_msgs.msg import TwistStamped

    node, peer = robot
    answer = reset(peer, "reach", 3)
    drive(peer, SPEED, 0.2, frame="camera")
    node.wait_for_output("'camera'", 5.0)
    drive(peer, float("nan"), 0.2)
    node.wait_for_output("not finite", 5.0)
    late = TwistStamped()
    late.header.frame_id = "base"
    late.header.stamp.sec = 1
    peer.publish("twist", late)
    node.wait_for_output("s old", 5.0)
    states = [state for state in peer.received("sim/state") if state.episode == answer.episode]
    assert states
    assert not any(state.commanded for state in states)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [({"task": "juggle"}, ("unknown task 'juggle'", "reach")), ({"command_timeout": -1.0}, ("command_timeout",))],
)
def test_a_wrong_parameter_ends_the_program_with_one_line(ros_domain, parameters, words):
    with NodeProcess("sim_node", parameters) as node:
        assert node.wait(30.0) == 2
        assert "Traceback" not in node.output
        assert all(word in node.output for word in words), node.output


@pytest.mark.parametrize("program", ["sim_node", "vla_node", "bag_recorder"])
def test_what_a_library_does_at_the_end_does_not_change_the_exit_code(ros_domain, tmp_path, program):
    """A launch file tells a refusal (2) from a crash by it; renderers and middleware do crash in exit handlers."""
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os, signal\natexit.register(os.kill, os.getpid(), signal.SIGSEGV)\n"
    )
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    wrong = {"sim_node": {"task": "juggle"}, "vla_node": {"use_sim_time": "maybe"}, "bag_recorder": {"folder": ""}}
    with NodeProcess(program, wrong[program], environment={"PYTHONPATH": path}, warm=False) as node:
        assert node.wait(60.0) == 2, node.output


def test_sigint_ends_the_program_with_exit_code_0(ros_domain):
    with NodeProcess("sim_node") as node:
        node.wait_for_output("ready", 30.0)
        assert node.stop(signal.SIGINT, impatient=True) == 0
        assert "Traceback" not in node.output


def test_a_closed_scene_leaves_the_pictures_of_the_others_as_they_are():
    from dysl_vla_ros.simulation.scene import Scene

    def look(scene: Scene) -> list[np.ndarray]:
        scene.reset(3)
        return [scene.render("image"), scene.render("wrist_image"), scene.render("image", 160, 120)]

    reach, door = Scene("reach"), Scene("door-open")
    before = look(reach)
    look(door)
    door.close()
    again = Scene("reach")
    for scene in (reach, again):
        assert all(np.array_equal(first, now) for first, now in zip(before, look(scene), strict=True))
    assert all(np.std(picture) > 5.0 for picture in before)
    reach.close()
    again.close()


def test_the_pacer_keeps_the_average_rate_over_short_delays():
    pacer = Pacer(period=1.0, max_lag=2.0, now=0.0)
    times, now = [], 0.0
    for delay in (0.0, 1.5, 0.0, 0.0, 0.0):
        now += pacer.wait_time(now)
        times.append(now)
        pacer.step(now)
        now += delay
    assert times == [0.0, 1.5 - 0.5, 2.5, 3.0, 4.0]
    assert pacer.lost == 0.0


def test_the_pacer_gives_up_what_is_too_late_and_counts_it():
    pacer = Pacer(period=1.0, max_lag=2.0, now=0.0)
    pacer.step(0.0)
    burst, now = 0, 11.0  # due was 1.0
    while pacer.wait_time(now) == 0.0:
        pacer.step(now)
        burst += 1
    assert burst == 3, "the late step and what max_lag allows, never all ten"
    assert pacer.lost == pytest.approx(8.0)
    assert pacer.share_lost(16.0) == pytest.approx(0.5)
    assert pacer.lost == 0.0
