"""The executor hands each callback to a thread once, runs callbacks side by side, and raises what they raise."""

import threading

import pytest

from waiting import wait_until

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy")

LIMIT = 20.0  # s


@pytest.fixture
def spinning(ros_domain):
    """A node in a PatientExecutor; gives both and a function that starts to spin."""
    from rclpy.context import Context
    from rclpy.node import Node

    from dysl_vla_ros.nodes.executor import PatientExecutor

    context = Context()
    context.init([], initialize_logging=False)
    node = Node("patient", context=context)
    executor = PatientExecutor(num_threads=4, context=context)
    executor.add_node(node)
    raised = []

    def spin():
        try:
            executor.spin()
        except ValueError as error:
            raised.append(error)

    spinner = threading.Thread(target=spin)
    yield node, executor, spinner.start, raised
    executor.shutdown(LIMIT)
    if spinner.ident:
        spinner.join(LIMIT)
    node.destroy_node()
    context.try_shutdown()


def test_a_callback_is_handed_to_a_thread_once(spinning):
    node, executor, start, _ = spinning
    ran, handed = [], []
    submit = executor._pool.submit

    def count(task):
        handed.append(task)
        return submit(task)

    executor._pool.submit = count
    node.create_timer(0.005, lambda: ran.append(1))
    start()
    wait_until(lambda: len(ran) >= 100, LIMIT, "100 calls of a timer")
    # rclpy's own executor hands each of them over several times; a few belong to the node's own entities
    assert len(handed) <= 1.5 * len(ran)


def test_a_callback_that_blocks_does_not_keep_another_one_waiting(spinning):
    from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

    node, _, start, _ = spinning
    blocked, release, ran = threading.Event(), threading.Event(), []

    def block():
        blocked.set()
        release.wait(LIMIT)

    node.create_timer(0.01, block, callback_group=MutuallyExclusiveCallbackGroup())
    node.create_timer(0.01, lambda: ran.append(blocked.is_set()), callback_group=MutuallyExclusiveCallbackGroup())
    start()
    try:
        wait_until(lambda: sum(ran) >= 10, LIMIT, "10 calls beside a blocked one")
    finally:
        release.set()


def test_what_a_callback_raises_comes_out_of_spin(spinning):
    node, _, start, raised = spinning

    def fail():
        raise ValueError("on purpose")

    node.create_timer(0.01, fail)
    start()
    wait_until(lambda: raised, LIMIT, "the callback's error out of spin")
    assert str(raised[0]) == "on purpose"


def test_a_callback_that_finds_its_entity_destroyed_ends_nothing(spinning):
    from rclpy.exceptions import InvalidHandle

    node, executor, start, _ = spinning
    ran = []

    def destroyed():
        ran.append(1)
        raise InvalidHandle("destruction was requested")

    node.create_timer(0.01, destroyed)
    start()
    wait_until(lambda: len(ran) >= 20, LIMIT, "20 calls of a timer that finds its entity destroyed")
    assert len(executor._handed_out) < 10, "what has ended is not kept"


def test_shutdown_waits_no_longer_than_it_is_told_for_a_callback_that_blocks(spinning):
    node, executor, start, _ = spinning
    blocked, release = threading.Event(), threading.Event()

    def block():
        blocked.set()
        release.wait(LIMIT)

    node.create_timer(0.01, block)
    start()
    assert blocked.wait(LIMIT)
    try:
        assert not executor.shutdown(0.05) and not release.is_set()
    finally:
        release.set()
    assert executor.shutdown(LIMIT), "once it has ended"
