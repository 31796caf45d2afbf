"""The monitor's own node: subscriptions to one VLA node, and a look at the graph while that node is not heard."""

import os
import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import TransitionEvent
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node, NodeNameNonExistentError
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import get_rmw_implementation_identifier

from dysl_vla_ros.monitor.kind import full_name, is_vla_node
from dysl_vla_ros.monitor.state import MonitorState, Surroundings
from dysl_vla_ros.msg import EndEffectorAction, JointAction, PoseAction, SkipReport

EVERY_ONE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
WITHOUT_LOG_FILE = ["--ros-args", "--disable-external-lib-logs"]  # nothing is logged; a file would need a home
GRAPH_PERIOD = 1.0  # s between two looks at the graph


class Listener:
    """Fills a :class:`MonitorState`. Use it in a ``with`` block; callbacks run in :meth:`spin_until` alone."""

    def __init__(self, state: MonitorState) -> None:
        """Listen to the node that ``state`` names; nothing is subscribed before the ``with`` block begins."""
        self.state = state
        self._looked = -GRAPH_PERIOD

    def __enter__(self) -> "Listener":
        self._context = rclpy.Context()
        rclpy.init(args=WITHOUT_LOG_FILE, context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node(
            "dysl_vla_monitor", context=self._context, enable_rosout=False, start_parameter_services=False
        )
        state, name = self.state, self.state.node
        for kind, topic, hear in (
            (SkipReport, f"{name}/skip_report", state.hear_report),
            (EndEffectorAction, f"{name}/action", state.hear_action),
            (JointAction, f"{name}/joint_action", state.hear_action),
            (PoseAction, f"{name}/pose_action", state.hear_action),
            (TransitionEvent, f"{name}/transition_event", state.hear_transition),
            (DiagnosticArray, "/diagnostics", state.hear_diagnostics),
        ):
            self._node.create_subscription(
                kind, topic, lambda message, hear=hear: hear(message, time.monotonic()), EVERY_ONE
            )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        return self

    def __exit__(self, *details: object) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def spin_until(self, deadline: float) -> None:
        """Take in messages until ``deadline`` (time.monotonic()); look at the graph where the node is not heard."""
        while (left := deadline - time.monotonic()) > 0.0:
            self._executor.spin_once(timeout_sec=left)
        now = time.monotonic()
        lost = not self.state.heard or self.state.silent(now)
        if lost and now - self._looked >= GRAPH_PERIOD:
            self._looked = now
            self.state.surroundings = self._surroundings()

    def _surroundings(self) -> Surroundings:
        names = {
            full_name(name, namespace): (name, namespace)
            for name, namespace in self._node.get_node_names_and_namespaces()
        }
        others = [full for full, place in names.items() if full != self.state.node and self._is_vla_node(full, *place)]
        return Surroundings(
            domain=os.environ.get("ROS_DOMAIN_ID") or "0",
            discovery=os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") or "SUBNET",
            rmw=get_rmw_implementation_identifier(),
            others=tuple(sorted(others)),
            on_graph=self.state.node in names,
        )

    def _is_vla_node(self, full: str, name: str, namespace: str) -> bool:
        try:
            topics = self._node.get_publisher_names_and_types_by_node(name, namespace)
            services = dict(self._node.get_service_names_and_types_by_node(name, namespace))
        except NodeNameNonExistentError:  # it went while we looked
            return False
        return is_vla_node(full, topics, services)


def node_name(given: str) -> str:
    """Return a node's full name as the graph has it: ``dysl_vla`` becomes ``/dysl_vla``."""
    return "/" + given.strip("/")
