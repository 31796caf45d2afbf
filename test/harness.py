"""What tests share that start real nodes: waits with a limit, a DDS domain of our own, a peer node, processes.

Nothing here sleeps for a fixed time or tries again: a wait ends as soon as its condition holds, and fails with what it
waited for and what it saw last.
"""

import contextlib
import importlib
import os
import random
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple

from dysl_vla_ros.transport import CHOICES_OF_THE_USER, environment_for_images
from processes import NodeProcess, ProcessId, descendants, install_prefix, is_alive
from waiting import short, wait_until

__all__ = [
    "NodeProcess",
    "ProcessId",
    "Received",
    "RosPeer",
    "claimed_domain",
    "descendants",
    "install_prefix",
    "is_alive",
    "wait_until",
]

# Domains whose UDP ports (7400 + 250 * domain + ...) lie below Linux's ephemeral ports, which start at 32768.
DOMAINS = range(1, 102)


@contextlib.contextmanager
def claimed_domain() -> Iterator[int]:
    """Choose a random DDS domain that no other test run on this machine has, and set this process's ROS variables.

    The claim is an abstract socket: the kernel gives it back however this process ends.
    """
    before = dict(os.environ)
    untouched = {name: value for name, value in before.items() if name not in CHOICES_OF_THE_USER}
    variables = environment_for_images(untouched) | {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    variables.pop("ROS_LOCALHOST_ONLY", None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        for domain in random.sample(DOMAINS, len(DOMAINS)):
            with contextlib.suppress(OSError):
                claim.bind(f"\0dysl_vla_ros_test_domain_{domain}")
                break
        else:
            raise AssertionError(f"every DDS domain from {DOMAINS[0]} to {DOMAINS[-1]} is claimed by a test run")
        _replace_environment(variables | {"ROS_DOMAIN_ID": str(domain)})
        try:
            yield domain
        finally:
            _replace_environment(before)


def _replace_environment(variables: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


class Received(NamedTuple):
    """A message, when it arrived and when it was published."""

    message: Any
    arrival: float  # s, time.monotonic()
    published: int  # ns, time.time_ns() of its publisher's process


class RosPeer:
    """A node in this process, with a context of its own, that records topics and calls services.

    Callbacks run in its own thread; every method may be called from the test's thread. Use it in a ``with`` block or
    through the fixture ``peer``.
    """

    def __init__(self, name: str = "", **node_options: Any) -> None:
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node

        self._context = Context()
        self._context.init([], initialize_logging=False)
        self.node = Node(name or f"peer_{uuid.uuid4().hex[:8]}", context=self._context, **node_options)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._changed = threading.Condition()
        self._received: dict[str, list[Received]] = {}
        self._publishers: dict[str, Any] = {}
        self._clients: dict[str, Any] = {}
        self._probes: list[Any] = []
        self._clients_lock = threading.Lock()
        self._closing = threading.Event()
        self._doomed: deque[tuple[Callable[[], Any], threading.Event]] = deque()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._spin, name="ros-peer", daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            while not self._closing.is_set():
                while self._doomed:
                    destroy, done = self._doomed.popleft()
                    destroy()
                    done.set()
                self._executor.spin_once(timeout_sec=0.1)
        except Exception as fault:  # shown by whichever wait or close comes next
            self._fault = fault

    def destroy(self, destroy: Callable[[Any], Any], entity: Any) -> None:
        """Destroy a publisher or client by the node's function for it, between two looks of the executor at them.

        Destroyed from another thread meanwhile, its handles end the executor or the whole process.
        """
        done = threading.Event()
        self._doomed.append((lambda: destroy(entity), done))
        self._executor.wake()
        assert done.wait(10.0), "the peer's executor did not come to it within 10 s"

    def listen(self, topic: str, message_type: type, qos: Any = 1000) -> None:
        """Record every message of ``topic`` from now on (``qos``: a profile, or a depth with reliable delivery)."""
        self._received.setdefault(topic, [])
        self.node.create_subscription(
            message_type, topic, lambda message, info: self._record(topic, message, info), qos
        )
        self._executor.wake()

    def _record(self, topic: str, message: Any, info: Any) -> None:
        arrival = time.monotonic()
        with self._changed:
            self._received[topic].append(Received(message, arrival, info["source_timestamp"]))
            self._changed.notify_all()

    def records(self, topic: str) -> list[Received]:
        """Return the messages of ``topic`` so far, each with its time of arrival."""
        with self._changed:
            return list(self._received[topic])

    def received(self, topic: str) -> list[Any]:
        """Return the messages of ``topic`` so far, oldest first."""
        return [record.message for record in self.records(topic)]

    def wait_for(
        self, topic: str, predicate: Callable[[Any], bool] | None, limit: float, what: str, after: int = 0
    ) -> Any:
        """Return the first message of ``topic`` that fits (None: any), not looking at the first ``after`` ones."""
        deadline = time.monotonic() + limit
        with self._changed:
            looked_at = after
            while True:
                messages = self._received[topic]
                fitting = (r.message for r in messages[looked_at:] if predicate is None or predicate(r.message))
                if (found := next(fitting, None)) is not None:
                    return found
                looked_at = max(looked_at, len(messages))
                left = deadline - time.monotonic()
                if left <= 0 or self._fault:
                    last = short(messages[-1].message) if messages else "nothing"
                    raise AssertionError(
                        f"waited {limit:g} s for {what} on {topic}; {len(messages)} messages, last seen: {last}"
                    ) from self._fault
                self._changed.wait(left)

    def publish(self, topic: str, message: Any, qos: Any = 10) -> None:
        """Publish on ``topic``; the publisher is made at the first call, with that call's ``qos``."""
        self.publisher(topic, type(message), qos).publish(message)

    def publisher(self, topic: str, message_type: type, qos: Any = 10) -> Any:
        """Return this peer's publisher of ``topic``, made at the first call."""
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(message_type, topic, qos)
        return self._publishers[topic]

    def wait_for_subscriber(self, topic: str, limit: float, count: int = 1) -> None:
        """Wait until this peer's publisher of ``topic`` is matched with ``count`` subscriptions."""
        wait_until(
            lambda: self._publishers[topic].get_subscription_count() >= count, limit, f"{count} subscriber of {topic}"
        )

    def wait_for_publisher(self, topic: str, limit: float, count: int = 1) -> None:
        """Wait until ``count`` publishers of ``topic`` are known here."""
        wait_until(lambda: self.node.count_publishers(topic) >= count, limit, f"{count} publisher of {topic}")

    def call(self, service: str, request: Any, limit: float) -> Any:
        """Call ``service`` with ``request`` (``Trigger.Request()``) and return the response; fail after ``limit`` s.

        One client a service is kept. A server drops its answer to a client that it has not discovered yet, so the first
        call waits until the server's node must have: see :meth:`_wait_until_known`.
        """
        deadline = time.monotonic() + limit
        module, name = type(request).__module__.rpartition(".")[0], type(request).__name__.removesuffix("_Request")
        with self._clients_lock:
            client = self._clients.get(service)
            if client is None:
                client = self.node.create_client(getattr(importlib.import_module(module), name), service)
                wait_until(client.service_is_ready, limit, f"the service {service}")
                self._wait_until_known(service.rpartition("/")[0], deadline)
                self._clients[service] = client
        wait_until(client.service_is_ready, max(deadline - time.monotonic(), 0.0), f"the service {service}")
        answer = self._answer(client, request, deadline - time.monotonic())
        if answer is None:
            raise AssertionError(f"{service} did not answer within {limit:g} s") from self._fault
        return answer

    def _answer(self, client: Any, request: Any, limit: float) -> Any:
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        if answered.wait(max(limit, 0.0)):
            return future.result()
        client.remove_pending_request(future)
        return None

    def _wait_until_known(self, node: str, deadline: float) -> None:
        """Wait until ``node`` has discovered every client made here so far.

        DDS announces them in the order in which they were made: a node that answers a question which changes nothing,
        through a client that was made last, knows the ones before it as well. The question is put again until then.
        """
        from rcl_interfaces.srv import ListParameters

        service = f"{node}/list_parameters"
        probe = self.node.create_client(ListParameters, service)
        self._probes.append(probe)  # kept: destroying a client under a spinning executor is a race in rclpy
        wait_until(probe.service_is_ready, max(deadline - time.monotonic(), 0.0), f"the service {service}")
        request = ListParameters.Request()
        request.prefixes = ["none of this name"]
        wait_until(
            lambda: self._answer(probe, request, 0.5), max(deadline - time.monotonic(), 0.0), f"an answer of {service}"
        )

    def change_state(self, node: str, transition: str, limit: float) -> bool:
        """Ask the lifecycle node for ``configure``, ``activate``, ``deactivate``, ``cleanup`` or ``shutdown``."""
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request()
        request.transition.label = transition
        return bool(self.call(f"{node}/change_state", request, limit).success)

    def state(self, node: str, limit: float) -> str:
        """Return the lifecycle node's state: ``unconfigured``, ``inactive``, ``active``, ``configuring``, ..."""
        from lifecycle_msgs.srv import GetState

        return str(self.call(f"{node}/get_state", GetState.Request(), limit).current_state.label)

    def set_parameters(
        self, node: str, values: Mapping[str, Any], limit: float, atomically: bool = False
    ) -> tuple[bool, str]:
        """Set parameters; return whether all were taken, and the reasons given."""
        from rcl_interfaces.srv import SetParameters, SetParametersAtomically
        from rclpy.parameter import Parameter

        messages = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        if atomically:
            answer = self.call(
                f"{node}/set_parameters_atomically", SetParametersAtomically.Request(parameters=messages), limit
            )
            results = [answer.result]
        else:
            results = self.call(f"{node}/set_parameters", SetParameters.Request(parameters=messages), limit).results
        return all(result.successful for result in results), "; ".join(r.reason for r in results if r.reason)

    def get_parameter(self, node: str, name: str, limit: float) -> Any:
        """Return the value of one parameter of another node."""
        from rcl_interfaces.srv import GetParameters
        from rclpy.parameter import parameter_value_to_python

        return parameter_value_to_python(
            self.call(f"{node}/get_parameters", GetParameters.Request(names=[name]), limit).values[0]
        )

    def close(self) -> None:
        """Leave the graph. Idempotent; a fault in a callback that no wait has shown comes out here."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._executor.wake()
        self._thread.join(10.0)
        assert not self._thread.is_alive(), "the peer's executor did not return within 10 s"
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()
        if self._fault:
            raise AssertionError("a callback of the peer failed") from self._fault

    def __enter__(self) -> "RosPeer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
