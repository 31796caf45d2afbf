"""What others do wrong on our topics is named: node, both types, policy and both values. Real nodes over real DDS."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from harness import RosPeer, wait_until

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy")

from geometry_msgs.msg import Twist, TwistStamped  # noqa: E402
from rclpy.duration import Duration  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from dysl_vla_ros.nodes.graph_watch import GraphWatch, type_name  # noqa: E402
from dysl_vla_ros.nodes.inputs import LATCHED, SENSOR, SPOKEN  # noqa: E402
from dysl_vla_ros.nodes.outputs import command_qos  # noqa: E402

LIMIT = 20.0


@pytest.fixture(scope="module")
def ours(ros_domain: int) -> Iterator[SimpleNamespace]:
    """A node with the inputs and outputs of the real one, and what watches it."""
    with RosPeer("arm") as peer:
        node = peer.node
        inputs = [
            node.create_subscription(kind, topic, lambda _: None, qos)
            for kind, topic, qos in ((Image, "image", SENSOR), (String, "instruction", SPOKEN))
        ]
        inputs.append(node.create_subscription(String, "instruction", lambda _: None, LATCHED))
        outputs = [node.create_publisher(TwistStamped, "~/twist", command_qos(20.0))]
        yield SimpleNamespace(node=node, watch=GraphWatch(node, inputs, outputs))


def wait_for(ours: SimpleNamespace, text: str) -> None:
    wait_until(lambda: any(text in told for told in ours.watch.look()), LIMIT, f"{text!r} in {ours.watch.look()}")


def test_a_graph_without_faults_gives_no_warning(ours):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    with RosPeer("robot") as robot:
        robot.publisher("image", Image, qos_profile_sensor_data)
        robot.publisher("instruction", String, latched)
        robot.node.create_subscription(TwistStamped, "/arm/twist", lambda _: None, qos_profile_sensor_data)
        for topic in ("image", "instruction"):
            wait_until(lambda topic=topic: ours.node.count_publishers(topic) == 1, LIMIT, topic)
        wait_until(lambda: ours.node.count_subscribers("/arm/twist") == 1, LIMIT, "the consumer")
        assert ours.watch.look() == []


def test_another_type_is_named_on_inputs_and_outputs(ours):
    with RosPeer("stranger", namespace="/lab") as stranger:
        stranger.publisher("/image", String)
        stranger.node.create_subscription(Twist, "/arm/twist", lambda _: None, 1)
        wait_for(ours, "/image: /lab/stranger publishes std_msgs/msg/String there, sensor_msgs/msg/Image is wanted")
        wait_for(
            ours, "listens to geometry_msgs/msg/Twist there, geometry_msgs/msg/TwistStamped is published: remap it"
        )


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
            "durability VOLATILE is offered, TRANSIENT_LOCAL is asked for",
        ),
        (QoSProfile(depth=1, deadline=Duration(seconds=0.02)), "deadline 0.1 s is offered, 0.02 s is asked for"),
    ],
)
def test_a_consumer_that_asks_for_more_than_we_offer_is_named_with_the_policy(ours, asked, told):
    with RosPeer("servo") as servo:
        servo.node.create_subscription(TwistStamped, "/arm/twist", lambda _: None, asked)
        wait_for(ours, f"/arm/twist: /servo hears nothing: {told}")


def test_a_best_effort_instruction_is_named_with_the_policy(ours):
    with RosPeer("mumbler") as mumbler:
        mumbler.publisher("instruction", String, QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
        wait_for(ours, "nothing is heard of /mumbler: reliability BEST_EFFORT is offered, RELIABLE is asked for")


def test_other_commanders_are_named_a_namesake_too(ours):
    with RosPeer("joystick") as other, RosPeer("arm") as namesake:
        other.publisher("/arm/twist", TwistStamped)
        namesake.publisher("/arm/twist", TwistStamped)
        wait_for(ours, "/arm/twist: /joystick publishes there as well: the arm would obey both")
        wait_for(ours, "/arm/twist: another /arm publishes there as well")


def test_types_are_called_what_the_graph_calls_them():
    assert type_name(Image) == "sensor_msgs/msg/Image"
