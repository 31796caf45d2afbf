"""~/hold keeps the arm still while inferences go on, and the workspace box is counted and named, over real DDS."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from vla_rig import ACTION, CHUNK, LIMIT, NODE, REPORT, TWIST, Rig, gentle, is_zero, running_rig

pytestmark = pytest.mark.ros

HELD = "held by ~/hold"


@pytest.fixture(scope="module")
def rig(ros_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

    checkpoint = make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    make_tiny_dysl(checkpoint / "dysl", checkpoint)
    with running_rig(gentle(checkpoint) | {"control.ramp_in": 0.5}) as rig:
        yield rig


def hold(rig: Rig, on: bool):
    from std_srvs.srv import SetBool

    return rig.peer.call(f"{NODE}/hold", SetBool.Request(data=on), LIMIT)


def test_before_configure_there_is_nothing_to_hold(rig: Rig) -> None:
    answer = hold(rig, True)
    assert not answer.success and answer.message == "the node is unconfigured: there is nothing to hold"


def test_held_the_arm_stands_still_inferences_go_on_and_released_it_resumes_gently(rig: Rig) -> None:
    rig.move()
    episode = rig.peer.received(ACTION)[-1].episode
    before, twists = rig.heard(ACTION), rig.heard(TWIST)
    assert hold(rig, True).success
    rig.wait_for_stop(HELD, before)
    answered = rig.heard(TWIST)
    reports = rig.heard(REPORT)
    # inferences go on, past the warm-up, in one episode, on nothing that was played
    last = rig.peer.wait_for(REPORT, lambda report: report.inference > 5, LIMIT, "inferences while held", reports)
    assert last.episode == episode + 1 and last.full_depth_reason == "" and last.continuity != last.continuity
    rig.peer.wait_for(CHUNK, None, LIMIT, "a chunk", rig.heard(CHUNK))
    rig.wait_for_status("commands", lambda status: status.message == f"stopped: {HELD}", "a hold")
    assert all(map(is_zero, rig.peer.received(TWIST)[answered:])) and rig.heard(TWIST) > answered > twists
    held_until = rig.heard(ACTION)
    assert hold(rig, False).success
    moving = rig.wait_for_motion()
    assert moving.episode == episode + 2
    actions = itertools.dropwhile(lambda action: action.stop_reason, rig.peer.received(ACTION)[held_until:])
    first = next(actions)
    assert first.chunk_index == 0 and "control.ramp_in" in first.limits
    chunk = next(c for c in rig.peer.received(CHUNK) if (c.episode, c.inference) == (first.episode, first.inference))
    assert chunk.inference == 1
    assert first.translation.x == pytest.approx(0.1 * chunk.translation[0], rel=1e-4)  # the first of ten ramp ticks
    assert stamp(first.image_stamp) > stamp(rig.peer.received(ACTION)[held_until - 1].header.stamp) - 0.5


def test_a_hold_outlives_deactivation_and_nothing_is_commanded_before_its_release(rig: Rig) -> None:
    rig.move()
    assert hold(rig, True).success and hold(rig, True).success
    rig.bring_to("inactive")
    rig.wait_for_status("commands", lambda status: "~/hold will keep the arm still" in status.message, "a hold")
    twists, reports = rig.heard(TWIST), rig.heard(REPORT)
    rig.bring_to("active")
    rig.peer.wait_for(REPORT, None, LIMIT, "inferences while held", reports + 3)
    assert rig.heard(TWIST) == twists
    assert hold(rig, False).success
    rig.wait_for_motion()


def test_the_box_clips_and_is_named_and_counted(rig: Rig) -> None:
    rig.move()
    # the robot's hand stands at y 0.6, below this wall; the tiny policy moves on towards smaller y
    assert rig.set(safety__workspace_min_y=0.7, safety__workspace_box=True) == (True, "")
    try:
        name = "safety.workspace_min_y"
        clipped = rig.peer.wait_for(ACTION, lambda a: name in a.limits, LIMIT, "a clipped action", rig.heard(ACTION))
        assert clipped.translation.y >= 0.0 and clipped.translation.z != 0.0
        key = f"limited by {name} [ticks]"
        rig.wait_for_status(
            "commands",
            lambda status: name in status.message and any(p.key == key and int(p.value) > 0 for p in status.values),
            "the box",
        )
        taken, reason = rig.set(safety__workspace_min_x=1.0, safety__workspace_max_x=0.5)
        assert not taken and "safety.workspace_min_x is 1 m and safety.workspace_max_x 0.5 m" in reason
    finally:
        assert rig.set(safety__workspace_min_y=-10.0, safety__workspace_box=False) == (True, "")
    rig.wait_for_motion()


@pytest.mark.slow
def test_a_policy_without_the_hands_position_cannot_have_the_box(rig: Rig, tmp_path: Path) -> None:
    import torch

    from dysl_vla_ros.interfaces import ProprioceptionSpec
    from dysl_vla_ros.policies.reference import ReferenceNetwork, save_reference
    from tiny_checkpoint import tiny_config

    torch.manual_seed(0)
    blind = replace(
        tiny_config(),
        proprioception=ProprioceptionSpec(("gripper.opening",), ("",)),
        proprioception_mean=(0.5,),
        proprioception_std=(0.3,),
    )
    save_reference(ReferenceNetwork(blind), tmp_path / "blind", {"data": "none: random weights"})
    rig.bring_to("unconfigured")
    assert rig.set(model__checkpoint=str(tmp_path / "blind"), safety__workspace_box=True) == (True, "")
    assert not rig.change("configure")
    rig.wait_for_error("worker", "does not declare ee.x, ee.y, ee.z, its proprioception is gripper.opening")


def stamp(time) -> float:
    return time.sec + time.nanosec * 1e-9
