"""What is a fault of a callback, and what is not."""

import pytest

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy")

from rclpy.context import Context  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from dysl_vla_ros.nodes.lifecycle_guard import GuardedLifecycleNode  # noqa: E402


@pytest.mark.parametrize("ending", [False, True])
def test_a_callback_that_finds_its_publisher_gone_is_at_fault_unless_the_node_ends(ros_domain, ending):
    context = Context()
    context.init([], initialize_logging=False)
    node = GuardedLifecycleNode("guarded", context=context)
    try:
        publisher = node.create_publisher(String, "said", 1)
        node.destroy_publisher(publisher)
        node.ending = ending
        node.guarded("speech")(lambda: publisher.publish(String()))()
        assert node.faults == ({} if ending else {"speech": 1})
        node.guarded("sum")(lambda: 1 / 0)()
        assert node.faults["sum"] == 1, "any other fault stays one"
    finally:
        node.destroy_node()
        context.try_shutdown()
