"""Talks to one lifecycle node without a thread and without a wait: questions are sent, answers are taken if any came.

Has an rclpy context of its own: that of launch_ros is shut down at a moment of its choosing, under those who use it.
"""

import os

from lifecycle_msgs.msg import TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.context import Context
from rclpy.node import Node

from dysl_vla_ros.rclpy_private import send_request, take_message, take_response

EVENTS = 10  # depth of the queue of transitions, as launch_ros has it; a node goes through fewer between two looks


class LifecycleLink:
    """The launch's side of one lifecycle node's services and transitions; nothing in here blocks.

    Args:
        node: its fully qualified name.
    """

    def __init__(self, node: str) -> None:
        self._context = Context()
        self._context.init([], initialize_logging=False)
        # of a name that `ros2 node list` does not show, like that of its own daemon
        self._own = Node(
            f"_launch_{node.rpartition('/')[2]}_{os.getpid()}",
            context=self._context,
            enable_rosout=False,
            start_parameter_services=False,
            use_global_arguments=False,
        )
        # First the subscription: DDS announces in this order, and who answers us then knows of it.
        self._events = self._own.create_subscription(TransitionEvent, f"{node}/transition_event", _never, EVENTS)
        self._change_state = self._own.create_client(ChangeState, f"{node}/change_state")
        self._get_state = self._own.create_client(GetState, f"{node}/get_state")
        self._asked: set[int] = set()  # numbers of the questions for the state whose answers count

    def ask_for_state(self) -> None:
        """Ask which state the node is in; see :meth:`state`."""
        if self._get_state.service_is_ready():
            self._asked.add(send_request(self._get_state, GetState.Request()))

    def forget_questions(self) -> None:
        """Let no answer to an earlier question count: it was another process's."""
        self._asked.clear()

    def state(self) -> str:
        """Return the state's label if an answer has come, else ""."""
        label = ""
        while (answer := take_response(self._get_state)) is not None:
            if answer[0] in self._asked:
                label = str(answer[1].current_state.label)
        return label

    def ask_for(self, transition: int) -> bool:
        """Ask for a transition; returns whether there was somebody to ask. How it went: :meth:`transitions`."""
        if not self._change_state.service_is_ready():
            return False
        request = ChangeState.Request()
        request.transition.id = transition
        send_request(self._change_state, request)
        return True

    def refused(self) -> bool:
        """Return whether an answer has come that a transition failed, or was not even tried."""
        refused = False
        while (answer := take_response(self._change_state)) is not None:
            refused = refused or not answer[1].success
        return refused

    def transitions(self) -> list[tuple[str, str]]:
        """Return the transitions since the last call, oldest first: labels of the states before and after each."""
        found = []
        while (event := take_message(self._events)) is not None:
            found.append((str(event.start_state.label), str(event.goal_state.label)))
        return found

    def close(self) -> None:
        """Leave the graph."""
        self._own.destroy_node()
        self._context.try_shutdown()


def _never(message: TransitionEvent) -> None:
    """Stand for a callback: nobody spins this node."""
