"""Shared memory that Fast DDS processes left behind when they were killed.

Each segment ``fastdds_ID`` (Jazzy's: ``fastrtps_ID``) has a lock file ``fastdds_ID_el``, which its owner holds by
``flock`` for as long as it lives, however it ends; ports (``fastdds_portN``) have the same, or ``_sl`` where several
listen. Seen with Fast DDS 2.14 and 3.2.
"""

import contextlib
import fcntl
from pathlib import Path
from typing import NamedTuple

EXCLUSIVE, SHARED = "_el", "_sl"  # endings of lock files
NAMES = "fast[dr]*_*"  # fastdds_*, and fastrtps_* until Jazzy


class Leftovers(NamedTuple):
    """What no living process owns."""

    segments: int
    size: int  # bytes, all of them


def leftovers(folder: Path) -> Leftovers:
    """Return what dead processes left in ``folder`` (``/dev/shm``)."""
    segments = size = 0
    for lock in folder.glob(NAMES):
        if not lock.name.endswith((EXCLUSIVE, SHARED)) or _held(lock):
            continue
        segment = lock.with_name(lock.name[: -len(EXCLUSIVE)])
        others = [segment.with_name(segment.name + ending) for ending in (EXCLUSIVE, SHARED)]
        if any(other != lock and _held(other) for other in others):
            continue
        with contextlib.suppress(OSError):  # it has gone since
            size += segment.stat().st_size
            segments += 1
    return Leftovers(segments, size)


def _held(lock: Path) -> bool:
    """Tell whether a process holds a lock file; one that cannot be looked at counts as held."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back when the file is closed, at once
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
