"""What a reader of files takes of memory at its most, measured by the kernel in a process of its own."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

LIMIT = 180.0  # s for all paths of a call, torch's import included


class Peak(NamedTuple):
    """What reading a file took, and what it was refused with."""

    bytes: int  # above what the process had before
    refused: str  # the error's text, "" where it was read


def peaks(reader: str, paths: Sequence[Path], first: Path) -> list[Peak]:
    """Read each path by a function of this module, in one new process; ``first`` is read before and not measured."""
    command = [sys.executable, __file__, reader, *(str(path) for path in (first, *paths))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr[-3000:]
    return [Peak(*json.loads(line)) for line in done.stdout.splitlines()]


def bag(path: Path) -> None:
    """Read every message of a bag."""
    from dysl_vla_ros.bags.reader import BagReader

    with BagReader(path) as opened:
        for message in opened.messages():
            assert message.raw
        if opened.damage:
            print(*opened.damage, file=sys.stderr)


def checkpoint(path: Path) -> None:
    """Load a checkpoint with its DySL folder."""
    from dysl_vla_ros.runtime.step import Runtime

    Runtime.load(str(path), "")


def demonstrations(path: Path) -> None:
    """Open the episodes of a task."""
    from dysl_vla_ros.simulation.tasks import TASKS
    from dysl_vla_ros.training.dataset import load_episodes

    load_episodes(path, [TASKS["reach"]], quiet=True)


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def _measure(reader: Callable[[Path], None], path: Path) -> Peak:
    from dysl_vla_ros.errors import DyslVlaError

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, refused = _status("VmRSS"), ""
    try:
        reader(path)
    except DyslVlaError as error:
        refused = str(error)
    return Peak(_status("VmHWM") - before, refused)


if __name__ == "__main__":
    _, name, first_path, *others = sys.argv
    _measure(globals()[name], Path(first_path))
    for other in others:
        print(json.dumps(_measure(globals()[name], Path(other))), flush=True)
