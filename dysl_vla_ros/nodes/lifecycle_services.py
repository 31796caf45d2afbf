"""The services of a lifecycle node, as rclpy makes them but for the length of their queues.

rclpy (9.1.2, 7.1.6) has them made by rcl with a queue of 10 that nothing can change: of 20 transitions asked for at
once, 8 were never answered. Here they are made like any other service. Interfaces: lifecycle_msgs; behaviour: the ROS 2
design article "Managed nodes".
"""

from collections.abc import Callable

from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions, GetState
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from dysl_vla_ros.rclpy_private import StateMachine, description

# rclpy's default is 10: what comes in at once beyond that is dropped, and its client waits for ever.
DEEP = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)


class LifecycleServices:
    """What ``ros2 lifecycle``, launch and lifecycle managers speak to.

    Args:
        node: serves them, under the names ``~/change_state`` and so on.
        machine: the node's.
        change: carries a transition out, named by its number or label; false where it is not possible now or has
            failed.
    """

    def __init__(self, node: Node, machine: StateMachine, change: Callable[[int | str], bool]) -> None:
        """Create them; all are answered while a transition runs."""
        self._machine, self._change = machine, change
        for kind, name, answer in (
            (ChangeState, "change_state", self._on_change_state),
            (GetState, "get_state", self._on_get_state),
            (GetAvailableStates, "get_available_states", self._on_get_available_states),
            (GetAvailableTransitions, "get_available_transitions", self._on_get_available_transitions),
            (GetAvailableTransitions, "get_transition_graph", self._on_get_transition_graph),
        ):
            group = ReentrantCallbackGroup() if kind is ChangeState else MutuallyExclusiveCallbackGroup()
            node.create_service(kind, f"~/{name}", answer, qos_profile=DEEP, callback_group=group)

    def _on_change_state(self, request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        wanted = request.transition  # a label, where one is given, counts before the number
        response.success = self._change(wanted.label or wanted.id)
        return response

    def _on_get_state(self, request: GetState.Request, response: GetState.Response) -> GetState.Response:
        number, label = self._machine.state
        response.current_state = State(id=number, label=label)
        return response

    def _on_get_available_states(
        self, request: GetAvailableStates.Request, response: GetAvailableStates.Response
    ) -> GetAvailableStates.Response:
        response.available_states = [State(id=number, label=label) for number, label in self._machine.states]
        return response

    def _on_get_available_transitions(
        self, request: GetAvailableTransitions.Request, response: GetAvailableTransitions.Response
    ) -> GetAvailableTransitions.Response:
        response.available_transitions = [description(each) for each in self._machine.transitions]
        return response

    def _on_get_transition_graph(
        self, request: GetAvailableTransitions.Request, response: GetAvailableTransitions.Response
    ) -> GetAvailableTransitions.Response:
        response.available_transitions = [description(each) for each in self._machine.graph]
        return response
