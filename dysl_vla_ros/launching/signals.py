"""What a signal to the launch itself leads to: an orderly end, whatever the launch is doing at that moment.

`launch` hears of signals through a descriptor, and leaves Python's own handlers as they are. On SIGINT Python then
raises KeyboardInterrupt as well, wherever the launch stands: in the midst of an event whose other handlers never hear
of it, or of the start of a thread that nobody ends any more. SIGTERM and SIGHUP end it at once, and what it had
started went on.
"""

import atexit
import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from launch import LaunchContext
from launch.events import Shutdown
from launch.utilities import AsyncSafeSignalManager

IMPATIENCE = 5.0  # s after the first signal in which more of them change nothing, also when the launch is over
OTHERS = (signal.SIGTERM, signal.SIGHUP)  # which mean the same as SIGINT


def end_in_order(context: LaunchContext) -> None:
    """Have SIGINT, SIGTERM and SIGHUP end this launch in order; once it is over they do what they did before.

    Leaves alone what somebody else handles or ignores. Only where the launch runs in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    take: Callable[[LaunchContext], object]
    for number in (signal.SIGINT, *OTHERS):
        present = signal.getsignal(number)
        if isinstance(present, _WhileLaunching):  # of an earlier launch in this process, or of another file of this one
            take = present.serve
        elif present is (signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL):
            take = functools.partial(_WhileLaunching, number)
        else:
            continue
        if number != signal.SIGTERM or _leaves_sigterm_to_us():
            take(context)


def _leaves_sigterm_to_us() -> bool:
    """Keep `launch` from breaking off on SIGTERM, with everything that it had started left behind.

    Its signal manager is private (the same in Jazzy and Kilted). Where there is none, SIGTERM stays as it is: it ends
    the launch at once, and the kernel passes it on to our nodes (``parent_process.end_with_launch``).
    """
    manager = getattr(AsyncSafeSignalManager, f"_{AsyncSafeSignalManager.__name__}__current", None)
    if manager is None:
        return False
    manager.handle(signal.SIGTERM, None)
    return True


class _WhileLaunching:
    """The handler of one signal for as long as the launch runs; afterwards it makes room for the one before."""

    def __init__(self, number: int, context: LaunchContext) -> None:
        self._context = context
        self._before = signal.signal(number, self)
        self._first: float | None = None  # s, monotonic: when it was called first

    def serve(self, context: LaunchContext) -> None:
        """Belong to this launch from now on."""
        if context is not self._context:
            self._context, self._first = context, None

    def __call__(self, number: int, frame: Any) -> None:
        now, loop = time.monotonic(), self._context.asyncio_loop
        if loop is not None:
            if self._first is None:
                self._first = now
                atexit.register(signal.signal, number, signal.SIG_IGN)  # Python takes its handlers away before it ends
            if number != signal.SIGINT:  # of which `launch` hears by itself
                with contextlib.suppress(RuntimeError):  # the loop was closed at this moment
                    loop.call_soon_threadsafe(self._shut_down, signal.Signals(number).name)
        elif self._first is None or now - self._first > IMPATIENCE:
            signal.signal(number, self._before)
            os.kill(os.getpid(), number)

    def _shut_down(self, name: str) -> None:
        if not self._context.is_shutdown:
            self._context.emit_event_sync(Shutdown(reason=name))
