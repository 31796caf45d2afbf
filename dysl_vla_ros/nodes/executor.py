"""An executor whose spinning thread lets the thread that it woke begin before it looks for more work.

rclpy's MultiThreadedExecutor (checked: 9.1.2) hands out a task again and again until a pool thread has begun it. The
spinning thread holds the interpreter's lock meanwhile, so that the pool thread begins late: two thirds of a core went
into it, and control ticks were late by up to 0.4 s. Waiting for the beginning ends both.
"""

import threading
from collections.abc import Callable
from typing import Any

from rclpy.executors import (
    ConditionReachedException,
    ExternalShutdownException,
    MultiThreadedExecutor,
    ShutdownException,
    TimeoutException,
)

BEGIN_LIMIT = 0.1  # s; longer only where every thread of the pool is busy, and then new work has to wait anyway


class PatientExecutor(MultiThreadedExecutor):
    """A MultiThreadedExecutor that begins one callback after the other; they still run side by side."""

    _futures: list[Any]  # rclpy's own: tasks that were handed to the pool

    def _spin_once_impl(self, timeout_sec: Any = None, wait_condition: Callable[[], bool] = lambda: False) -> None:
        try:
            task, _, _ = self.wait_for_ready_callbacks(timeout_sec, None, wait_condition)
        except (ConditionReachedException, ExternalShutdownException, ShutdownException, TimeoutException):
            return
        begun = threading.Event()

        def run() -> None:
            begun.set()
            task()

        self._executor.submit(run)
        self._futures.append(task)
        begun.wait(BEGIN_LIMIT)
        unfinished = []
        for future in self._futures:
            if future.done():
                future.result()  # raises what the callback raised
            else:
                unfinished.append(future)
        self._futures = unfinished
