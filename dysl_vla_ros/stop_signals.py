"""The signals that ask a program to end, and what its processes do with them.

Everything that ends a process by default is taken for such a wish, so that a closed terminal (HUP), Ctrl-\\ (QUIT) or a
limit on CPU time (XCPU) stops an arm as Ctrl-C does. Not among them: KILL and STOP, which nobody can handle, and the
signals of a fault (SEGV, BUS, FPE, ILL, ABRT), after which nothing can be trusted any more. A signal that was ignored
when the process started stays ignored: ``nohup`` means it.
"""

import os
import signal
from typing import Any

_NAMES = ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "XCPU", "IO", "PWR")
STOP_SIGNALS = tuple(getattr(signal, f"SIG{name}") for name in _NAMES if hasattr(signal, f"SIG{name}"))


def heeded() -> tuple[signal.Signals, ...]:
    """Return the stop signals that this process is to act on: those that it does not ignore."""
    return tuple(number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN)


def end_at_once() -> None:
    """End with exit code 0 upon a stop signal: for the time in which a program only imports and nothing moves yet.

    Our launch files start a program with such signals blocked, since while Python itself begins they are a traceback,
    or a death: one that was sent meanwhile comes now.
    """
    for number in heeded():
        signal.signal(number, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def ignore() -> None:
    """Ignore every stop signal from now on: for a process that another one ends."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _end(*_: Any) -> None:
    os._exit(0)
