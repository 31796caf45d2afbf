"""What is a fault of a callback, and what is not; what is refused, and what waits for its turn."""

import logging
import threading

import pytest

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy")

from lifecycle_msgs.msg import Transition  # noqa: E402
from rclpy.context import Context  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from dysl_vla_ros.nodes.lifecycle_guard import GuardedLifecycleNode  # noqa: E402
from dysl_vla_ros.nodes.python_log import on_ros_log  # noqa: E402


@pytest.fixture
def node(ros_domain):
    context = Context()
    context.init([], initialize_logging=False)
    node = GuardedLifecycleNode("guarded", context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


@pytest.mark.parametrize("ending", [False, True])
def test_a_callback_that_finds_its_publisher_gone_is_at_fault_unless_the_node_ends(node, ending):
    publisher = node.create_publisher(String, "said", 1)
    node.destroy_publisher(publisher)
    node.ending = ending
    node.guarded("speech")(lambda: publisher.publish(String()))()
    assert node.faults == ({} if ending else {"speech": 1})
    node.guarded("sum")(lambda: 1 / 0)()
    assert node.faults["sum"] == 1, "any other fault stays one"


def test_who_has_seen_a_primary_state_gets_his_transition_though_what_led_there_is_about_to_end(node):
    assert node.transition_running.acquire(blocking=False)  # as a transition does, a moment longer than its state says
    ending = threading.Timer(0.05, node.transition_running.release)
    ending.start()
    assert node._change_state("configure") and node.state == "inactive"
    ending.join()


def test_a_transition_is_known_by_number_and_label_and_refused_by_any_other(node):
    for unknown in (0, -1, "", "configured", "activate"):
        assert not node._change_state(unknown) and node.state == "unconfigured"
    assert node._change_state(Transition.TRANSITION_CONFIGURE) and node.state == "inactive"
    assert node._change_state("activate") and node.state == "active"


def test_a_transition_that_cannot_even_begin_leaves_active_by_the_error_path(node, monkeypatch):
    assert node._change_state("configure") and node._change_state("activate")

    def fail():
        raise RuntimeError("out of order")

    monkeypatch.setattr(node, "_triggers", fail)
    assert not node._change_state("deactivate") and node.failing


def test_what_is_logged_without_rclpy_and_what_ends_a_thread_is_an_error_in_the_nodes_log():
    told = []

    class Log:
        error = warning = told.append

    with on_ros_log(Log()):
        logging.getLogger("dysl_vla.worker").error("gone")
        thread = threading.Thread(target=lambda: 1 / 0, name="listener")
        thread.start()
        thread.join()
    assert told[0] == "gone" and "'listener' has ended" in told[1] and "ZeroDivisionError" in told[1]
    logging.getLogger("dysl_vla.worker").error("behind it")
    assert len(told) == 2
