"""What other nodes on the graph do wrong on our topics: another type, QoS that does not match, commands of their own.

DDS says nothing of a publisher of another type, and of a QoS mismatch only that there is one: both are looked up in
the graph, with the other node's name. A node that died stays in the graph for about 20 s, and so do its faults.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile

# policy, and what turns its value into something that can be compared: an offer below what is asked does not match
POLICIES = {
    "reliability": lambda qos: _rank(qos.reliability, "BEST_EFFORT", "RELIABLE"),
    "durability": lambda qos: _rank(qos.durability, "VOLATILE", "TRANSIENT_LOCAL"),
    "deadline": lambda qos: -_seconds(qos.deadline),
    "liveliness": lambda qos: _rank(qos.liveliness, "AUTOMATIC", "MANUAL_BY_TOPIC"),
    "liveliness_lease_duration": lambda qos: -_seconds(qos.liveliness_lease_duration),
}
FOREVER = 1e9  # s; what an unset deadline or lease counts as
NOT_KNOWN_YET = "_NODE_NAME_UNKNOWN_"  # the name of a node whose topics were discovered before itself


class GraphWatch:
    """Looks at the other ends of a node's topics.

    Args:
        node: whose topics they are.
        subscriptions: its inputs; several of one topic: a publisher must match one of them.
        publishers: its outputs, the first one commands the arm.
        further: gives more that is odd about the inputs, at each look.
    """

    def __init__(
        self,
        node: Node,
        subscriptions: Sequence[Any],
        publishers: Sequence[Any],
        further: Callable[[], list[str]] = list,
    ) -> None:
        """Look at nothing yet."""
        self._node = node
        self._subscriptions, self._publishers = list(subscriptions), list(publishers)
        self._further = further
        self.inputs: list[str] = []  # as of the last look
        self.outputs: list[str] = []

    def look(self) -> list[str]:
        """Look at the graph and return every warning; do not hold a lock that a tick waits for."""
        self.inputs = list(dict.fromkeys([*self._faults_of_inputs(), *self._further()]))
        self.outputs = list(dict.fromkeys([*self._other_commanders(), *self._faults_of_outputs()]))
        return self.inputs + self.outputs

    def _faults_of_inputs(self) -> Iterator[str]:
        topics: dict[str, list[Any]] = {}
        for subscription in self._subscriptions:
            topics.setdefault(subscription.topic_name, []).append(subscription)
        for topic, ours in topics.items():
            wanted = type_name(ours[0].msg_type)
            for info in named(self._node.get_publishers_info_by_topic(topic)):
                if info.topic_type != wanted:
                    yield (
                        f"{topic}: {owner(info)} publishes {info.topic_type} there, {wanted} is wanted: remap one of "
                        f"the two{_transport_hint(info.topic_type)}"
                    )
                elif all(mismatches := [_mismatch(info.qos_profile, each.qos_profile) for each in ours]):
                    mismatch = min(mismatches, key=len)
                    yield f"{topic}: nothing is heard of {owner(info)}: {mismatch}; change its publisher's QoS"

    def _faults_of_outputs(self) -> Iterator[str]:
        for publisher in self._publishers:
            topic, offered = publisher.topic_name, type_name(publisher.msg_type)
            for info in named(self._node.get_subscriptions_info_by_topic(topic)):
                if info.topic_type != offered:
                    yield f"{topic}: {owner(info)} listens to {info.topic_type} there, {offered} is published: remap it"
                elif mismatch := _mismatch(publisher.qos_profile, info.qos_profile):
                    yield f"{topic}: {owner(info)} hears nothing: {mismatch}; change its subscription's QoS"

    def _other_commanders(self) -> Iterator[str]:
        topic, ours = self._publishers[0].topic_name, self._node.get_fully_qualified_name()
        names = [owner(info) for info in named(self._node.get_publishers_info_by_topic(topic))]
        others = {name for name in names if name != ours} | ({f"another {ours}"} if names.count(ours) > 1 else set())
        for other in sorted(others):
            yield f"{topic}: {other} publishes there as well: the arm would obey both; stop it, or remap one of the two"


def type_name(kind: type) -> str:
    """Return a message class's name as the graph has it: sensor_msgs/msg/Image."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def owner(info: Any) -> str:
    """Return the full name of the node that an endpoint of the graph belongs to."""
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def _transport_hint(found: str) -> str:
    hints = {
        "sensor_msgs/msg/CompressedImage": ", or set model.image_transport to 'compressed'",
        "sensor_msgs/msg/Image": ", or set model.image_transport to 'raw'",
    }
    return hints.get(found, "")


def named(infos: Sequence[Any]) -> list[Any]:
    """Return the endpoints whose node's name the graph knows by now."""
    return [info for info in infos if info.node_name != NOT_KNOWN_YET]


def _mismatch(offer: QoSProfile, asked: QoSProfile) -> str:
    """Name each policy that does not match, with both values; "" where all do.

    rclpy's ``qos_check_compatible`` takes an unset lease for a mismatch with the endless one that the graph shows.
    """
    return ", ".join(
        f"{policy} {_value(offer, policy)} is offered, {_value(asked, policy)} is asked for"
        for policy, rank in POLICIES.items()
        if rank(offer) < rank(asked)
    )


def _value(qos: QoSProfile, policy: str) -> str:
    value = getattr(qos, policy)
    if hasattr(value, "nanoseconds"):
        seconds = _seconds(value)
        return "none" if seconds >= FOREVER else f"{seconds:g} s"
    return str(value.name)


def _rank(value: Any, *names: str) -> int:
    return names.index(value.name) if value.name in names else 0


def _seconds(duration: Any) -> float:
    nanoseconds = float(duration.nanoseconds)
    return min(nanoseconds * 1e-9, FOREVER) if nanoseconds > 0.0 else FOREVER  # 0: not set
