"""Deadlines on a busy machine: a bare loop runs beside the tests, and where it is late too, the machine is too busy.

A deadline has a named margin for the machine. Where a test exceeds both, and in the same seconds a loop in a process of
its own, which does nothing but wait for its next tick, was late by that margin as well, nothing was learnt about the
node: the test is skipped as :data:`TOO_BUSY`. conftest.py fails a run with more than :data:`SKIPS_ALLOWED` of those.
What must happen at all, such as a zero twist, is waited for with a limit of its own and never skipped.
"""

import atexit
import mmap
import os
import struct
import subprocess
import sys
import time

import pytest

TOO_BUSY = "machine too busy"
SKIPS_ALLOWED = 3  # a run
TICK = 0.01  # s
KEPT = 30_000  # ticks: five minutes, as long as a test may take
ENTRY = struct.Struct("dd")  # when a tick came and by how much it was late, s, time.monotonic()
LOOP = f"""
import mmap, os, struct, sys, time
ring, entry, parent = mmap.mmap(int(sys.argv[1]), {KEPT * ENTRY.size}), struct.Struct("dd"), os.getppid()
number, due = 0, time.monotonic()
while os.getppid() == parent:
    due = max(due + {TICK}, time.monotonic())
    time.sleep(max(due - time.monotonic(), 0.0))
    now = time.monotonic()
    entry.pack_into(ring, number % {KEPT} * entry.size, now, now - due)
    number += 1
"""


class BareLoop:
    """A process that ticks and remembers by how much each tick was late. Ends with this one."""

    def __init__(self) -> None:
        descriptor = os.memfd_create("bare_loop")
        os.ftruncate(descriptor, KEPT * ENTRY.size)
        self._ring = mmap.mmap(descriptor, KEPT * ENTRY.size)
        arguments = [sys.executable, "-I", "-c", LOOP, str(descriptor)]
        self._process = subprocess.Popen(arguments, pass_fds=[descriptor], start_new_session=True)
        os.close(descriptor)
        atexit.register(self._process.kill)

    @property
    def process(self) -> int:
        """Process id."""
        return self._process.pid

    def lateness(self, began: float, ended: float) -> float:
        """Return by how much a tick between two moments was late at worst, s; one that is still due counts."""
        ticks = sorted(entry for entry in ENTRY.iter_unpack(self._ring) if entry[0] >= began)
        seen = [late for came, late in ticks if came - late <= ended]
        silent = time.monotonic() - (ticks[-1][0] if ticks else began) - TICK
        return max([*seen, silent, 0.0])


_loops: list[BareLoop] = []


def watch() -> BareLoop:
    """Return the loop of this test run, begun at the first call."""
    if not _loops:
        _loops.append(BareLoop())
    return _loops[0]


def assert_in_time(began: float, ended: float, limit: float, margin: float, what: str) -> None:
    """Fail where ``what`` took longer than ``limit + margin``, s; skip where a bare loop was late by the margin too.

    Args:
        began: time.monotonic().
        ended: time.monotonic().
        limit: s, what is promised.
        margin: s, for the machine and the way of messages.
        what: the subject of the sentence that a failure says.
    """
    took = ended - began
    if took <= limit + margin:
        return
    late = watch().lateness(began, ended)
    told = f"{what}: {took:.3f} s, allowed {limit:g} s and a margin of {margin:g} s"
    if late >= margin:
        pytest.skip(f"{TOO_BUSY}: a bare loop was late by {late:.3f} s too ({told})")
    raise AssertionError(f"{told}; a bare loop was late by {late:.3f} s at most")
