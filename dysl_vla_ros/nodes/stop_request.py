"""A stop signal as a wish to end: what every program of this package that spins does with it."""

import signal
import threading
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
        for number in stop_signals.heeded():
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_: Any) -> None:
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
