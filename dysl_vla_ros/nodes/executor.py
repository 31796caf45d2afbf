"""Executors in which services cannot take the time of what moves the arm.

rclpy's MultiThreadedExecutor (checked: 9.1.2) looks at everything of a node in one thread, one callback after the
other: under 800 parameter sets a second, ticks and cameras wait in a row of services. A node here is served in two
lanes, each with a spinning thread and a pool of its own: timers, subscriptions and the rest in one, services alone in
the other (:func:`lanes`). Python runs one thread at a time all the same. So requests that wait for one service are
answered in batches, which takes a third of the time that handing out each of them does, and after a batch its thread
rests for as long as the batch took: of the interpreter's time, services have half at most.

That executor also hands out a task again and again until a pool thread has begun it, holding the interpreter's lock
meanwhile, so that the pool thread begins late: two thirds of a core went into it. Waiting for the beginning ends that.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import (
    ConditionReachedException,
    ExternalShutdownException,
    MultiThreadedExecutor,
    ShutdownException,
    TimeoutException,
)
from rclpy.node import Node

BEGIN_LIMIT = 0.1  # s; longer only where every thread of the pool is busy, and then new work has to wait anyway
BATCH = 16  # requests of one service that are answered in a row; some milliseconds
LONGEST_REST = 0.02  # s
CONTROL = ("subscriptions", "timers", "clients", "guards", "waitables")
SERVICES = ("services",)
CONTROL_THREADS = 6  # the error path may block one for as long as a transition takes
SERVICE_THREADS = 6  # a transition may block one for model.load_timeout


class PatientExecutor(MultiThreadedExecutor):
    """A MultiThreadedExecutor that begins one callback after the other; they still run side by side.

    Args:
        num_threads: of the pool.
        kinds: what is served of each node, of :data:`CONTROL` and :data:`SERVICES`.
        context: rclpy's.
    """

    _futures: list[Any]  # rclpy's own: tasks that were handed to the pool

    def __init__(
        self, num_threads: int, kinds: Iterable[str] = (*CONTROL, *SERVICES), context: Context | None = None
    ) -> None:
        super().__init__(num_threads, context=context)
        self._kinds = frozenset(kinds)
        self._parts: dict[Node, _Part] = {}
        self._runs: list[Future[None]] = []  # of the tasks, in the pool

    def _spin_once_impl(self, timeout_sec: Any = None, wait_condition: Callable[[], bool] = lambda: False) -> None:
        parts = [self._parts.setdefault(node, _Part(node, self._kinds)) for node in self.get_nodes()]
        try:
            task, _, _ = self.wait_for_ready_callbacks(timeout_sec, parts, wait_condition)
        except (ConditionReachedException, ExternalShutdownException, ShutdownException, TimeoutException):
            return
        begun = threading.Event()

        def run() -> None:
            begun.set()
            try:
                task()
            except Exception:  # of the task itself, which keeps what its callback raises
                task()  # else nothing of its entity is ever handed out again
                raise

        self._runs.append(self._executor.submit(run))
        self._futures.append(task)
        begun.wait(BEGIN_LIMIT)
        ended = [each for each in (*self._futures, *self._runs) if each.done()]
        self._futures = [each for each in self._futures if each not in ended]
        self._runs = [each for each in self._runs if each not in ended]
        for each in ended:
            each.result()  # raises what the callback raised


class ServiceExecutor(PatientExecutor):
    """Serves the services of nodes that belong to another executor.

    A service in a reentrant callback group may take its time: each of its requests is answered in a thread of its own.
    """

    def __init__(self, num_threads: int, context: Context | None = None) -> None:
        super().__init__(num_threads, SERVICES, context)

    def add_node(self, node: Node) -> bool:
        """Serve a node's services; the node's executor, which it wakes when its entities change, stays another one."""
        with self._nodes_lock:
            self._nodes.add(node)
        self.wake()
        return True

    def _take_service(self, service: Any) -> Callable[[], Any] | None:
        if isinstance(service.callback_group, ReentrantCallbackGroup):
            answer_one: Callable[[], Any] | None = super()._take_service(service)
            return answer_one
        kind = service.srv_type
        try:
            with service.handle:
                taken = [service.handle.service_take_request(kind.Request)]
                while taken[-1][1] is not None and len(taken) < BATCH:
                    taken.append(service.handle.service_take_request(kind.Request))
        except InvalidHandle:
            return None

        async def answer() -> None:
            began = time.thread_time()
            for request, header in taken:
                if header is not None:
                    service.send_response(service.callback(request, kind.Response()), header)
            time.sleep(min(time.thread_time() - began, LONGEST_REST))

        return answer


class _Part:
    """Some kinds of a node's entities, in the place of the node where rclpy gathers what to wait for."""

    def __init__(self, node: Node, kinds: frozenset[str]) -> None:
        self._node, self._kinds = node, kinds

    def __getattr__(self, name: str) -> Any:
        if name in CONTROL or name in SERVICES:
            return getattr(self._node, name) if name in self._kinds else ()
        return getattr(self._node, name)


def lanes(node: Node) -> Sequence[PatientExecutor]:
    """Return the executors that serve a node together; each is to be spun in a thread of its own."""
    context = node.context
    control, services = PatientExecutor(CONTROL_THREADS, CONTROL, context), ServiceExecutor(SERVICE_THREADS, context)
    control.add_node(node)
    services.add_node(node)
    return control, services
