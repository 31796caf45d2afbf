"""The k-th failure: every border of a step and of each transition fails once, in the real node and the real worker.

After each of them the node is alive and in a primary state, its last twist is a zero where it was moving, one ERROR
names the border, and the next good image or transition works. The borders are found while they are crossed, not listed
here; see :mod:`failing_borders`. The default suite has some of a step; all of them take minutes.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from failing_borders import FailingBorders
from harness import wait_until
from vla_rig import ACTION, COMMAND_TOPICS, LIMIT, TWIST, Rig, gentle, is_zero, running_rig, wait_steadily

pytestmark = pytest.mark.ros

ROSOUT = "/rosout"
ERROR = 40  # rcl_interfaces/Log
PRIMARY = ("unconfigured", "inactive", "active", "finalized")
REACHED = 12.0  # s in which what runs steadily comes by again; the graph is looked at every few seconds
STOPPED = 3.0  # s in which a stop has been received
THROTTLE = 1.1  # s after which the same stage may log an ERROR again
WATCHED = 8.0  # s of moving in which the borders of a step are found
BRIEFLY = 2.0  # s in which most of them are
SOME = 5  # borders of a step in the default suite
SELDOM = 0.2  # share of the borders that need not come by again: of a rare branch
UNREACHED = "was not reached"

TRANSITIONS = {  # name: (from, to)
    "configure": ("unconfigured", "inactive"),
    "activate": ("inactive", "active"),
    "deactivate": ("active", "inactive"),
    "cleanup": ("inactive", "unconfigured"),
}
# where a transition runs: in the service's thread, and in that of the worker's client, which starts it and buries it
OF_A_TRANSITION = {
    "configure": ("_change_state", "_live"),
    "activate": ("_change_state",),
    "deactivate": ("_change_state",),
    "cleanup": ("_change_state", "_bury"),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_checkpoint import make_tiny_checkpoint

    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def borders(tmp_path_factory: pytest.TempPathFactory) -> FailingBorders:
    return FailingBorders(tmp_path_factory.mktemp("borders"))


@pytest.fixture(scope="module")
def rig(ros_domain: int, checkpoint: Path, borders: FailingBorders) -> Iterator[Rig]:
    from rcl_interfaces.msg import Log

    # a late message is no fault here
    parameters = gentle(checkpoint) | {"model.python": borders.python, "safety.max_arrival_age": 2.0}
    parameters["model.load_timeout"] = 180.0
    with running_rig(parameters, program=borders.program) as rig:
        rig.peer.listen(ROSOUT, Log)
        yield rig


def wrong_errors(rig: Rig, after: int, border: str) -> list[str]:
    """Return what is wrong about the ERRORs logged since: there is to be one, and it names the border."""
    told = [log.msg for log in rig.peer.received(ROSOUT)[after:] if log.level >= ERROR]
    if len(told) == 1 and border in told[0]:
        return []
    return [f"{len(told)} ERRORs: {[text[:100] + ' ... ' + text[-150:] for text in told]}"]


def begins(rig: Rig, borders: FailingBorders, who: str) -> None:
    wait_until(lambda: borders.obeyed(who), LIMIT, "the order")


def found_while_moving(rig: Rig, borders: FailingBorders, who: str, seconds: float) -> list[str]:
    """Return what is crossed while the arm moves."""
    rig.move()
    borders.record(who)
    begins(rig, borders, who)
    wait_steadily(seconds)
    return borders.recorded(who)


def fail_while_moving(rig: Rig, borders: FailingBorders, who: str, border: str) -> list[str]:
    """Let one call of a step raise; return what is wrong afterwards."""
    rig.move()
    actions, twists, logs = rig.heard(ACTION), rig.heard(TWIST), rig.heard(ROSOUT)
    borders.fail(who, border)
    begins(rig, borders, who)
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

    state = wait_until(settled, LIMIT, f"motion again, or another primary state, after {border}")
    if state != "active" and not is_zero(rig.peer.received(TWIST)[-1]):
        wrong.append(f"the last twist before {state} is not zero")
    rig.move()
    wait_steadily(max(fired + THROTTLE - time.monotonic(), 0.0))
    return wrong + wrong_errors(rig, logs, border)


def fail_in_transition(rig: Rig, borders: FailingBorders, transition: str, border: str) -> list[str]:
    """Let one call of a transition raise; return what is wrong afterwards."""
    start, goal = TRANSITIONS[transition]
    rig.move() if start == "active" else rig.bring_to(start)
    twists, logs = rig.heard(TWIST), rig.heard(ROSOUT)
    borders.fail("node", border, OF_A_TRANSITION[transition])
    begins(rig, borders, "node")
    done = rig.change(transition)
    reached = comes_true(lambda: borders.fired("node"), 0.5)
    borders.off()
    if not reached:
        return [UNREACHED]
    goals = [state for state in PRIMARY if state != "active" or start != "active"]  # the error path takes its time
    state = wait_until(lambda: (now := rig.state()) in goals and now, LIMIT, f"one of {goals} after {border}")
    wrong = []
    if done and state != goal:
        wrong.append(f"answered that it is done, and is {state}")
    if start == "active":
        if not is_zero(rig.peer.received(TWIST)[-1]):
            wrong.append(f"{state}, and the last twist is not zero")
    elif not all(map(is_zero, rig.peer.received(TWIST)[twists:])):
        wrong.append("a twist out of nothing")
    if state == "unconfigured":
        if not comes_true(lambda: not rig.node.children(), STOPPED):
            wrong.append("the worker lives on")
        for topic in COMMAND_TOPICS:
            if not comes_true(lambda topic=topic: rig.peer.node.count_publishers(topic) == 0, STOPPED):
                wrong.append(f"{topic} is published still")
        if not comes_true(lambda: rig.peer.node.count_subscribers("image") == 0, STOPPED):
            wrong.append("/image is subscribed still")
    rig.move() if goal == "active" else rig.bring_to(goal)  # the next one works
    return wrong + wrong_errors(rig, logs, border)


def comes_true(condition: Callable[[], object], limit: float) -> bool:
    try:
        wait_until(condition, limit, "a condition")
    except AssertionError:
        return False
    return True


def sweep(found: Iterable[str], fail: Callable[[str], list[str]]) -> None:
    """Let each fail, and tell of all together what is wrong."""
    wrong = {}
    for border in found:
        began = time.monotonic()
        if complaint := fail(border):
            wrong[border] = complaint
        print(f"{time.monotonic() - began:5.1f} s  {border}  {complaint or ''}", flush=True)
    seldom = [border for border, complaint in wrong.items() if complaint == [UNREACHED]]
    assert len(seldom) <= max(1, SELDOM * len(list(found))), f"{len(seldom)} were not reached again: {seldom}"
    faults = {border: complaint for border, complaint in wrong.items() if border not in seldom}
    assert not faults, "\n".join(f"{border}: {'; '.join(complaint)}" for border, complaint in faults.items())


def spread(found: Sequence[str], count: int) -> list[str]:
    return [found[number * len(found) // count] for number in range(count)]


@pytest.mark.slow
def test_some_borders_of_a_step_fail_and_the_next_image_moves_the_arm_again(rig, borders):
    found = found_while_moving(rig, borders, "node", BRIEFLY)
    assert len(found) > 100, "the borders of a step are not found"
    sweep(spread(found, SOME), lambda border: fail_while_moving(rig, borders, "node", border))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("who", ["node", "worker"])
def test_every_border_of_a_step_fails_until_none_is_left(rig, borders, who):
    done: set[str] = set()
    while left := [border for border in found_while_moving(rig, borders, who, WATCHED) if border not in done]:
        done.update(left)
        sweep(left, lambda border: fail_while_moving(rig, borders, who, border))
    assert len(done) > 50


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("transition", ["activate", "cleanup", "deactivate", "configure"])
def test_every_border_of_a_transition_fails_until_none_is_left(rig, borders, transition):
    start, _ = TRANSITIONS[transition]
    rig.move() if start == "active" else rig.bring_to(start)
    borders.record("node", OF_A_TRANSITION[transition])
    begins(rig, borders, "node")
    assert rig.change(transition)
    wait_steadily(0.2)  # for the record to be written
    found = borders.recorded("node")
    borders.off()
    assert found
    sweep(found, lambda border: fail_in_transition(rig, borders, transition, border))
