"""What we use of rclpy that it does not promise: all of it is here, and nothing of it anywhere else.

Checked by running with rclpy 7.1.6 (Jazzy) and 9.1.2 (Kilted), and by reading with 7.1.9 and rolling of autumn 2026:
test_rclpy_private holds that each name is there and that no other file says one.

- ``Node._parameter_overrides``: what parameter files and the command line give, before it is declared;
- ``LifecycleNodeMixin._state_machine`` and all that it has: replaced by one that announces each transition;
- ``Executor._take_service``, and ``service_take_request`` of ``Service.handle``: taking several requests at once;
- ``send_request`` and ``take_response`` of ``Client.handle``, ``take_message`` of ``Subscription.handle``: asking, and
  taking what has come, without anybody who spins.
"""

import functools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import State, Transition, TransitionDescription, TransitionEvent
from rclpy.executors import Executor
from rclpy.lifecycle import LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.time import Time

EVENTS = 10  # transition events that may wait for a subscriber, as rcl has it

# Number, label, start state, its label, goal state, its label: a transition, as rclpy gives it.
Described = tuple[int, str, int, str, int, str]
Taken = Callable[[], Any] | None  # what answers the requests that were taken; none where there are none


def given_parameters(node: Node) -> "dict[str, Parameter[Any]]":
    """Return what parameter files and the command line give for this node, by name, declared or not."""
    return node._parameter_overrides


class StateMachine:
    """rclpy's state machine of a lifecycle node; each transition is published on ``~/transition_event``, as rcl would.

    Args:
        node: whose machine it is from now on; its ``trigger_*`` go through it. It must be both.
    """

    def __init__(self, node: Any) -> None:
        assert isinstance(node, Node) and isinstance(node, LifecycleNodeMixin)
        self._node = node
        self._machine: Any = node._state_machine
        self._events = node.create_publisher(TransitionEvent, "~/transition_event", EVENTS)
        node._state_machine = self

    @property
    def state(self) -> tuple[int, str]:
        """Number and label of the state that it is in."""
        number, label = self._machine.current_state
        return number, label

    @property
    def states(self) -> list[tuple[int, str]]:
        """Number and label of every state that there is."""
        return list(self._machine.available_states)

    @property
    def transitions(self) -> list[Described]:
        """The transitions that are possible now."""
        return list(self._machine.available_transitions)

    @property
    def graph(self) -> list[Described]:
        """The transitions that are possible in some state."""
        return list(self._machine.transition_graph)

    def end_with(self, outcome: TransitionCallbackReturn) -> None:
        """End the transition that runs as one whose callback returned ``outcome``."""
        self.trigger_transition_by_label(outcome.to_label(), True)

    # -- for rclpy, which looks here for its own machine -----------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine, name)

    def trigger_transition_by_id(self, number: int, publish: bool, *more: Any) -> None:
        """Begin or end the transition of that number."""
        known = [each for each in self.transitions if each[0] == number]
        self._machine.trigger_transition_by_id(number, False, *more)
        self._announce(known)

    def trigger_transition_by_label(self, label: str, publish: bool, *more: Any) -> None:
        """Begin or end the transition of that label."""
        known = [each for each in self.transitions if each[1] == label]
        self._machine.trigger_transition_by_label(label, False, *more)
        self._announce(known)

    def _announce(self, known: list[Described]) -> None:
        """Publish what has happened. It has: where that cannot be told, the transition goes on all the same."""
        try:
            self._publish(known)
        except Exception as error:
            self._node.get_logger().error(f"~/transition_event was not published: {error!r}")

    def _publish(self, known: list[Described]) -> None:
        for each in known[:1]:
            event = stamped(TransitionEvent(), self._node.get_clock().now())
            told = description(each)
            event.transition, event.start_state, event.goal_state = told.transition, told.start_state, told.goal_state
            self._events.publish(event)


def description(each: Described) -> TransitionDescription:
    """Return a transition as a message."""
    number, label, start, start_label, goal, goal_label = each
    return TransitionDescription(
        transition=Transition(id=number, label=label),
        start_state=State(id=start, label=start_label),
        goal_state=State(id=goal, label=goal_label),
    )


def stamped(message: Any, time: Time) -> Any:
    """Set a message's time: ``timestamp``, in nanoseconds, of a TransitionEvent until Kilted is ``stamp`` after it."""
    if "stamp" in message.get_fields_and_field_types():
        message.stamp = time.to_msg()
    else:
        message.timestamp = time.nanoseconds
    return message


class ServiceTaker(Executor):
    """An executor whose subclass decides how the requests of a service are taken."""

    @abstractmethod
    def take(self, service: Any, take_one: Callable[[], Taken]) -> Taken:
        """Take requests that wait for a service; ``take_one`` is rclpy's own way."""

    def _take_service(self, service: Any) -> Taken:
        return self.take(service, functools.partial(super()._take_service, service))


def take_requests(service: Any, limit: int) -> list[tuple[Any, Any]]:
    """Take what waits for a service, at most so many: (request, header) each, header None after the last one.

    Raises:
        InvalidHandle: the service was destroyed.
    """
    with service.handle:
        taken = [service.handle.service_take_request(service.srv_type.Request)]
        while taken[-1][1] is not None and len(taken) < limit:
            taken.append(service.handle.service_take_request(service.srv_type.Request))
    return taken


def send_request(client: Any, request: Any) -> int:
    """Send a request of a client that nobody spins; return its number."""
    with client.handle:
        return int(client.handle.send_request(request))


def take_response(client: Any) -> tuple[int, Any] | None:
    """Take an answer of a client that nobody spins, with its request's number; None where none has come."""
    with client.handle:
        header, response = client.handle.take_response(client.srv_type.Response)
    return None if header is None else (header.request_id.sequence_number, response)


def take_message(subscription: Any) -> Any:
    """Take a message of a subscription that nobody spins; None where none has come."""
    with subscription.handle:
        taken = subscription.handle.take_message(subscription.msg_type, False)
    return None if taken is None else taken[0]
