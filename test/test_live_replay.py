"""A bag played with /clock into the node, over real DDS: once, in a loop, with a jump ahead, and slowly.

The clock jumps, the node begins anew, nothing from before the jump or from the future is acted upon, motion resumes.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rosbags")

from bag_player import START, BagPlayer, record_scene  # noqa: E402
from harness import wait_until  # noqa: E402
from machine import assert_in_time  # noqa: E402
from vla_rig import ACTION, DIAGNOSTICS, LIMIT, NODE, REPORT, TWIST, Rig, gentle, is_zero, running_rig  # noqa: E402

pytestmark = pytest.mark.ros

ARRIVAL_AGE = 0.6  # s
STAMP_AGE = 1.0  # s
SKEW = 0.05  # s, the default of safety.max_clock_skew
MARGIN = 0.5  # s for DDS and a busy machine
SECONDS = 3.0  # of the bag


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("metaworld")
    return record_scene(tmp_path_factory.mktemp("bags") / "scene", SECONDS)


@pytest.fixture(scope="module")
def rig(ros_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

    checkpoint = make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    make_tiny_dysl(checkpoint / "dysl", checkpoint)
    limits = {"safety.max_arrival_age": ARRIVAL_AGE, "safety.max_stamp_age": STAMP_AGE}
    with running_rig(gentle(checkpoint) | limits | {"use_sim_time": True}) as rig:
        rig.robot.close()  # the bag is the robot
        yield rig


@pytest.fixture(scope="module")
def player(rig: Rig, bag: Path) -> Iterator[BagPlayer]:
    player = BagPlayer(rig.peer, bag)
    yield player
    player.close()


def seconds(stamp: Any) -> float:
    """Return a stamp as seconds into the bag."""
    return stamp.sec - START + stamp.nanosec * 1e-9


def moving(actions: list[Any]) -> list[Any]:
    return [action for action in actions if not action.stop_reason]


def assert_nothing_old_or_future(rig: Rig) -> None:
    """Hold that every action answers an image of its own time, on the clock of the moment it was played."""
    actions = moving(rig.peer.received(ACTION))
    ages = [seconds(action.header.stamp) - seconds(action.image_stamp) for action in actions]
    assert actions and min(ages) >= -SKEW and max(ages) <= STAMP_AGE
    for _, episode in itertools.groupby(actions, key=lambda action: action.episode):
        stamps = [seconds(action.image_stamp) for action in episode]
        assert stamps == sorted(stamps), "an episode never goes back in time"


def resumed(rig: Rig, jump: str, after: int) -> tuple[Any, Any]:
    """Return the stop that names a jump, and the first action that moves behind it."""
    stop = rig.peer.wait_for(ACTION, lambda action: jump in action.stop_reason, LIMIT, f"a stop: {jump}", after)
    place = next(i for i, action in enumerate(rig.peer.received(ACTION)) if action is stop)
    first = rig.peer.wait_for(ACTION, lambda action: not action.stop_reason, LIMIT, "motion after the jump", place)
    return stop, first


def test_without_clock_nothing_moves_and_the_reason_is_told(rig: Rig, player: BagPlayer) -> None:
    rig.bring_to("active")
    for part in ("clock", "inputs"):
        status = rig.wait_for_status(part, lambda status: status.message.startswith("no /clock"), "no /clock")
        assert status.level == b"\x01"
    assert rig.heard(TWIST) == 0


def test_played_once_the_arm_moves_and_stops_by_the_steady_clock_when_the_bag_ends(rig: Rig, player: BagPlayer) -> None:
    for topic in ("image", "wrist_image", "ee_pose", "gripper_state", "instruction"):
        rig.peer.wait_for_subscriber(topic, LIMIT)
    player.play()
    first = rig.wait_for_motion()
    assert 0.0 <= seconds(first.image_stamp) <= SECONDS
    wait_until(lambda: player.paused, LIMIT, "the end of the bag")
    rig.wait_for_stop("/clock has stood still")
    zero = next(r for r in rig.peer.records(TWIST) if is_zero(r.message) and r.arrival > player.stopped_at)
    assert_in_time(player.stopped_at, zero.arrival, ARRIVAL_AGE, MARGIN, "the zero twist after the clock stood still")
    rig.wait_for_status("clock", lambda status: "is the simulation or the bag paused?" in status.message, "a pause")
    assert_nothing_old_or_future(rig)


def test_in_a_loop_each_jump_back_begins_an_episode_and_motion_resumes(rig: Rig, player: BagPlayer) -> None:
    after = rig.heard(ACTION)
    player.play(place=SECONDS - 1.0, loop=True)  # a jump as well: the bag had come to its end
    resumed(rig, "the clock has jumped back by ", after)
    for _ in range(2):
        stop, first = resumed(rig, "the clock has jumped back by ", rig.heard(ACTION))
        assert first.episode >= stop.episode and first.inference == 1
        assert 0.0 <= seconds(first.image_stamp) < SECONDS - 1.0
        report = next(r for r in rig.peer.received(REPORT) if (r.episode, r.inference) == (first.episode, 1))
        assert report.full_depth_reason == "warm-up"
    rig.peer.wait_for(
        DIAGNOSTICS,
        lambda array: any(s.name == f"{NODE}: clock" and "jumped back" in s.message for s in array.status),
        LIMIT,
        "the jump in the status of the clock",
    )
    assert_nothing_old_or_future(rig)


def test_a_jump_ahead_begins_an_episode_and_motion_resumes(rig: Rig, player: BagPlayer) -> None:
    player.play(loop=True)
    resumed(rig, "the clock has jumped back by ", rig.heard(ACTION))
    after = rig.heard(ACTION)
    target = player.place + 1.5
    assert target < SECONDS - 0.5
    player.play(place=target, loop=True)
    stop, first = resumed(rig, "the clock has jumped ahead by 1.", after)
    assert first.episode >= stop.episode and first.inference == 1 and seconds(first.image_stamp) >= target
    assert_nothing_old_or_future(rig)


def test_a_slow_clock_stretches_the_arrival_limit(rig: Rig, player: BagPlayer) -> None:
    player.play(rate=0.2, loop=True)  # an image each 0.25 s
    rig.wait_for_status(
        "clock",
        lambda status: any(p.key == "rate [s/s]" and 0.15 < float(p.value) < 0.25 for p in status.values),
        "a rate of 0.2",
    )
    assert rig.set(safety__max_arrival_age=0.2) == (True, "")
    try:
        after = rig.heard(ACTION) + 1
        rig.peer.wait_for(ACTION, None, LIMIT, "a second of actions", after + 20)
        told = {action.stop_reason for action in rig.peer.received(ACTION)[after:]}
        assert not any("max_arrival_age" in reason for reason in told)
    finally:
        assert rig.set(safety__max_arrival_age=ARRIVAL_AGE) == (True, "")
