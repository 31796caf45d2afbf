"""Lines on their way to a descriptor that may take nothing for a while: a bounded queue, and one thread that writes."""

import contextlib
import os
import select
import threading
from collections import deque

CAPACITY = 4096  # lines that wait; about as many as a node logs in an hour of faults
MARK = "[WARN] [dysl_vla_ros]: "


class LineWriter:
    """Writes lines in the order in which they are put; whoever puts one never waits for the descriptor.

    A line that finds the queue full is dropped and counted, and a line in its place says how many were. The thread is a
    daemon: one that hangs in a write ends with the process.

    Args:
        descriptor: written to with ``os.write``, which gives the interpreter's lock away while it blocks.
        name: of the destination, for the line about dropped ones.
        capacity: lines that may wait.
    """

    def __init__(self, descriptor: int, name: str, capacity: int = CAPACITY) -> None:
        """Begin to write."""
        self._descriptor, self._name, self._capacity = descriptor, name, capacity
        self._lines: deque[bytes] = deque()
        self._changed = threading.Condition()  # never held while writing
        self._writing = False
        self._unreported = 0
        self.dropped = 0  # lines, since the beginning
        threading.Thread(target=self._run, name=f"lines to {name}", daemon=True).start()

    def put(self, line: bytes) -> None:
        """Queue one line, its end included."""
        with self._changed:
            if len(self._lines) >= self._capacity:
                self._count_dropped()
                return
            if self._unreported:
                self._lines.append(self._notice())
            self._lines.append(line)
            self._changed.notify_all()

    def wait_until_written(self, limit: float) -> bool:
        """Wait until nothing is left to write, at most ``limit`` seconds; return whether that was so."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._lines or self._unreported or self._writing), limit)

    def _count_dropped(self) -> None:
        self.dropped += 1
        self._unreported += 1

    def _notice(self) -> bytes:
        count, self._unreported = self._unreported, 0
        lines = "line was" if count == 1 else "lines were"
        return f"{MARK}{count} {lines} dropped here: {self._name} did not take them in time\n".encode()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._unreported)
                line = self._lines.popleft() if self._lines else self._notice()
                self._writing = True
            try:
                self._write(line)
                failed = False
            except OSError:  # the terminal is gone, the disk is full: the next line may go through
                failed = True
            with self._changed:
                self._writing = False
                self.dropped += failed
                self._changed.notify_all()

    def _write(self, data: bytes) -> None:
        while data:
            with contextlib.suppress(BlockingIOError):  # whoever gave us the descriptor may have made it non-blocking
                data = data[os.write(self._descriptor, data) :]
                continue
            select.select([], [self._descriptor], [])
