"""What a killed node leaves in /dev/shm is told from what a living one has there, and the fix removes it alone."""

import subprocess
from pathlib import Path

import pytest

from dysl_vla_ros.doctor.checks.leftovers import BY_HAND, SHARED_MEMORY, judge
from dysl_vla_ros.doctor.finding import Level
from dysl_vla_ros.doctor.leftovers import leftovers
from harness import install_prefix
from waiting import wait_until

pytestmark = pytest.mark.ros


def mapped(pid: int) -> set[str]:
    """Return the names of the segments that a process owns: it holds their lock files open."""
    held = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = link.readlink()
        except OSError:
            continue
        name = target.name  # Jazzy's Fast DDS says fastrtps
        if target.parent == SHARED_MEMORY and name.startswith(("fastdds_", "fastrtps_")) and name.endswith("_el"):
            held.add(target.name.removesuffix("_el"))
    return {name for name in held if "port" not in name}


def sized(names: set[str]) -> bool:
    """Whether there are segments, and each has got its size: the lock file comes first."""
    files = [SHARED_MEMORY / name for name in names]
    return bool(files) and all(file.exists() and file.stat().st_size > 0 for file in files)


def test_what_a_killed_node_leaves_is_found_and_removed_and_nothing_of_a_living_one(tmp_path: Path) -> None:
    program = install_prefix() / "lib" / "dysl_vla_ros" / "vla_node"
    node = subprocess.Popen([str(program)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    try:
        wait_until(lambda: sized(mapped(node.pid)), 30.0, "the node's shared memory segment")
        own = mapped(node.pid)
        beside = tmp_path / "shm"
        beside.mkdir()
        for name in own:  # only this node's: others run on this machine
            for ending in ("", "_el"):
                (beside / f"{name}{ending}").symlink_to(SHARED_MEMORY / f"{name}{ending}")
        assert leftovers(beside).segments == 0 and judge(beside).level is Level.OK
    finally:
        node.kill()
        node.wait(10.0)
    found = leftovers(beside)
    assert found.segments == len(own) and found.size > 0
    finding = judge(beside)
    assert finding.level is Level.WARN and f"{len(own)} segments of killed processes" in finding.text
    assert judge(beside, tool="/opt/fastdds").fix == "fastdds shm clean"
    for name in own:
        command = BY_HAND.format(folder=SHARED_MEMORY).replace("fast[dr]*_*_[es]l", f"{name}_el")
        subprocess.run(["bash", "-c", command], check=True, timeout=10)
        assert not (SHARED_MEMORY / name).exists() and not (SHARED_MEMORY / f"{name}_el").exists()
