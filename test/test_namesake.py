"""A living node of our name is told from a dead one, which stays in the graph, and from ourselves."""

import contextlib
import signal
import threading
import time

import pytest

from harness import NodeProcess, RosPeer, wait_until
from machine import assert_in_time
from vla_rig import wait_steadily

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy")

from lifecycle_msgs.srv import GetState  # noqa: E402

from dysl_vla_ros.nodes.namesake import ASK_LIMIT, living_namesake  # noqa: E402

LIMIT = 20.0


def answer_get_state(peer: RosPeer, state: str) -> None:
    """Let a peer answer get_state, as a lifecycle node does."""

    def answer(request, response):
        response.current_state.label = state
        return response

    peer.node.create_service(GetState, "~/get_state", answer)


def test_alone_costs_nothing(ros_domain):
    with RosPeer("dysl_vla") as ours:
        answer_get_state(ours, "configuring")
        began = time.monotonic()
        assert living_namesake(ours.node, "configuring") == ""
        assert_in_time(began, time.monotonic(), 0.0, 0.1, "the answer")


def test_the_same_name_in_another_namespace_is_no_namesake(ros_domain):
    with RosPeer("dysl_vla") as ours, RosPeer("dysl_vla", namespace="/left") as other:
        answer_get_state(ours, "configuring")
        answer_get_state(other, "active")
        wait_until(lambda: ours.node.get_node_names().count("dysl_vla") >= 2, LIMIT, "both names")
        assert living_namesake(ours.node, "configuring") == ""


def test_a_living_one_is_found_in_another_state_and_in_ours_a_dead_one_is_not(ros_domain):
    with RosPeer("dysl_vla") as ours:
        answer_get_state(ours, "unconfigured")
        with NodeProcess("vla_node") as other:
            wait_until(lambda: ours.node.get_node_names().count("dysl_vla") >= 2, LIMIT, "the namesake")
            told = "another node /dysl_vla is on the graph, in the state unconfigured"
            # on the graph it may be, on a busy machine, for longer than a question lasts before it answers any
            wait_until(lambda: living_namesake(ours.node, "configuring") == told, LIMIT, "the namesake's answer")
            assert living_namesake(ours.node, "unconfigured") == told, "two answers to one question"
            other.process.send_signal(signal.SIGKILL)
            other.wait(LIMIT)
        assert ours.node.get_node_names().count("dysl_vla") >= 2, "the dead one has left the graph: nothing is tested"
        began = time.monotonic()
        assert living_namesake(ours.node, "unconfigured") == ""
        assert_in_time(began, time.monotonic(), ASK_LIMIT, 1.0, "the answer")


def test_a_node_that_is_told_to_end_while_it_asks_has_ended_before_it_would_have_had_its_answer(ros_domain):
    """Else it would go on to load its policy, with the signal waiting for that."""
    with (
        RosPeer() as peer,
        NodeProcess("vla_node") as dead,
        NodeProcess("vla_node", {"model.checkpoint": "/nowhere"}) as node,
    ):
        wait_until(lambda: peer.node.get_node_names().count("dysl_vla") >= 2, LIMIT, "both nodes")
        dead.process.send_signal(signal.SIGKILL)
        dead.wait(LIMIT)

        asked = threading.Event()

        def configure():
            """Until the node knows the dead one, it asks nobody and is refused at once for its checkpoint."""
            with contextlib.suppress(AssertionError):  # nobody answers: the node ends
                while not asked.is_set():
                    peer.change_state("/dysl_vla", "configure", LIMIT)

        asking = threading.Thread(target=configure)
        asking.start()

        def configuring() -> bool:
            return peer.state("/dysl_vla", LIMIT) == "configuring"

        # for longer than a configure that asks nobody takes
        wait_until(lambda: configuring() and wait_steadily(0.3) and configuring(), LIMIT, "the question")
        asked.set()
        assert node.stop(signal.SIGINT, ASK_LIMIT - 1.0) == 0
        assert "configure was broken off" in node.output, node.output
        asking.join(2 * LIMIT)
