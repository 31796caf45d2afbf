"""Whether another living node has our name: two of them would command one arm, and answer each other's services.

The graph alone does not tell: a node that died stays in it for about 20 s, as the one that this node replaces. So
``get_state`` is asked, which both answer: a second answer to one question, or the state of a node that is not
configuring, is the other one's.
"""

import threading
import time
from collections.abc import Callable

from lifecycle_msgs.srv import GetState
from rclpy.node import Node

from dysl_vla_ros.rclpy_private import take_response

ASK_LIMIT = 4.0  # s; DDS introduces a new client to a server in far less, but repeats what got lost of it after 3 s
ASK_PERIOD = 0.1  # s; a server drops its answer to a client that it does not know yet, so the question is repeated
TAKE_PERIOD = 0.01  # s


def living_namesake(node: Node, own_state: str, ending: Callable[[], bool] = lambda: False) -> str:
    """Return what gives away another living node of ``node``'s fully qualified name, or "".

    Takes no time where the graph has no second node of that name, else up to ``ASK_LIMIT``.

    Args:
        node: it must be spinning in another thread.
        own_state: label of its lifecycle state during this call.
        ending: whether nobody wants to know any more; the answer is "" then.
    """
    name = node.get_fully_qualified_name()
    names = [f"{space.rstrip('/')}/{each}" for each, space in node.get_node_names_and_namespaces()]
    if names.count(name) < 2:
        return ""
    # a node of its own that nobody spins: the answers are taken here, all of them
    asking = Node(
        f"{node.get_name()}_namesake_probe",
        namespace=node.get_namespace(),
        context=node.context,
        enable_rosout=False,
        start_parameter_services=False,
        use_global_arguments=False,
    )
    try:
        client = asking.create_client(GetState, f"{name}/get_state")
        answers: dict[int, int] = {}
        end, next_question = time.monotonic() + ASK_LIMIT, 0.0
        while time.monotonic() < end and not ending():
            if time.monotonic() >= next_question:
                client.call_async(GetState.Request())
                next_question = time.monotonic() + ASK_PERIOD
            threading.Event().wait(TAKE_PERIOD)
            answer = take_response(client)
            if answer is None:
                continue
            number, response = answer
            answers[number] = answers.get(number, 0) + 1
            state = response.current_state.label
            if state != own_state or answers[number] > 1:
                return f"another node {name} is on the graph, in the state {state}"
        return ""
    finally:
        asking.destroy_node()
