"""A tick that takes several periods, and every core busy (fault 39): counted, no burst, nothing old is acted upon."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from dysl_vla_ros.readings import seconds
from harness import wait_until
from vla_rig import ACTION, LIMIT, TWIST, Rig, gentle, is_zero, running_rig, wait_steadily

pytestmark = [pytest.mark.ros, pytest.mark.slow]

RATE = 20.0  # Hz
PERIODS = 6  # that the node is held up for, with images fresh enough
TOO_LONG = 3.0  # s, above safety.max_stamp_age
LOOK = 0.5  # s afterwards in which ticks are counted
BUSY = 5.0  # s with every core busy
STAMP_AGE = 2.0  # s


@pytest.fixture(scope="module")
def rig(ros_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    from tiny_checkpoint import make_tiny_checkpoint

    parameters = gentle(make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint")))
    with running_rig(parameters | {"control.rate": RATE, "safety.max_stamp_age": STAMP_AGE}) as rig:
        yield rig


def late_ticks(rig: Rig) -> int:
    status = rig.wait_for_status("commands", lambda status: True, "the commands")
    return int(next(pair.value for pair in status.values if pair.key == "late ticks"))


def hold_up(rig: Rig, seconds: float) -> float:
    """Let the node's process alone stand still, as where another one has the processor; return when it went on."""
    os.kill(rig.node.pid, signal.SIGSTOP)
    try:
        wait_steadily(seconds)
    finally:
        os.kill(rig.node.pid, signal.SIGCONT)
    return time.monotonic()


def twists_between(rig: Rig, begin: float, end: float) -> int:
    return sum(begin <= record.arrival <= end for record in rig.peer.records(TWIST))


def image_ages(rig: Rig, after: int) -> list[float]:
    """Return how old the image behind each action was, s; stops have none."""
    moving = [action for action in rig.peer.received(ACTION)[after:] if not action.stop_reason]
    return [seconds(action.header.stamp) - seconds(action.image_stamp) for action in moving]


@pytest.mark.parametrize("length", [PERIODS / RATE, TOO_LONG])
def test_a_tick_that_is_held_up_is_counted_and_followed_by_no_burst_and_by_nothing_old(rig, length):
    rig.move()
    before, late = rig.heard(ACTION), late_ticks(rig)
    resumed = hold_up(rig, length)
    wait_steadily(LOOK)
    burst = twists_between(rig, resumed, resumed + LOOK)
    assert 1 <= burst <= RATE * LOOK + 3, f"{burst} twists in {LOOK} s"
    assert rig.wait_for_motion()
    wait_until(lambda: late_ticks(rig) > late, LIMIT, "the late tick counted")
    assert max(image_ages(rig, before)) < STAMP_AGE
    if length > STAMP_AGE:
        assert any(is_zero(twist) for twist in rig.peer.received(TWIST)[before:])
        assert any(action.stop_reason for action in rig.peer.received(ACTION)[before:])


def test_with_every_core_busy_ticks_come_no_quicker_than_their_rate_and_nothing_old_is_acted_upon(rig):
    rig.move()
    before = rig.heard(ACTION)
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        begin = time.monotonic()
        wait_steadily(BUSY)
        end = time.monotonic()
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait(LIMIT)
    assert twists_between(rig, begin, end) <= RATE * (end - begin) + 3
    assert all(age < STAMP_AGE for age in image_ages(rig, before))
    assert rig.wait_for_motion() and rig.state() == "active"
