"""Cleanup and shutdown asked for while the policy computes or loads (fault 24): answered at once, done soon."""

import threading
import time
from collections.abc import Iterator

import pytest

from faulty_worker import FaultyWorker
from harness import wait_until
from vla_rig import ACTION, LIMIT, TWIST, Rig, gentle, is_zero, running_rig, wait_steadily

pytestmark = [pytest.mark.ros, pytest.mark.slow]

STEP = 3.0  # s that an inference takes here
ANSWER_LIMIT = 0.5  # s for a service; 0.05 is the promise on an idle machine
SOON = 1.0  # s after which a transition has ended: it does not wait for the step


@pytest.fixture(scope="module")
def rig(ros_domain: int, faulty: FaultyWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    from tiny_checkpoint import make_tiny_checkpoint

    parameters = gentle(make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))) | {"model.python": faulty.python}
    with running_rig(parameters) as rig:
        yield rig


def timed(rig: Rig, transition: str) -> tuple[bool, float]:
    began = time.monotonic()
    return rig.change(transition), time.monotonic() - began


def test_cleanup_asked_for_during_a_step_is_refused_at_once_and_after_deactivate_waits_for_no_step(rig, faulty):
    rig.move()
    faulty.begin(LIMIT, "delay", seconds=STEP)
    taken, seconds = timed(rig, "cleanup")
    assert not taken and seconds < ANSWER_LIMIT and rig.state() == "active"
    for transition, goal in (("deactivate", "inactive"), ("cleanup", "unconfigured")):
        taken, seconds = timed(rig, transition)
        assert taken and seconds < SOON and rig.state() == goal
    assert is_zero(rig.peer.received(TWIST)[-1])
    wait_until(lambda: not rig.node.children(), SOON, "the end of the worker")
    heard = rig.heard(ACTION)
    wait_steadily(0.3)
    assert rig.heard(ACTION) == heard
    faulty.set("none")


def test_cleanup_and_shutdown_asked_for_during_configure_are_refused_at_once_and_configure_ends_as_ever(rig, faulty):
    rig.bring_to("unconfigured")
    faulty.set("none")
    configures = threading.Thread(target=rig.change, args=("configure",))
    configures.start()
    try:
        wait_until(lambda: rig.state() == "configuring", LIMIT, "configuring")
        for transition in ("cleanup", "shutdown", "configure", "activate"):
            taken, seconds = timed(rig, transition)
            assert not taken and seconds < ANSWER_LIMIT, transition
        assert rig.state() == "configuring"
        assert "refused: another one is running (configuring)" in rig.node.output
    finally:
        configures.join(2 * LIMIT)
    assert rig.state() == "inactive"
    rig.move()


def test_shutdown_asked_for_during_a_step_waits_for_no_step_and_ends_with_one_zero_twist(rig, faulty):
    """The last test: what is finalized stays so."""
    faulty.set("none")
    rig.move()
    faulty.begin(LIMIT, "delay", seconds=STEP)
    before = rig.heard(ACTION)
    taken, seconds = timed(rig, "shutdown")
    assert taken and seconds < SOON and rig.state() == "finalized"
    wait_until(lambda: not rig.node.children(), SOON, "the end of the worker")
    rig.wait_for_stop("shut down", before)
    actions = rig.peer.received(ACTION)
    assert [action.stop_reason for action in actions[before:]].count("shut down") == 1
    assert actions[-1].stop_reason == "shut down" and is_zero(rig.peer.received(TWIST)[-1])
    wait_steadily(STEP)  # the step's end finds nothing any more
    assert rig.heard(ACTION) == len(actions) and "Traceback" not in rig.node.output
