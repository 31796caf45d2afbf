"""Python, the packages beside it, and this package's own programs."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from dysl_vla_ros.doctor.examination import Examination
from dysl_vla_ros.doctor.finding import Finding, fail, ok, warn
from dysl_vla_ros.doctor.folders import library_folder, share_folder
from dysl_vla_ros.doctor.requirements import Requirement, installed, read

PYTHONS = ((3, 10), (3, 14))  # tested, both included
PROGRAMS = ("vla_node", "sim_node")
WORKER = ("torch", "transformers", "safetensors")  # of the policy worker, which may run in another Python


def python_version(examination: Examination) -> Iterator[Finding]:
    """Compare this interpreter with the tested ones."""
    found = ".".join(map(str, sys.version_info[:3]))
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        yield ok("python", f"{found} ({sys.executable})")
    else:
        tested = " to ".join(".".join(map(str, version)) for version in PYTHONS)
        yield warn("python", f"{found}; tested are {tested}", f"use a Python from {tested}")


def required_packages(examination: Examination) -> Iterator[Finding]:
    """Compare what is installed with the tested ranges; name the simulator's in one line.

    What belongs to torch is compared where torch is: without it ONNX Runtime computes, which a line of its own says.
    """
    path = share_folder() / "requirements" / "runtime.txt"
    if not path.is_file():
        yield warn("packages", f"{path} is missing: ranges not compared", "build and install the package again")
        return
    beside = path.with_name("torch.txt")
    with_torch = beside.is_file() and installed("torch") is not None
    wanted = read(path) + (read(beside) if with_torch else [])
    good = 0
    for requirement in wanted:
        findings = list(compare(requirement, examination.worker_python))
        good += not findings
        yield from findings
    named = f"requirements/runtime.txt{' and torch.txt' if with_torch else ''}"
    yield ok("packages", f"{good} of {len(wanted)} within the tested ranges of {named}")
    yield from _versions_apart(path.with_name("onnx.txt"))
    simulation = read(path.with_name("simulation.txt")) if path.with_name("simulation.txt").is_file() else []
    missing = [requirement.name for requirement in simulation if installed(requirement.name) is None]
    if missing:
        yield ok(
            "simulator", f"no {', '.join(missing)}: demo, demonstrations, evaluate will not run; a robot needs none"
        )
    elif simulation:
        yield ok("simulator", "installed")


def _versions_apart(path: Path) -> Iterator[Finding]:
    """Compare what is installed of packages that may be missing."""
    for requirement in read(path) if path.is_file() else []:
        if installed(requirement.name):
            yield from compare(requirement)


def compare(requirement: Requirement, worker_python: str = "") -> Iterator[Finding]:
    """Compare one requirement with what is installed; nothing is yielded where it fits.

    ``worker_python``: another interpreter that runs the policy worker; what only that needs may then be missing here.
    """
    found = installed(requirement.name)
    wanted = f"{requirement.name}{requirement.text}"
    fix = f"{os.path.basename(sys.executable)} -m pip install '{wanted}'"
    if found is None and worker_python and requirement.name in WORKER:
        yield warn(
            "packages",
            f"{requirement.name} is not installed here; the worker runs in {worker_python}",
            f"run the doctor there as well: {worker_python} -m dysl_vla_ros.commands.main doctor",
        )
    elif found is None:
        yield fail("packages", f"{requirement.name} is not installed (wanted {wanted})", fix)
    elif found and not requirement.fits(found):
        yield warn("packages", f"{requirement.name} is {found}, tested is {requirement.text}", fix)


def programs(examination: Examination) -> Iterator[Finding]:
    """Look for the nodes, the command and ros2."""
    folder = library_folder()
    if folder is None:
        yield warn(
            "programs",
            "the nodes are not installed: no ROS node can be started from here",
            "colcon build this package and source its install/setup.bash",
        )
        return
    missing = [name for name in PROGRAMS if not os.access(folder / name, os.X_OK)]
    if missing:
        yield fail("programs", f"{', '.join(missing)} cannot be run from {folder}", "build the package again")
    elif shutil.which("ros2") is None:
        yield warn(
            "programs",
            f"{', '.join(PROGRAMS)} in {folder}; ros2 is not on the PATH",
            f"for `ros2 launch` source the setup.bash of a ROS 2 installation; without it start {folder / PROGRAMS[0]}",
        )
    else:
        yield ok("programs", f"{', '.join(PROGRAMS)} in {folder}; ros2 in {shutil.which('ros2')}")
