"""Ties a process to the one that started it, so that none goes on alone."""

import ctypes
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent: int) -> bool:
    """Have the kernel kill this process with the thread that started it; return whether ``parent`` is still above it.

    Raises:
        OSError: the kernel refuses.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
    return os.getppid() == parent


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
