"""The services and the topic of a lifecycle node, as rclpy makes them but for the length of their queues.

rclpy (9.1.2, 7.1.6) has them made by rcl with a queue of 10 that nothing can change: of 20 transitions asked for at
once, 8 were never answered. Here they are made like any other service. Interfaces: lifecycle_msgs; behaviour: the ROS 2
design article "Managed nodes".
"""

from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import State, Transition, TransitionDescription, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions, GetState
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.node import Node

from dysl_vla_ros.nodes.service_queue import DEEP

EVENTS = 10  # transition events that may wait for a subscriber, as rcl has it


class LifecycleServices:
    """What ``ros2 lifecycle``, launch and lifecycle managers speak to.

    Args:
        node: serves them, under the names ``~/change_state`` and so on.
        machine: rclpy's state machine of the node.
        change: carries a transition out, named by its number; false where it is not possible now or has failed.
    """

    def __init__(self, node: Node, machine: Any, change: Callable[[int], bool]) -> None:
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
        possible = {label: number for number, label, *_ in self._machine.available_transitions}
        number = possible.get(wanted.label, -1) if wanted.label else wanted.id
        response.success = self._change(number)
        return response

    def _on_get_state(self, request: GetState.Request, response: GetState.Response) -> GetState.Response:
        number, label = self._machine.current_state
        response.current_state = State(id=number, label=label)
        return response

    def _on_get_available_states(
        self, request: GetAvailableStates.Request, response: GetAvailableStates.Response
    ) -> GetAvailableStates.Response:
        response.available_states = [State(id=number, label=label) for number, label in self._machine.available_states]
        return response

    def _on_get_available_transitions(
        self, request: GetAvailableTransitions.Request, response: GetAvailableTransitions.Response
    ) -> GetAvailableTransitions.Response:
        response.available_transitions = [description(each) for each in self._machine.available_transitions]
        return response

    def _on_get_transition_graph(
        self, request: GetAvailableTransitions.Request, response: GetAvailableTransitions.Response
    ) -> GetAvailableTransitions.Response:
        response.available_transitions = [description(each) for each in self._machine.transition_graph]
        return response


class AnnouncedStateMachine:
    """rclpy's state machine; each transition is published on ``~/transition_event``, as rcl would."""

    def __init__(self, node: Node, machine: Any) -> None:
        self._node, self._machine = node, machine
        self._events = node.create_publisher(TransitionEvent, "~/transition_event", EVENTS)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine, name)

    def trigger_transition_by_id(self, number: int, publish: bool) -> None:
        """Begin or end the transition of that number."""
        known = [each for each in self._machine.available_transitions if each[0] == number]
        self._machine.trigger_transition_by_id(number, False)
        self._announce(known)

    def trigger_transition_by_label(self, label: str, publish: bool) -> None:
        """Begin or end the transition of that label."""
        known = [each for each in self._machine.available_transitions if each[1] == label]
        self._machine.trigger_transition_by_label(label, False)
        self._announce(known)

    def _announce(self, known: list[tuple[int, str, int, str, int, str]]) -> None:
        """Publish what has happened. It has: where that cannot be told, the transition goes on all the same."""
        try:
            self._publish(known)
        except Exception as error:
            self._node.get_logger().error(f"~/transition_event was not published: {error!r}")

    def _publish(self, known: list[tuple[int, str, int, str, int, str]]) -> None:
        for each in known[:1]:
            told = description(each)
            stamp = self._node.get_clock().now().nanoseconds
            self._events.publish(
                TransitionEvent(
                    timestamp=stamp,
                    transition=told.transition,
                    start_state=told.start_state,
                    goal_state=told.goal_state,
                )
            )


def description(each: tuple[int, str, int, str, int, str]) -> TransitionDescription:
    """Return rclpy's (number, label, start state, goal state) as a message."""
    number, label, start, start_label, goal, goal_label = each
    return TransitionDescription(
        transition=Transition(id=number, label=label),
        start_state=State(id=start, label=start_label),
        goal_state=State(id=goal, label=goal_label),
    )
