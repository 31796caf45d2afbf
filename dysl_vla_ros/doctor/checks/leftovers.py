"""Whether killed processes left shared memory behind."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from dysl_vla_ros.doctor.examination import Examination
from dysl_vla_ros.doctor.finding import Finding, ok, warn
from dysl_vla_ros.doctor.leftovers import leftovers

SHARED_MEMORY = Path("/dev/shm")
TOOL = "fastdds"  # of Fast DDS; not every installation has it on the PATH
# `flock` takes a lock file only where no living process holds it
BY_HAND = "for lock in {folder}/fast[dr]*_*_[es]l; do flock -n $lock rm -f ${{lock%_[es]l}} $lock; done"


def killed_processes(examination: Examination) -> Iterator[Finding]:
    """Say how much memory the segments of dead processes hold."""
    yield judge(SHARED_MEMORY)


def judge(folder: Path, tool: str | None = None) -> Finding:
    """Judge what lies in ``folder``; ``tool``: path of ``fastdds``, None: as found."""
    found = leftovers(folder)
    if not found.segments:
        return ok("leftovers", f"{folder} holds no segment of a dead process")
    by_hand = BY_HAND.format(folder=folder)
    return warn(
        "leftovers",
        f"{folder} holds {found.segments} segments of killed processes, {found.size / 2**20:.1f} MiB in all",
        f"{TOOL} shm clean" if tool or shutil.which(TOOL) else by_hand,
    )
