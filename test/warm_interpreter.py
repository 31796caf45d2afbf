"""An interpreter with its imports done, off which programs are forked: see :mod:`warm_program`, which starts it.

Each program is a child of the process that asked for it, not of this one, and ends as Python ends: it returns to the
top of this file, and so runs exit handlers, waits for its threads and flushes its streams by itself.
Arguments: DESCRIPTOR of the line to that process, MODULE...
"""

import ctypes
import gc
import importlib
import io
import json
import os
import re
import runpy
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MESSAGE = 1 << 20  # bytes at most, of arguments and environment
SIGNAL_SET = 128  # bytes of a sigset_t


class Tracing:
    """LTTng, which rclpy loads: it has two threads, and its end fails in a fork that it was not told of."""

    THREADS = 2

    def __init__(self) -> None:
        loaded = Path("/proc/self/maps").read_text()
        paths = set(re.findall(r"/\S*/liblttng-ust(?:-[0-9a-f]{8})?\.so\S*", loaded))
        self._libraries = [ctypes.CDLL(path) for path in paths]
        self._mask = ctypes.create_string_buffer(SIGNAL_SET)

    @property
    def threads(self) -> int:
        return self.THREADS * len(self._libraries)

    def tell(self, moment: str) -> None:
        """Say ``before_fork`` before one and ``after_fork_child`` in the new process."""
        for library in self._libraries:
            prefix = "lttng_ust" if hasattr(library, f"lttng_ust_{moment}") else "ust"  # since 2.13, and before
            getattr(library, f"{prefix}_{moment}")(self._mask)


def serve(line: socket.socket, modules: Sequence[str]) -> Callable[[], None]:
    """Fork a program for each order until the line ends. Returns what is left to do: nothing here, itself there."""
    for name in modules:
        importlib.import_module(name)
    tracing = Tracing()
    threads = len(os.listdir("/proc/self/task")) - tracing.threads
    assert threads == 1, f"{threads} threads after the imports, of which a fork would lose all but one"
    gc.collect()
    gc.freeze()  # what is shared stays shared
    line.send(b"ready")
    while True:
        order, descriptors, _, _ = socket.recv_fds(line, MESSAGE, 3)
        if not order:
            return lambda: None
        if program := _fork(line, tracing, json.loads(order), descriptors):
            return program


def _fork(
    line: socket.socket, tracing: Tracing, order: dict[str, Any], descriptors: Sequence[int]
) -> Callable[[], None] | None:
    """Make the program, tell its process number, and let it begin once its parent is who asked. Returns it there."""
    number, numbered = os.pipe()
    begun, begin = os.pipe()
    waiting = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # until the program itself begins
    between = os.fork()
    if not between:
        tracing.tell("before_fork")
        if program := os.fork():
            os.write(numbered, str(program).encode())
            os._exit(0)
        tracing.tell("after_fork_child")
        for own in (number, numbered, begin):
            os.close(own)
        os.read(begun, 1)  # ends once the process between has ended, and its child has another parent
        os.close(begun)
        line.close()
        begin_program = _become(order, descriptors)
        signal.pthread_sigmask(signal.SIG_SETMASK, waiting)
        return begin_program
    signal.pthread_sigmask(signal.SIG_SETMASK, waiting)
    os.waitpid(between, 0)
    line.send(os.read(number, 32))
    for own in (number, numbered, begun, begin, *descriptors):
        os.close(own)
    return None


def _become(order: dict[str, Any], descriptors: Sequence[int]) -> Callable[[], None]:
    """Take the descriptors, environment, folder, session and arguments of the program."""
    if order["session"]:
        os.setsid()
    else:
        os.setpgid(0, order["group"])
    for own, descriptor in enumerate(descriptors):
        os.dup2(descriptor, own)
        os.close(descriptor)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    _open_streams(bool(os.environ.get("PYTHONUNBUFFERED")))
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    words = order["command"][order["command"][0] == sys.executable :]
    if words[0] == "-m":
        sys.argv[:] = words[1:]
        sys.path[0] = os.getcwd()
        return lambda: runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True) and None
    sys.argv[:] = words
    sys.path[0] = os.path.dirname(words[0])
    return lambda: runpy.run_path(words[0], run_name="__main__") and None


def _open_streams(unbuffered: bool) -> None:
    """Make the three standard streams as Python does at its start."""
    sys.stdin = sys.__stdin__ = open(0, encoding=sys.stdin.encoding, errors=sys.stdin.errors, closefd=False)  # noqa: SIM115
    for name in ("stdout", "stderr"):
        was: Any = getattr(sys, name)
        whole_lines = not unbuffered and (name == "stderr" or os.isatty(was.fileno()))
        stream = io.TextIOWrapper(
            open(was.fileno(), "wb", 0 if unbuffered else -1, closefd=False),  # noqa: SIM115
            encoding=was.encoding, errors=was.errors, newline="\n", line_buffering=whole_lines,
            write_through=unbuffered,
        )  # fmt: skip
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])()
