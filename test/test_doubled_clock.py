"""Two publishers of /clock stop the real node as one fault with both names; the time they give jumps to and fro."""

import pytest

from harness import RosPeer, wait_until
from test_doubled import PROGRAMS, publishing, sensor_qos
from vla_rig import ACTION, DIAGNOSTICS, LIMIT, NODE, gentle, running_rig

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy")


@pytest.mark.parametrize("program", PROGRAMS)
def test_two_clocks_stop_the_arm_as_one_fault_until_one_is_silent(ros_domain, tmp_path, program):
    from tiny_checkpoint import make_tiny_checkpoint

    checkpoint = make_tiny_checkpoint(tmp_path / "checkpoint")
    with (
        publishing("simulator", "/clock", "clock", 100.0),
        running_rig(gentle(checkpoint) | {"use_sim_time": True}, program=program) as rig,
    ):
        rig.move()
        episode = rig.peer.received(ACTION)[-1].episode
        before = rig.heard(DIAGNOSTICS), rig.heard(ACTION)
        # the other clock is an hour behind
        with RosPeer("player") as player:
            publisher = player.publisher("/clock", clock_type(), sensor_qos())
            both = "/clock: /player and /simulator publish it at the same time"
            rig.peer.wait_for_publisher("/clock", LIMIT, 2)
            wait_until(lambda: publisher.publish(clock(player, -3600)) or stopped(rig, both, before[1]), LIMIT, both)
            wait_until(
                lambda: publisher.publish(clock(player, -3600)) or error(rig, "clock", both, before[0]), LIMIT, both
            )
        rig.wait_for_motion()
        # each jump would begin one; what may pass is the first, and the stops at both ends
        assert rig.peer.received(ACTION)[-1].episode - episode <= 6
        assert rig.state() == "active"


def stopped(rig, reason, after):
    return any(reason in action.stop_reason for action in rig.peer.received(ACTION)[after:])


def error(rig, part, reason, after):
    return any(
        status.name == f"{NODE}: {part}" and status.level == b"\x02" and reason in status.message
        for message in rig.peer.received(DIAGNOSTICS)[after:]
        for status in message.status
    )


def clock_type():
    from rosgraph_msgs.msg import Clock

    return Clock


def clock(peer, shift):
    from rclpy.duration import Duration

    return clock_type()(clock=(peer.node.get_clock().now() + Duration(seconds=shift)).to_msg())
