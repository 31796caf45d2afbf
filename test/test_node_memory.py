"""What a configuration leaves in memory: nothing. The real node beside a bare one of rclpy's own."""

from collections.abc import Callable
from pathlib import Path

import pytest
from scipy.stats import theilslopes

from harness import NodeProcess, RosPeer
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl
from vla_rig import LIMIT, gentle, running_rig

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(3600)]

FIRST, LAST = 20, 100  # cycles that are looked at: before, caches and pools fill
ALLOWED = 0.02  # MB a cycle more than the bare node
CYCLE = ("configure", "activate", "deactivate", "cleanup")


def memory(process: int) -> float:
    """Return what a process has written to and nobody shares, MB."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the kernel tells no Private_Dirty")


def growth(process: int, cycle: Callable[[], None]) -> float:
    """Return by how much a process grows a cycle, MB: the median of all slopes, which a single step does not move."""
    samples = []
    for number in range(LAST):
        cycle()
        if number >= FIRST:
            samples.append(memory(process))
    return float(theilslopes(samples).slope)


def test_cycles_of_transitions_leave_no_more_in_memory_than_a_bare_node_does(ros_domain: int, tmp_path: Path) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "checkpoint", rotation=True)
    make_tiny_dysl(checkpoint / "dysl", checkpoint)
    program = str(Path(__file__).with_name("bare_lifecycle_node.py"))
    with NodeProcess(program) as node, RosPeer() as peer:

        def bare_cycle() -> None:
            for transition in CYCLE:
                assert peer.change_state("bare", transition, LIMIT)

        bare = growth(node.pid, bare_cycle)
    with running_rig(gentle(checkpoint), warm_node=False) as rig:

        def cycle() -> None:
            rig.move()
            rig.bring_to("unconfigured")

        ours = growth(rig.node.pid, cycle)
    print(f"{ours:.4f} MB a cycle, {bare:.4f} of a bare node")
    assert ours - bare <= ALLOWED, f"{ours:.3f} MB a cycle, {bare:.3f} of a bare node"
