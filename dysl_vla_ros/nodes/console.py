"""The console of a node's process, made so that whoever writes to it never waits.

A terminal under Ctrl-S, a stopped ``ros2 launch`` or ``tee``, a log driver that hangs: whoever writes to such a console
blocks, with whatever lock it holds. rclpy's logger also holds the interpreter's lock (measured, 9.1.2), so that no
thread of Python runs any more, the one that stops the arm least. Therefore standard output and error of a node are
pipes of its own that never block. rclpy, rcl, DDS, Python and the policy worker write there as they always do; a thread
empties each pipe into bounded queues, from which one thread a destination writes to the real console and to the log
file. rcl's own log file is off: it, too, is written under the interpreter's lock, and a network folder may hang.
"""

import contextlib
import fcntl
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dysl_vla_ros.nodes.line_writer import LineWriter

PIPE_SIZE = 1 << 20  # bytes; Linux gives any process as much. Full only while our own reader gets no turn
READ_SIZE = 1 << 16  # bytes
LONGEST_LINE = 1 << 16  # bytes; a longer one is broken there
CLOSE_LIMIT = 0.5  # s that the last lines have to reach a console that takes them
COLOURS = re.compile(rb"\x1b\[[0-9;]*m")


class Console:
    """Stands between this process and its standard output and error, until :meth:`close`."""

    def __init__(self) -> None:
        """Replace descriptors 1 and 2; call it before rclpy is initialised."""
        self._file: LineWriter | None = None
        _fill_standard_descriptors()
        if os.isatty(2):  # rcutils looks at descriptor 2, which is no terminal any more
            os.environ.setdefault("RCUTILS_COLORIZED_OUTPUT", "1")
        kept = {descriptor: _kept(descriptor) for descriptor in (1, 2)}
        error = LineWriter(kept[2], "the console")
        # one writer where both lead to one place, so that lines keep their order
        output = error if os.path.sameopenfile(1, 2) else LineWriter(kept[1], "standard output")
        self._writers = [error] if output is error else [error, output]
        self._pipes = [_Pipe(1, kept[1], self._passing_to(output)), _Pipe(2, kept[2], self._passing_to(error))]

    def open_log_file(self, folder: Path, prefix: str) -> None:
        """Write everything to a file of ``folder`` as well, named as rcl names its own.

        Raises:
            OSError: it cannot be made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{prefix}_{os.getpid()}_{time.time_ns() // 1_000_000}.log"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._file = LineWriter(descriptor, "the log file")
        self._writers.append(self._file)

    @property
    def dropped(self) -> int:
        """Lines that did not reach the console, standard output or the log file."""
        return sum(writer.dropped for writer in self._writers)

    def close(self) -> None:
        """Give the last lines :data:`CLOSE_LIMIT` to get out, and the descriptors back to a console that takes them."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # AttributeError: it is None
                stream.flush()
        end = time.monotonic() + CLOSE_LIMIT
        for pipe in self._pipes:
            pipe.close(max(end - time.monotonic(), 0.0))
        written = [writer.wait_until_written(max(end - time.monotonic(), 0.0)) for writer in self._writers]
        if all(written):
            for pipe in self._pipes:
                pipe.give_back()

    def _passing_to(self, writer: LineWriter) -> Callable[[bytes], None]:
        def pass_on(line: bytes) -> None:
            writer.put(line)
            if self._file is not None:
                self._file.put(COLOURS.sub(b"", line))

        return pass_on


class _Pipe:
    """Takes the place of a descriptor, and passes on each line that is written to it."""

    def __init__(self, descriptor: int, kept: int, pass_on: Callable[[bytes], None]) -> None:
        self._descriptor, self._kept, self._pass_on = descriptor, kept, pass_on
        self._exit, entrance = os.pipe()
        with contextlib.suppress(OSError):  # a system that allows less
            fcntl.fcntl(entrance, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        os.set_blocking(entrance, False)
        os.dup2(entrance, descriptor)
        os.close(entrance)
        self._thread = threading.Thread(target=self._run, name=f"descriptor {descriptor}", daemon=True)
        self._thread.start()

    def close(self, limit: float) -> None:
        """Take nothing more, and wait until what was written is passed on, at most ``limit`` seconds."""
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._descriptor)
        self._thread.join(limit)

    def give_back(self) -> None:
        """Put the descriptor back in its place."""
        os.dup2(self._kept, self._descriptor)

    def _run(self) -> None:
        begun = b""
        while data := os.read(self._exit, READ_SIZE):
            *lines, begun = (begun + data).split(b"\n")
            for line in lines:
                self._pass_on(line + b"\n")
            if len(begun) > LONGEST_LINE:
                self._pass_on(begun + b"\n")
                begun = b""
        if begun:
            self._pass_on(begun + b"\n")
        os.close(self._exit)


def _fill_standard_descriptors() -> None:
    """Open what a parent has closed, or the next socket would become the console."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _kept(descriptor: int) -> int:
    """Return a copy of a descriptor that no child inherits."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
