"""What stops the arm, over real DDS: a zero twist, a named ERROR, and recovery by itself when the cause is gone."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from faulty_worker import FaultyWorker
from harness import wait_until
from machine import assert_in_time
from vla_rig import (
    ACTION,
    DIAGNOSTICS,
    LIMIT,
    NODE,
    PERIOD,
    REPORT,
    SIZE,
    TWIST,
    Rig,
    gentle,
    is_zero,
    running_rig,
    wait_steadily,
)

pytestmark = pytest.mark.ros

ARRIVAL_AGE = 0.6  # s; twice the default, as this machine's peer may be held up
MARGIN = 0.4  # s for the tick that notices, the way through DDS, and a busy machine


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_checkpoint import make_tiny_checkpoint

    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def module_rig(ros_domain: int, faulty: FaultyWorker, checkpoint: Path) -> Iterator[Rig]:
    parameters = gentle(checkpoint) | {"model.python": faulty.python, "safety.max_arrival_age": ARRIVAL_AGE}
    with running_rig(parameters) as rig:
        yield rig


@pytest.fixture
def rig(module_rig: Rig, faulty: FaultyWorker) -> Iterator[Rig]:
    """The module's rig with everything in order, moving."""
    module_rig.robot.silent.clear()
    module_rig.robot.shift.clear()
    faulty.set("none")
    module_rig.move()
    yield module_rig


def test_without_an_instruction_nothing_moves_and_the_topic_is_named(module_rig):
    module_rig.bring_to("active")
    before = module_rig.heard(TWIST)
    status = module_rig.wait_for_status(
        "inputs", lambda status: "waiting for instruction on /instruction" in status.message, "waiting for instruction"
    )
    assert status.level == b"\x01"  # WARN
    wait_steadily(0.3)
    assert module_rig.heard(TWIST) == before == 0
    module_rig.instruct("   ")
    wait_steadily(0.2)
    assert module_rig.heard(TWIST) == 0


@pytest.mark.parametrize("source", ["image", "wrist_image", "ee_pose", "gripper_state"])
def test_an_input_that_stops_is_a_zero_twist_in_time_a_named_error_and_recovery(rig, source):
    rig.robot.silent.add(source)
    twists, reports = rig.heard(TWIST), rig.heard(DIAGNOSTICS)
    silent_since = time_of_newest(rig, TWIST)
    stop = rig.wait_for_stop(f"/{source} has stopped")
    assert np.isnan(stop.gripper) and stop.chunk_length == 0
    first_zero = next(record.arrival for record in rig.peer.records(TWIST)[twists:] if is_zero(record.message))
    assert_in_time(silent_since, first_zero, ARRIVAL_AGE + PERIOD, MARGIN, "the zero twist")
    rig.wait_for_error("inputs", f"/{source} has stopped", reports)
    rig.robot.silent.clear()
    moving = rig.wait_for_motion()
    assert moving.episode > stop.episode - 1 and moving.chunk_index == 0
    rig.wait_for_status("inputs", lambda status: status.message == "fresh", "fresh")


def test_the_stop_goes_on_at_the_control_rate(rig):
    rig.robot.silent.add("image")
    rig.wait_for_stop("/image has stopped")
    before = rig.heard(TWIST)
    wait_until(lambda: rig.heard(TWIST) >= before + 10, LIMIT, "ten more twists")
    assert all(is_zero(twist) for twist in rig.peer.received(TWIST)[before:])


@pytest.mark.parametrize(
    ("shift", "told"), [(-30.0, "came before it: out of order"), (5.0, "ahead of the node's clock")]
)
def test_wrong_stamps_stop_the_arm_and_the_difference_is_named(rig, shift, told):
    rig.robot.shift["image"] = shift
    rig.wait_for_stop("messages are refused")
    rig.wait_for_error("inputs", told)
    rig.robot.shift.clear()
    rig.wait_for_motion()


def test_old_pictures_from_the_start_are_never_acted_upon(rig):
    rig.bring_to("inactive")
    rig.robot.shift.update({"image": -30.0, "wrist_image": -30.0})
    twists = rig.heard(TWIST)
    rig.bring_to("active")
    rig.wait_for_status("inputs", lambda status: "s old by its stamp" in status.message, "old pictures")
    assert rig.heard(TWIST) == twists
    rig.robot.shift.clear()
    rig.wait_for_motion()


def test_a_frozen_stamp_is_a_stop(rig):
    publisher = rig.robot._publishers["image"]
    rig.robot.silent.add("image")
    message = rig.robot._message("image")
    before = rig.heard(ACTION)

    def repeat() -> bool:
        publisher.publish(message)
        return any("does not advance" in action.stop_reason for action in rig.peer.received(ACTION)[before:])

    wait_until(repeat, LIMIT, "a stop because the stamp does not advance")


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"encoding": "8UC3"}, "'8UC3' is not supported"), ({"height": SIZE + 1}, "data has 6912 bytes")],
)
def test_a_picture_that_cannot_be_read_is_refused_by_name_and_stops_the_arm(rig, changes, told):
    rig.robot.spoil = changes
    try:
        rig.wait_for_stop(told)
        rig.wait_for_error("inputs", told)
    finally:
        rig.robot.spoil = {}
    rig.wait_for_motion()


def test_nan_from_the_model_is_a_zero_twist_a_named_error_and_recovery(rig, faulty):
    before, reports = rig.heard(ACTION), rig.heard(DIAGNOSTICS)
    faulty.set("nan", times=1)
    stop = rig.wait_for_stop("inference failed", before)
    assert is_zero_action(stop)
    rig.wait_for_error("inference", "NaN", reports)
    assert rig.wait_for_motion().episode > stop.episode - 1
    assert all(np.isfinite([twist.twist.linear.x, twist.twist.linear.y]).all() for twist in rig.peer.received(TWIST))
    rig.wait_for_status("inference", lambda status: status.message.startswith("running"), "running")


def test_a_failed_inference_is_a_zero_twist_with_the_models_own_words(rig, faulty):
    before, reports = rig.heard(ACTION), rig.heard(DIAGNOSTICS)
    faulty.set("raise", text="no such token", times=1)
    rig.wait_for_stop("no such token", before)
    rig.wait_for_error("inference", "no such token", reports)
    rig.wait_for_motion()


def test_a_slow_answer_is_an_underrun_and_no_new_episode(rig, faulty):
    episode, before = rig.peer.received(ACTION)[-1].episode, rig.heard(ACTION)
    faulty.set("delay", seconds=0.9, times=1)  # longer than the chunk of 8 actions lasts
    rig.wait_for_stop("the policy has not answered yet", before)
    assert rig.wait_for_motion().episode == episode


def test_a_new_instruction_begins_an_episode_and_its_hash_is_reported(rig, checkpoint):
    from dysl_vla_ros.runtime.step import Runtime

    episode = rig.peer.received(ACTION)[-1].episode
    rig.instruct("open the drawer")
    wanted = hashlib.sha256(b"open the drawer").hexdigest()
    after = rig.heard(REPORT)
    report = rig.peer.wait_for(REPORT, lambda report: report.instruction_hash == wanted, LIMIT, "its report", after)
    assert report.episode > episode and report.inference == 1
    assert report.model_hash == Runtime.load(str(checkpoint), "").description.model_hash
    rig.instruct("open the drawer")  # again: nothing happens
    later = rig.peer.wait_for(REPORT, lambda report: report.inference > 3, LIMIT, "later reports", rig.heard(REPORT))
    assert later.episode == report.episode


def test_a_blank_instruction_stops_and_waits(rig):
    rig.instruct(" ")
    rig.wait_for_stop("waiting for instruction on /instruction")


def test_reset_begins_an_episode(rig):
    episode = rig.peer.received(ACTION)[-1].episode
    assert call_reset(rig).success
    assert rig.wait_for_motion().episode > episode


def test_a_stop_is_logged_once_and_again_when_it_ends(rig):
    rig.move()
    before = len(rig.node.output)
    rig.robot.silent.add("ee_pose")
    rig.wait_for_stop("/ee_pose")
    wait_steadily(1.0)
    rig.robot.silent.clear()
    rig.wait_for_motion()
    wait_until(lambda: "moving again after" in rig.node.output[before:], LIMIT, "the end of the stop in the log")
    said = [line for line in rig.node.output[before:].splitlines() if "stopped: " in line or "moving again" in line]
    assert len(said) <= 4 and "/ee_pose" in said[0] and "stopped: " in said[0], said  # silent, then "has stopped"
    assert "moving again after " in said[-1] and "/ee_pose" in said[-1], said


def test_without_auto_resume_a_stop_holds_until_reset(rig):
    assert rig.set(safety__auto_resume=False) == (True, "")
    try:
        rig.robot.silent.add("image")
        rig.wait_for_stop("/image has stopped")
        rig.robot.silent.clear()
        rig.wait_for_stop("held until ~/reset")
        moving = rig.heard(REPORT)
        wait_steadily(0.3)
        assert rig.heard(REPORT) == moving
        assert call_reset(rig).success
        rig.wait_for_motion()
    finally:
        assert rig.set(safety__auto_resume=True) == (True, "")


def test_an_instruction_published_before_the_node_listened_is_heard(rig):
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from std_msgs.msg import String

    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = rig.peer.node.create_publisher(String, "instruction", latched)
    publisher.publish(String(data="open the drawer"))
    wanted = hashlib.sha256(b"open the drawer").hexdigest()
    rig.peer.wait_for(REPORT, lambda report: report.instruction_hash == wanted, LIMIT, "its report", rig.heard(REPORT))
    rig.peer.destroy(rig.peer.node.destroy_publisher, publisher)


def test_too_many_failures_in_a_row_end_in_unconfigured_with_the_cause_shown(rig, faulty):
    twists = rig.heard(TWIST)
    faulty.set("nan")
    wait_until(lambda: rig.state() == "unconfigured", LIMIT, "unconfigured")
    rig.wait_for_error("worker", "3 in a row: safety.max_consecutive_failures")
    counts = rig.heard(TWIST)
    wait_steadily(0.3)
    assert rig.heard(TWIST) == counts > twists and is_zero(rig.peer.received(TWIST)[-1])
    assert rig.node.children() == []


def call_reset(rig: Rig):
    from std_srvs.srv import Trigger

    return rig.peer.call(f"{NODE}/reset", Trigger.Request(), LIMIT)


def time_of_newest(rig: Rig, topic: str) -> float:
    return rig.peer.records(topic)[-1].arrival


def is_zero_action(action) -> bool:
    return not any(getattr(part, axis) for part in (action.translation, action.rotation) for axis in ("x", "y", "z"))
