"""SIGINT and SIGTERM as a wish to end: what every program of this package that spins does with them."""

import signal
import threading
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM)


class StopRequest(threading.Event):
    """Set by SIGINT or SIGTERM; the exit code is then 0.

    rclpy's own handlers are to be left out (``SignalHandlerOptions.NO``): they shut the context down first, and nothing
    could be published any more, the zero twist least.
    """

    def __init__(self) -> None:
        """Install the handlers; call it in the main thread."""
        super().__init__()
        for number in ENDING:
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_: Any) -> None:
        # not here: it runs in the main thread, which may hold the event's lock at this moment
        threading.Thread(target=self.set, name="stop").start()

    def ignore_more(self) -> None:
        """Ignore these signals from now on: the last thing that a program does.

        While Python ends it takes its handlers away, and a second signal would be a death. A launch whose Ctrl-C went
        to the whole terminal sends one, and would call a node dead that has stopped the arm.
        """
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
