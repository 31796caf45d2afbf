"""What the user says or a sensor sends, and nobody can use: refused once by name, a stop, and no failure of the model.

Over real DDS beside a moving arm, on one node: the same process and the same worker are there at the end.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faulty_worker import FaultyWorker
from harness import wait_until
from machine import assert_in_time
from vla_rig import ACTION, DIAGNOSTICS, LIMIT, NODE, PERIOD, TWIST, Rig, gentle, is_zero, running_rig

pytestmark = pytest.mark.ros

ARRIVAL_AGE = 0.6  # s
MARGIN = 0.4  # s for the tick that notices, the way through DDS, and a busy machine
WARN, ERROR = b"\x01", b"\x02"
SPOKEN = f"/{NODE}/instruction"

# text -> what the node says of it
REFUSED = {
    "stop": "the policy knows no word of 'stop'; it was trained on: push the puck; open the drawer",
    "push the puck and then open the drawer please": "the instruction has 9 words, this policy reads 8; shorten it",
    "推动冰球": "the instruction '推动冰球' has no words of the letters a to z; say for example 'push the puck'",
    "دفع القرص": "the instruction 'دفع القرص' has no words of the letters a to z",
    "\U0001f6d1": "the instruction '\U0001f6d1' has no words of the letters a to z",
    "push " * 200: "the instruction has 999 characters; at most 500 are taken",
    "push\tthe puck": "character 4 of the instruction is the control character U+0009",
    "push \ufffd": "character 5 of the instruction is U+FFFD: it was not valid UTF-8",
}


@pytest.fixture(scope="module")
def module_rig(ros_domain: int, faulty: FaultyWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    from std_msgs.msg import String

    from tiny_checkpoint import make_tiny_checkpoint

    checkpoint: Path = make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), joints={"elbow": "rad"})
    parameters = gentle(checkpoint) | {"model.python": faulty.python, "safety.max_arrival_age": ARRIVAL_AGE}
    with running_rig(parameters) as rig:
        rig.peer.listen(SPOKEN, String)
        rig.robot.joints = [{"elbow": 0.1}]
        yield rig


@pytest.fixture
def rig(module_rig: Rig, faulty: FaultyWorker) -> Iterator[Rig]:
    """The module's rig, moving; afterwards it must be the same node with the same worker, and nothing failed."""
    faulty.set("none")
    module_rig.move()
    (worker,) = module_rig.node.children()
    yield module_rig
    assert module_rig.state() == "active"
    assert [child.pid for child in module_rig.node.children()] == [worker.pid]
    status = module_rig.wait_for_status("inference", lambda status: True, "a status")
    assert {pair.key: pair.value for pair in status.values}["failures"] == "0"


def warned_once(rig: Rig, text: str) -> bool:
    """Whether, once a line of that text is there, it is one WARN and nothing else."""
    rig.node.wait_for_output(text, LIMIT)
    return len(lines(rig, "WARN", text)) == 1 and not lines(rig, "ERROR", text)


def lines(rig: Rig, level: str, text: str) -> list[str]:
    return [line for line in rig.node.output.splitlines() if f"[{level}]" in line and text in line]


def wait_for_stop_in_time(rig: Rig, told: str, do: Callable[[], Any], limit: float, margin: float = MARGIN) -> str:
    """Do something that must stop the arm; return the reason when it stood still within ``limit`` s and a margin."""
    actions, twists = rig.heard(ACTION), rig.heard(TWIST)
    do()
    newest = rig.peer.records(TWIST)[-1].arrival
    reason: str = rig.wait_for_stop(told, actions).stop_reason
    zero = next(record.arrival for record in rig.peer.records(TWIST)[twists:] if is_zero(record.message))
    assert_in_time(newest, zero, limit, margin, "standing still")
    return reason


def worst_level(rig: Rig, after: int, told: str) -> bytes:
    """Return the highest level since then of what speaks of ``told`` and of what counts failures."""
    statuses = [status for array in rig.peer.received(DIAGNOSTICS)[after:] for status in array.status]
    return max(status.level for status in statuses if told in status.message or status.name.endswith("inference"))


def wait_for_ticks(rig: Rig, count: int) -> None:
    before = rig.heard(ACTION)
    wait_until(lambda: rig.heard(ACTION) >= before + count, LIMIT, f"{count} commands")


def test_a_text_that_cannot_be_read_stops_the_arm_once_and_the_next_good_one_moves_it(rig, faulty):
    for text, told in REFUSED.items():
        reports, checks = rig.heard(DIAGNOSTICS), faulty.instructions_checked
        reason = wait_for_stop_in_time(rig, told, lambda text=text: rig.instruct(text), PERIOD)
        assert reason.startswith("/instruction: ") and "the arm stands still until another one comes" in reason
        status = rig.wait_for_status("inputs", lambda status, told=told: told in status.message, "the refusal")
        assert status.level == WARN and {pair.key: pair.value for pair in status.values}["instruction"] == ""
        begun = faulty.steps_begun
        rig.instruct(text)  # said again: nothing new
        wait_for_ticks(rig, 10)
        assert all(is_zero(twist) for twist in rig.peer.received(TWIST)[-10:])
        assert faulty.steps_begun == begun, "no picture is used for a refused instruction"
        assert faulty.instructions_checked - checks <= 1, "it is asked about once"
        assert rig.peer.received(SPOKEN)[-1].data == "", "nothing is in force"
        assert rig.state() == "active"
        rig.instruct()
        rig.wait_for_motion()
        assert warned_once(rig, told)
        assert worst_level(rig, reports, told) == WARN


def test_words_that_are_not_known_beside_known_ones_are_named_once_and_the_instruction_is_acted_on(rig):
    told = "the policy does not know sausage, 推, 2, \U0001f6d1; it was trained on: push the puck"
    rig.instruct("Push the sausage, 推 the puck 2 \U0001f6d1!")
    status = rig.wait_for_status("inputs", lambda status: told in status.message, "the unknown words")
    assert status.level == WARN and "/instruction" in status.message
    rig.wait_for_motion()
    rig.robot.silent.add("image")  # another episode, the same instruction
    rig.wait_for_stop("/image has stopped")
    rig.robot.silent.clear()
    rig.wait_for_motion()
    assert warned_once(rig, told)
    rig.instruct()
    rig.wait_for_status("inputs", lambda status: status.message == "fresh", "fresh")


def test_a_parameter_that_the_policy_cannot_read_is_refused_alike_and_one_that_no_policy_could_changes_nothing(rig):
    before = rig.heard(ACTION)
    done, why = rig.set(control__instruction="x" * 501)
    assert not done and "at most 500 are taken" in why
    wait_for_ticks(rig, 5)
    assert not any("instruction" in action.stop_reason for action in rig.peer.received(ACTION)[before:])
    try:
        stop = wait_for_stop_in_time(
            rig, "knows no word", lambda: rig.set(control__instruction="halt"), PERIOD, MARGIN + LIMIT
        )
        assert stop.startswith("control.instruction: 'halt'")
        assert warned_once(rig, "control.instruction: 'halt'")
    finally:
        assert rig.set(control__instruction="") == (True, "")
    rig.instruct("open the drawer")
    rig.wait_for_motion()


def test_a_refused_instruction_stays_refused_over_an_activation_and_is_not_asked_about_again(rig, faulty):
    rig.instruct("wait")
    rig.wait_for_stop("knows no word of 'wait'")
    checks = faulty.instructions_checked
    rig.bring_to("inactive")
    twists = rig.heard(TWIST)
    rig.bring_to("active")
    rig.wait_for_status("commands", lambda status: "stopped: /instruction: 'wait'" in status.message, "the refusal")
    assert rig.heard(TWIST) == twists and faulty.instructions_checked == checks
    rig.instruct()
    rig.wait_for_motion()


def test_an_observation_that_the_policy_cannot_use_is_told_once_and_counts_as_no_failure(rig, faulty):
    told = "observation refused: no picture of the sea; look after /ee_pose, /gripper_state, /joint_states, /image"
    reports, before = rig.heard(DIAGNOSTICS), rig.heard(ACTION)
    faulty.set("refuse", text="no picture of the sea")
    rig.wait_for_stop(told, before)
    begun = faulty.steps_begun
    wait_until(lambda: faulty.steps_begun > begun + 5, LIMIT, "more refusals than safety.max_consecutive_failures")
    assert rig.wait_for_status("inputs", lambda status: told in status.message, "the refusal").level == WARN
    faulty.set("none")
    rig.wait_for_motion()
    assert warned_once(rig, told)
    assert worst_level(rig, reports, told) == WARN


# -- values ------------------------------------------------------------------------------------------------------------

IMPOSSIBLE = {
    "pose of 1e300 m": ({"place": (1e300, 0.6, 0.2)}, "/ee_pose", "ee.x is 1e+300 m; at most 10 m either way"),
    "pose 100 m away": ({"place": (0.0, -100.0, 0.2)}, "/ee_pose", "ee.y is -100 m; at most 10 m either way"),
    "no orientation": ({"rotation": (0.0,) * 4}, "/ee_pose", "has norm 0; a rotation has 1, within 0.1"),
    "opening of 3": ({"opening": 3.0}, "/gripper_state", "opening is 3; it must be from 0 (closed) to 1 (open)"),
    "joint in degrees": (
        {"joints": [{"elbow": 90.0}]},
        "/joint_states",
        "position of joint elbow is 90 rad; at most 31.42 rad either way is taken: is the driver in degrees?",
    ),
}
JUMPS = {
    "hand": ({"place": (5.0, 0.6, 0.2)}, "the position (ee.x, ee.y, ee.z) has jumped by 5 m in"),
    "joint": ({"joints": [{"elbow": 3.235}]}, "joint elbow: its position has jumped by"),
}


def send(rig: Rig, changes: dict[str, Any]) -> dict[str, Any]:
    """Let the robot send other values from now on; return what it sent before."""
    before = {name: getattr(rig.robot, name) for name in changes}
    for name, value in changes.items():
        setattr(rig.robot, name, value)
    return before


def test_values_that_cannot_be_true_are_refused_by_name_and_limit_and_good_ones_move_the_arm_again(rig):
    for changes, topic, told in IMPOSSIBLE.values():
        good: dict[str, Any] = {}
        stop = wait_for_stop_in_time(
            rig, told, lambda changes=changes, good=good: good.update(send(rig, changes)), ARRIVAL_AGE + PERIOD
        )
        assert stop.startswith(f"{topic}: messages are refused: ")
        rig.wait_for_error("inputs", told)
        send(rig, good)
        rig.wait_for_motion()


def test_a_jump_stops_the_arm_and_a_place_that_lasts_is_taken(rig):
    for changes, told in JUMPS.values():
        before = rig.heard(ACTION)
        good = send(rig, changes)
        stop = rig.wait_for_stop(told, before)
        assert "the new place is taken when it has lasted for 1.1 s" in stop.stop_reason
        rig.wait_for_motion()  # there, by itself
        send(rig, good)  # back: a jump as well
        rig.wait_for_stop("has jumped by")
        rig.bring_to("inactive")
        rig.bring_to("active")
        rig.wait_for_motion()


def test_one_impossible_message_among_good_ones_is_left_out_and_the_arm_goes_on(rig):
    before = rig.heard(ACTION)
    for far in (1e300, 5.0):
        counted = refused(rig.wait_for_status("inputs", lambda status: True, "a status"))

        def arrived(status: Any, far: float = far, counted: int = counted) -> bool:
            if refused(status) > counted:
                return True
            message = rig.robot._message("ee_pose")  # best effort: what came before may have been lost
            message.pose.position.x = far
            rig.robot._publishers["ee_pose"].publish(message)
            return False

        rig.wait_for_status("inputs", arrived, "a refused pose")
    wait_for_ticks(rig, 10)
    assert not any("ee_pose" in action.stop_reason for action in rig.peer.received(ACTION)[before:])


def refused(status: Any) -> int:
    return int({pair.key: pair.value for pair in status.values}["/ee_pose refused"])
