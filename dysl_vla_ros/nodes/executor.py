"""Executors in which services cannot take the time of what moves the arm.

rclpy's MultiThreadedExecutor (checked: 9.1.2) looks at everything of a node in one thread, one callback after the
other: under 800 parameter sets a second, ticks and cameras wait in a row of services. A node here is served in two
lanes, each with a spinning thread and a pool of its own: timers, subscriptions and the rest in one, services alone in
the other (:func:`lanes`). Python runs one thread at a time all the same. So requests that wait for one service are
answered in batches, which takes a third of the time that handing out each of them does, and after a batch its thread
rests for as long as the batch took: of the interpreter's time, services have half at most.

That executor also hands out a task again and again until a pool thread has begun it, holding the interpreter's lock
meanwhile, so that the pool thread begins late: two thirds of a core went into it (rolling does not). Waiting for the
beginning ends that.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import (
    ConditionReachedException,
    Executor,
    ExternalShutdownException,
    ShutdownException,
    TimeoutException,
)
from rclpy.node import Node

from dysl_vla_ros.rclpy_private import ServiceTaker, Taken, take_requests

BEGIN_LIMIT = 0.1  # s; longer only where every thread of the pool is busy, and then new work has to wait anyway
BATCH = 16  # requests of one service that are answered in a row; some milliseconds
LONGEST_REST = 0.02  # s
# s; rclpy's shutdown wakes whoever waits and then takes the means to wake anybody away: who was just about to wait for
# services that nobody asks for any more would wait for ever, and the process with it
LONGEST_WAIT = 0.5
CONTROL = ("subscriptions", "timers", "clients", "guards", "waitables")
SERVICES = ("services",)
CONTROL_THREADS = 6  # the error path may block one for as long as a transition takes
SERVICE_THREADS = 6  # a transition may block one for model.load_timeout


class PatientExecutor(Executor):
    """Runs callbacks side by side in a pool of threads, and begins one after the other.

    Made of what rclpy promises to who writes an executor; how it spins, hands out and ends is its own, since that
    differs between its versions: 7.1.9 and later refuse ``spin`` where they hold that one still runs.

    Args:
        num_threads: of the pool.
        kinds: what is served of each node, of :data:`CONTROL` and :data:`SERVICES`.
        context: rclpy's.
    """

    def __init__(
        self, num_threads: int, kinds: Iterable[str] = (*CONTROL, *SERVICES), context: Context | None = None
    ) -> None:
        super().__init__(context=context)
        self._kinds = frozenset(kinds)
        self._parts: dict[Node, _Part] = {}
        self._pool = ThreadPoolExecutor(num_threads)
        self._handed_out: list[Future[None]] = []
        self._ended = False
        self._ending = threading.Lock()  # nothing is handed out any more once it has ended

    def spin(self) -> None:
        """Serve until this executor or its context is shut down.

        Raises:
            Exception: what a callback has raised; spinning ends with it.
        """
        while self.context.ok() and not self._ended:
            self.spin_once(LONGEST_WAIT)

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Hand out one callback that is ready, after waiting for one at most so many seconds; None: for ever."""
        parts = [self._parts.setdefault(node, _Part(node, self._kinds)) for node in self.get_nodes()]
        try:
            task, _, _ = self.wait_for_ready_callbacks(timeout_sec, parts)
        except (ConditionReachedException, ExternalShutdownException, ShutdownException, TimeoutException):
            return
        except InvalidHandle:
            # A transition destroyed an entity with event callbacks just when it was collected (9.1.2): nothing is
            # wrong, collect again.
            return
        begun = threading.Event()

        def run() -> None:
            begun.set()
            try:
                task()
            except Exception:  # of the task itself, which keeps what its callback raises
                task()  # else nothing of its entity is ever handed out again
                raise
            if task.done():
                task.result()  # raises what the callback has raised

        with self._ending:
            if self._ended:
                return
            self._handed_out.append(self._pool.submit(run))
        begun.wait(BEGIN_LIMIT)
        done = [each for each in self._handed_out if each.done()]
        self._handed_out = [each for each in self._handed_out if each not in done]
        for each in done:
            fault = each.exception()  # InvalidHandle: an entity was destroyed while it was taken or answered
            if fault is not None and not isinstance(fault, InvalidHandle):
                raise fault

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """End spinning; return whether every callback has ended within so many seconds, without any limit for None."""
        with self._ending:
            self._ended = True
        super().shutdown(timeout_sec)
        self._pool.shutdown(wait=False)
        return not wait(self._handed_out, timeout_sec).not_done


class ServiceExecutor(ServiceTaker, PatientExecutor):
    """Serves the services of nodes that belong to another executor.

    A service in a reentrant callback group may take its time: each of its requests is answered in a thread of its own.
    """

    def __init__(self, num_threads: int, context: Context | None = None) -> None:
        PatientExecutor.__init__(self, num_threads, SERVICES, context)
        self._served: list[Node] = []

    def add_node(self, node: Node) -> bool:
        """Serve a node's services; the node's executor, which it wakes when its entities change, stays another one."""
        self._served.append(node)
        self.wake()
        return True

    def get_nodes(self) -> list[Node]:
        """Return the nodes whose services it serves."""
        return list(self._served)

    def take(self, service: Any, take_one: Callable[[], Taken]) -> Taken:
        """Take a batch of the requests that wait."""
        if isinstance(service.callback_group, ReentrantCallbackGroup):
            return take_one()
        try:
            taken = take_requests(service, BATCH)
        except InvalidHandle:
            return None

        async def answer() -> None:
            began = time.thread_time()
            for request, header in taken:
                if header is not None:
                    service.send_response(service.callback(request, service.srv_type.Response()), header)
            # no time.sleep: it raises, and no executor should end of a rest, where a set clock moves the thread's own
            threading.Event().wait(min(time.thread_time() - began, LONGEST_REST))

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
