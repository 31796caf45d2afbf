"""A stop signal as a wish to end: what every program of this package that spins does with it."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from dysl_vla_ros import stop_signals


class StopRequest(threading.Event):
    """Set by any of :data:`~dysl_vla_ros.stop_signals.STOP_SIGNALS`; the exit code is then 0.

    rclpy's own handlers are to be left out (``SignalHandlerOptions.NO``): they shut the context down first, and nothing
    could be published any more, the zero twist least.
    """

    def __init__(self) -> None:
        """Install the handlers; call it in the main thread."""
        super().__init__()
        self._asked = False
        self._at_once = False
        for number in stop_signals.heeded():
            signal.signal(number, self._on_signal)

    @contextlib.contextmanager
    def ending_at_once(self) -> Iterator[None]:
        """End the process, with 0, upon a stop signal: around what takes seconds while nothing moves or is recorded."""
        self._at_once = True
        if self._asked:
            os._exit(0)
        try:
            yield
        finally:
            self._at_once = False

    def _on_signal(self, *_: Any) -> None:
        if self._at_once:
            os._exit(0)
        if self._asked:
            return
        self._asked = True
        # not here: it runs in the main thread, which may hold the event's lock at this moment
        threading.Thread(target=self.set, name="stop").start()

    def ignore_more(self) -> None:
        """Ignore stop signals from now on: the last thing that a program does.

        While Python ends it takes its handlers away, and a second signal would be a death. A launch whose Ctrl-C went
        to the whole terminal sends one, and would call a node dead that has stopped the arm.
        """
        stop_signals.ignore()
