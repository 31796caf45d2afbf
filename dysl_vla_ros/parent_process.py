"""Ties a process to the one that started it, so that none goes on alone; ends it with the code that was meant."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NoReturn

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LAUNCH = "DYSL_VLA_LAUNCH_PID"  # environment variable: the process of the launch that a program was started by


def die_with_parent(parent: int, by: signal.Signals = signal.SIGKILL) -> bool:
    """Have the kernel kill this process with the thread that started it; return whether ``parent`` is still above it.

    Args:
        parent: its process number.
        by: the signal that the kernel sends.

    Raises:
        OSError: the kernel refuses.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(PR_SET_PDEATHSIG, by, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
    return os.getppid() == parent


def end_with_launch() -> None:
    """Have the kernel send SIGTERM when the launch that started this process ends, however it does.

    Without effect where no launch file of ours did, or where something stands between the two, as a debugger does.
    """
    launch = os.environ.pop(LAUNCH, "")
    if launch == str(os.getppid()) and not die_with_parent(int(launch), signal.SIGTERM):
        os._exit(0)


def end(code: int) -> NoReturn:
    """End this process with ``code`` once its output is out: what libraries' threads and exit handlers do is left out.

    They can hold an end up, or crash it (a renderer's, a middleware's), and whoever reads the exit code, as a launch
    file that tells a refusal from a crash, would be misled.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # whoever read it is gone
            stream.flush()
    os._exit(code)


def process_pool(jobs: int, begin: Callable[..., None] | None = None, *arguments: object) -> ProcessPoolExecutor:
    """Make a pool of ``jobs`` new interpreters (a fork would share torch's threads), which end with this process.

    Args:
        jobs: how many.
        begin: what each of them does first, with ``arguments``; both are pickled.
    """
    return ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (os.getpid(), begin, arguments))


def _begin(parent: int, begin: Callable[..., None] | None, arguments: tuple[object, ...]) -> None:
    if not die_with_parent(parent):
        os._exit(1)
    if begin is not None:
        begin(*arguments)
