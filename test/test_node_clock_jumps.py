"""The system's clock jumps under a running node (fault 28): libfaketime in the node's process alone, set while it runs.

The camera is on the same machine, so that its stamps jump with the node's clock; the steady clock goes on.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dysl_vla_ros.readings import seconds
from harness import wait_until
from vla_rig import ACTION, LIMIT, TWIST, Rig, gentle, is_zero, running_rig, wait_steadily

pytestmark = [pytest.mark.ros, pytest.mark.slow]

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
STAMPED = ("image", "wrist_image", "ee_pose")
RATE = 20.0  # Hz, of the control ticks
LOOK = 1.0  # s after a jump in which ticks are counted


class SystemClock:
    """The clock of a process that was started with :attr:`environment`, so many seconds beside the machine's own."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "faketime"
        self.set(0.0)
        self.environment = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: float) -> None:
        written = self._file.with_suffix(".new")
        written.write_text(f"{seconds:+.3f}\n")
        os.replace(written, self._file)


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> SystemClock:
    if LIBRARY is None:
        pytest.skip("libfaketime is not installed (Debian: faketime)")
    return SystemClock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def rig(ros_domain: int, clock: SystemClock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    from tiny_checkpoint import make_tiny_checkpoint

    checkpoint = make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    parameters = gentle(checkpoint) | {"control.rate": RATE}
    # Its end is not looked at: under libfaketime a timed wait of DDS may never end, without any jump too.
    with running_rig(parameters, environment=clock.environment, warm=False, end=False) as rig:
        rig.robot.one_stamp = True
        yield rig


@pytest.mark.parametrize("jump", [-50.0, 1000.0, 2.0, -2.0], ids=["back 50 s", "on 1000 s", "on 2 s", "back 2 s"])
def test_a_jump_of_the_systems_clock_is_a_stop_and_a_new_episode_and_no_burst(rig, clock, jump):
    clock.set(0.0)
    rig.robot.shift.clear()
    rig.move()
    episode = rig.peer.received(ACTION)[-1].episode
    before, twists = rig.heard(ACTION), rig.heard(TWIST)
    rig.robot.shift.update(dict.fromkeys(STAMPED, jump))
    clock.set(jump)
    stopped = rig.wait_for_stop("clock", before)
    wait_steadily(LOOK)
    assert any(is_zero(twist) for twist in rig.peer.received(TWIST)[twists:])
    counted = [twist for twist in rig.peer.records(TWIST)[twists:]]
    gaps = sorted(later.arrival - earlier.arrival for earlier, later in zip(counted, counted[1:], strict=False))
    assert len(counted) <= 1.5 * RATE * (counted[-1].arrival - counted[0].arrival) + 3, f"a burst: {gaps[:10]}"
    moving = wait_until(
        lambda: [a for a in rig.peer.received(ACTION)[before:] if not a.stop_reason and a.episode > episode],
        LIMIT,
        "motion again in a new episode",
    )
    assert stopped.stop_reason and rig.node.process.poll() is None
    for action in moving:  # answers an image from after the jump, by the clock of after the jump
        assert 0.0 <= seconds(action.header.stamp) - seconds(action.image_stamp) < 2.0
    status = rig.wait_for_status("clock", lambda status: True, "the clock")
    values = {value.key: value.value for value in status.values}
    assert int(values["jumps"]) > 0 and values["last jump"]
