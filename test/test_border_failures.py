"""The k-th failure: every border of a step, of loading and of each transition fails once, in real node and worker.

After each of them the node is alive and in a primary state, its last twist is a zero where it was moving, one ERROR
names the border, and the next good image or transition works. The borders are found while they are crossed, not listed
here; see :mod:`failing_borders`. Ends are in test_border_ends.
"""

import time
from collections.abc import Iterator, Sequence

import pytest

from border_sweep import (
    BIRTH,
    DEATH,
    IN_A_SERVICE,
    OUTPUT,
    PRIMARY,
    ROSOUT,
    STOPPED,
    UNREACHED,
    Call,
    begins,
    comes_true,
    errors,
    every_call,
    parameters,
    sweep,
    workers,
    wrong_errors,
)
from failing_borders import FailingBorders
from harness import wait_until
from vla_rig import ACTION, COMMAND_TOPICS, LIMIT, TWIST, Rig, is_zero, running_rig, wait_steadily

pytestmark = [pytest.mark.ros, pytest.mark.slow]

REACHED = 12.0  # s in which what runs steadily comes by again; the graph is looked at every few seconds
THROTTLE = 1.1  # s after which the same stage may log an ERROR again
WATCHED = 8.0  # s of moving in which the borders of a step are found
BRIEFLY = 2.0  # s in which most of them are
SOME = 5  # borders of a step that are tried first

TRANSITIONS = {  # name: (from, to, where it runs)
    "configure": ("unconfigured", "inactive", (IN_A_SERVICE, BIRTH, OUTPUT)),
    "activate": ("inactive", "active", (IN_A_SERVICE,)),
    "deactivate": ("active", "inactive", (IN_A_SERVICE,)),
    "cleanup": ("inactive", "unconfigured", (IN_A_SERVICE, DEATH, OUTPUT)),
}


@pytest.fixture(scope="module")
def rig(ros_domain: int, tmp_path_factory: pytest.TempPathFactory, borders: FailingBorders) -> Iterator[Rig]:
    from rcl_interfaces.msg import Log

    from tiny_checkpoint import make_tiny_checkpoint

    checkpoint = make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    with running_rig(parameters(checkpoint, borders), program=borders.program) as rig:
        rig.peer.listen(ROSOUT, Log)
        yield rig


def found_while_moving(rig: Rig, borders: FailingBorders, who: str, seconds: float) -> list[str]:
    """Return what is crossed while the arm moves."""
    rig.move()
    borders.record(who)
    begins(borders, who)
    wait_steadily(seconds)
    return list(borders.recorded(who))


def fail_while_moving(rig: Rig, borders: FailingBorders, who: str, call: Call) -> list[str]:
    """Let one call of a step raise; return what is wrong afterwards."""
    rig.move()
    actions, twists, logs = rig.heard(ACTION), rig.heard(TWIST), rig.heard(ROSOUT)
    borders.fail(who, call.site)
    begins(borders, who)
    if not comes_true(lambda: borders.fired(who), REACHED):
        borders.off()
        return [UNREACHED]
    fired = time.monotonic()
    borders.off()  # a worker that is started anew must not fail again
    wrong = []
    if not comes_true(lambda: any(is_zero(twist) for twist in rig.peer.received(TWIST)[twists:]), STOPPED):
        wrong.append("no zero twist")

    def settled() -> str:
        state = rig.state()
        stops = [bool(action.stop_reason) for action in rig.peer.received(ACTION)[actions:]]
        moves_again = True in stops and not all(stops[stops.index(True) :])
        return state if state in PRIMARY and (state != "active" or moves_again or wrong) else ""

    state = wait_until(settled, LIMIT, f"motion again, or another primary state, after {call}")
    if state != "active" and not is_zero(rig.peer.received(TWIST)[-1]):
        wrong.append(f"the last twist before {state} is not zero")
    rig.move()
    wait_steadily(max(fired + THROTTLE - time.monotonic(), 0.0))
    return wrong + wrong_errors(lambda: errors(rig, logs), call)


def fail_in_transition(rig: Rig, borders: FailingBorders, transition: str, call: Call) -> list[str]:
    """Let one call of a transition raise; return what is wrong afterwards."""
    start, goal, within = TRANSITIONS[transition]
    rig.move() if start == "active" else rig.bring_to(start)
    twists, logs = rig.heard(TWIST), rig.heard(ROSOUT)
    borders.fail("node", call.site, within, call.number - 1)
    begins(borders, "node")
    done = rig.change(transition)
    reached = comes_true(lambda: borders.fired("node"), 0.5)
    borders.off()
    if not reached:
        return [UNREACHED]
    goals = [state for state in PRIMARY if state != "active" or start != "active"]  # the error path takes its time
    state = wait_until(lambda: (now := rig.state()) in goals and now, LIMIT, f"one of {goals} after {call}")
    wrong = []
    if done and state != goal:
        wrong.append(f"answered that it is done, and is {state}")
    if start == "active":
        if not is_zero(rig.peer.received(TWIST)[-1]):
            wrong.append(f"{state}, and the last twist is not zero")
    elif not all(map(is_zero, rig.peer.received(TWIST)[twists:])):
        wrong.append("a twist out of nothing")
    if state == "unconfigured":
        wrong += leftovers(rig, borders)
    comes_true(lambda: errors(rig, logs), STOPPED)  # what fails behind the answer comes a little later
    rig.move() if goal == "active" else rig.bring_to(goal)  # the next one works
    return wrong + wrong_errors(lambda: errors(rig, logs), call)


def fail_while_loading(rig: Rig, borders: FailingBorders, call: Call) -> list[str]:
    """Let one call of the worker raise between its start and its answer; return what is wrong afterwards."""
    rig.bring_to("unconfigured")
    logs = rig.heard(ROSOUT)
    borders.fail("worker", call.site)
    done = rig.change("configure")
    reached = comes_true(lambda: borders.fired("worker"), 0.5)
    borders.off()
    if not reached:
        return [UNREACHED]
    wrong = [f"configured all the same, and is {rig.state()}"] if done else []
    rig.bring_to("unconfigured")
    wrong += leftovers(rig, borders)
    rig.bring_to("inactive")  # the next one works
    return wrong + wrong_errors(lambda: errors(rig, logs), call)


def leftovers(rig: Rig, borders: FailingBorders) -> list[str]:
    """Return what an unconfigured node should not have any more."""
    wrong = [
        f"{topic} is published still"
        for topic in COMMAND_TOPICS
        if not comes_true(lambda topic=topic: rig.peer.node.count_publishers(topic) == 0, STOPPED)
    ]
    if not comes_true(lambda: rig.peer.node.count_subscribers("image") == 0, STOPPED):
        wrong.append("/image is subscribed still")
    if not comes_true(lambda: not workers(rig, borders), STOPPED):
        wrong.append("the worker lives on")
    return wrong


def spread(found: Sequence[str], count: int) -> list[Call]:
    return [Call(found[number * len(found) // count]) for number in range(count)]


def test_some_borders_of_a_step_fail_and_the_next_image_moves_the_arm_again(rig, borders):
    found = found_while_moving(rig, borders, "node", BRIEFLY)
    assert len(found) > 100, "the borders of a step are not found"
    sweep(spread(found, SOME), lambda call: fail_while_moving(rig, borders, "node", call))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("who", ["node", "worker"])
def test_every_border_of_a_step_fails_until_none_is_left(rig, borders, who):
    done: set[str] = set()
    while left := [border for border in found_while_moving(rig, borders, who, WATCHED) if border not in done]:
        done.update(left)
        sweep(map(Call, left), lambda call: fail_while_moving(rig, borders, who, call))
    assert len(done) > 50


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("transition", ["activate", "cleanup", "deactivate", "configure"])
def test_every_border_of_a_transition_fails_until_none_is_left(rig, borders, transition):
    start, _, within = TRANSITIONS[transition]
    rig.move() if start == "active" else rig.bring_to(start)
    borders.record("node", within)
    begins(borders, "node")
    assert rig.change(transition)
    wait_steadily(0.2)  # for the record to be written
    found = every_call(borders.recorded("node"))
    borders.off()
    assert found
    sweep(found, lambda call: fail_in_transition(rig, borders, transition, call))


@pytest.mark.timeout(3600)
def test_every_border_of_the_workers_loading_fails_until_none_is_left(rig, borders):
    rig.bring_to("unconfigured")
    borders.record("worker")
    rig.bring_to("inactive")
    wait_steadily(0.2)  # for the record to be written
    found = list(borders.recorded("worker"))
    borders.off()
    assert len(found) > 50, "the borders of loading are not found"
    sweep(map(Call, found), lambda call: fail_while_loading(rig, borders, call))
