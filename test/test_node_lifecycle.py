"""The lifecycle of vla_node over real DDS: transitions in order, forbidden, failed; silence outside active."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dysl_vla_ros.nodes.diagnostics import PARTS
from harness import wait_until
from machine import assert_in_time
from vla_rig import (
    ACTION,
    CHANGE_LIMIT,
    CHUNK,
    COMMAND_TOPICS,
    DIAGNOSTICS,
    LIMIT,
    NODE,
    REPORT,
    TWIST,
    Rig,
    gentle,
    is_zero,
    running_rig,
    wait_steadily,
)

pytestmark = pytest.mark.ros

ANSWER_P50, ANSWER_MAX = 0.05, 2.0  # s; the promise, and what a machine that is loading a model may make of the worst


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_checkpoint import make_tiny_checkpoint

    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def rig(ros_domain: int, checkpoint: Path) -> Iterator[Rig]:
    with running_rig(gentle(checkpoint), warm=False) as rig:
        yield rig


def test_forbidden_transitions_are_refused_and_the_node_lives(rig):
    rig.bring_to("unconfigured")
    for transition in ("activate", "deactivate", "cleanup", "no_such_transition"):
        assert not rig.change(transition)
        assert rig.state() == "unconfigured"


def test_a_failed_configure_says_why_and_works_once_fixed_while_services_answer(rig, checkpoint, tmp_path):
    rig.bring_to("unconfigured")
    assert rig.set(model__checkpoint="") == (True, "")
    assert not rig.change("configure")
    rig.wait_for_error("worker", "model.checkpoint is empty")
    missing = str(tmp_path / "nowhere")
    assert rig.set(model__checkpoint=missing) == (True, "")
    assert not rig.change("configure")
    assert rig.state() == "unconfigured"
    rig.wait_for_error("worker", missing)
    rig.node.wait_for_output(missing, LIMIT)
    assert rig.set(model__checkpoint=str(checkpoint)) == (True, "")

    outcome: list[bool] = []
    configure = threading.Thread(target=lambda: outcome.append(rig.change("configure")))
    configure.start()
    waits, states, second = time_get_state(rig, while_alive=configure)
    configure.join(CHANGE_LIMIT)
    assert outcome == [True] and "configuring" in states
    assert second is False  # refused at once, and it did not disturb the first
    assert_in_time(*sorted(waits, key=duration)[len(waits) // 2], 0.0, ANSWER_P50, "half of the answers")
    assert_in_time(*max(waits, key=duration), 0.0, ANSWER_MAX, "an answer")
    rig.wait_for_status("worker", lambda status: status.level == b"\x00", "OK")


def duration(wait: tuple[float, float]) -> float:
    return wait[1] - wait[0]


def time_get_state(rig: Rig, while_alive: threading.Thread) -> tuple[list[tuple[float, float]], set[str], bool | None]:
    """Ask for the state again and again; returns the waits, the states, and what a second configure gave."""
    from lifecycle_msgs.srv import GetState

    client = rig.peer.node.create_client(GetState, f"{NODE}/get_state")
    wait_until(client.service_is_ready, LIMIT, "get_state")
    waits, states, second = [], set(), None
    while while_alive.is_alive():
        wait_steadily(0.05)  # this process must leave the worker some of the machine
        answered = threading.Event()
        began = time.monotonic()
        future = client.call_async(GetState.Request())
        future.add_done_callback(lambda _, answered=answered: answered.set())
        assert answered.wait(LIMIT)
        waits.append((began, time.monotonic()))
        states.add(future.result().current_state.label)
        if second is None and "configuring" in states:
            second = rig.change("configure")
    rig.peer.destroy(rig.peer.node.destroy_client, client)
    return waits, states, second


def test_nothing_is_commanded_outside_active_nor_before_the_first_action(rig):
    rig.bring_to("inactive")
    rig.instruct()
    before = {topic: rig.heard(topic) for topic in (*COMMAND_TOPICS, CHUNK, REPORT)}
    wait_steadily(0.5)
    assert {topic: rig.heard(topic) for topic in before} == before
    assert rig.peer.call(f"{NODE}/reset", trigger(), LIMIT).success is False


def test_leaving_active_is_exactly_one_zero_twist_and_then_silence(rig):
    rig.move()
    before = rig.heard(ACTION)
    assert rig.change("deactivate")
    rig.wait_for_stop("deactivated", before)
    counts = {topic: rig.heard(topic) for topic in COMMAND_TOPICS}
    wait_steadily(0.3)
    assert {topic: rig.heard(topic) for topic in COMMAND_TOPICS} == counts
    actions, twists = rig.peer.received(ACTION), rig.peer.received(TWIST)
    assert [action.stop_reason == "deactivated" for action in actions[before:]].count(True) == 1
    assert actions[-1].stop_reason == "deactivated" and is_zero(twists[-1])
    assert len(actions) == len(twists)  # the twist of each action and no other one


def test_each_activation_begins_an_episode_and_waits_for_its_first_action(rig):
    rig.move()
    episode = rig.peer.received(ACTION)[-1].episode
    rig.bring_to("inactive")
    before = rig.heard(ACTION)
    assert rig.change("activate")  # the instruction is still known
    first = rig.peer.wait_for(ACTION, None, LIMIT, "the first action", before)
    assert first.stop_reason == "" and first.episode > episode and first.chunk_index == 0


def test_a_broken_request_leaves_the_node_alive(rig):
    from rcl_interfaces.msg import Parameter, ParameterValue
    from rcl_interfaces.srv import SetParameters

    broken = Parameter(name="guidance.window", value=ParameterValue(type=200))
    answer = rig.peer.call(f"{NODE}/set_parameters", SetParameters.Request(parameters=[broken]), LIMIT)
    assert not any(result.successful for result in answer.results)
    assert rig.state() in ("inactive", "active", "unconfigured")


def test_diagnostics_come_in_every_state_with_every_part(rig):
    for state in ("inactive", "active"):  # unconfigured: the failed configure above
        rig.bring_to(state)
        rig.wait_for_status("worker", lambda status, state=state: value(status, "state") == state, state)
        newest = rig.peer.received(DIAGNOSTICS)[-1]
        assert [status.name for status in newest.status] == [f"{NODE}: {part}" for part in PARTS]
        assert all(status.hardware_id for status in newest.status)


def test_diagnostics_are_silent_outside_active_where_that_is_wanted_but_for_what_changes(rig):
    rig.bring_to("active")
    assert rig.set(diagnostics__while_inactive=False) == (True, "")
    try:
        before = rig.heard(DIAGNOSTICS)
        wait_until(lambda: rig.heard(DIAGNOSTICS) > before + 3, LIMIT, "messages while active")
        before = rig.heard(DIAGNOSTICS)
        assert rig.change("deactivate")
        rig.wait_for_status("worker", lambda status: value(status, "state") == "inactive", "inactive", before)
        wait_steadily(0.3)
        before = rig.heard(DIAGNOSTICS)
        wait_steadily(1.0)  # ten periods
        assert rig.heard(DIAGNOSTICS) == before
        assert rig.change("activate")
        wait_until(lambda: rig.heard(DIAGNOSTICS) > before + 3, LIMIT, "messages while active again")
    finally:
        assert rig.set(diagnostics__while_inactive=True) == (True, "")


@pytest.mark.slow
def test_the_calls_of_nav2s_lifecycle_manager_bring_it_up_and_down(rig):
    """As nav2_lifecycle_manager makes them: a transition by its number, then the state, for each; no bond."""
    from lifecycle_msgs.msg import State, Transition

    rig.bring_to("unconfigured")
    for transition, state in (
        (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
        (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED),
    ):
        assert change_by_number(rig, transition) == (True, state)
    assert change_by_number(rig, Transition.TRANSITION_ACTIVATE) == (False, State.PRIMARY_STATE_UNCONFIGURED)
    assert "bond" not in {name.rpartition("/")[2] for name, _ in rig.peer.node.get_topic_names_and_types()}


def test_every_transition_in_order_to_the_end_after_which_no_publisher_is_left(rig):
    from lifecycle_msgs.msg import State, Transition

    rig.bring_to("active")
    for transition, state in (
        ("deactivate", "inactive"),
        ("activate", "active"),
        ("deactivate", "inactive"),
        ("cleanup", "unconfigured"),
    ):
        assert rig.change(transition), rig.node.output
        assert rig.state() == state
    assert rig.node.children() == []  # cleanup ended the worker
    shutdown = Transition.TRANSITION_UNCONFIGURED_SHUTDOWN  # Nav2's manager ends with it
    assert change_by_number(rig, shutdown) == (True, State.PRIMARY_STATE_FINALIZED), rig.node.output
    topics = (*COMMAND_TOPICS, CHUNK, REPORT, DIAGNOSTICS)
    wait_until(
        lambda: not any(rig.peer.node.count_publishers(topic) for topic in topics), LIMIT, "the last publisher gone"
    )
    assert not rig.change("configure")
    assert rig.state() == "finalized"


def change_by_number(rig: Rig, number: int) -> tuple[bool, int]:
    """Ask for the transition of that number, without a label; return whether it was done, and the state's number."""
    from lifecycle_msgs.srv import ChangeState, GetState

    request = ChangeState.Request()
    request.transition.id = number
    done = rig.peer.call(f"{NODE}/change_state", request, CHANGE_LIMIT).success
    return done, rig.peer.call(f"{NODE}/get_state", GetState.Request(), LIMIT).current_state.id


def trigger():
    from std_srvs.srv import Trigger

    return Trigger.Request()


def value(status, key: str) -> str:
    return next(pair.value for pair in status.values if pair.key == key)
