"""Fixtures for every test file. The rest of what tests share is in harness.py."""

import importlib.util
import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

# Before torch is imported anywhere: many small models on few cores are quickest with one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MUJOCO_GL", "osmesa")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # as a node sets it for its worker
# A figure must not open a window.
os.environ.setdefault("MPLBACKEND", "Agg")

import machine  # noqa: E402  (after the variables above)
import warm_program  # noqa: E402
from harness import RosPeer, claimed_domain, wait_until  # noqa: E402

if TYPE_CHECKING:
    from failing_borders import FailingBorders
    from faulty_worker import FaultyWorker

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")


PARTS = ("nodes", "others")
collect_ignore = ["lerobot"]  # runs in an environment of its own: scripts/test_lerobot.sh


def pytest_configure() -> None:
    """Take signals as from a terminal: nohup and the background of a script ignore some, here and in what we start."""
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL), (signal.SIGQUIT, signal.SIG_DFL),
    ):  # fmt: skip
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", choices=PARTS, help="tests with real nodes (marked ros), or the others; default: both")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the other part's tests: not by ``-m``, so that a run of both parts can be given one."""
    part = config.getoption("--part")
    if part:
        with_nodes = {item for item in items if item.get_closest_marker("ros")}
        config.hook.pytest_deselected(items=[item for item in items if (item in with_nodes) != (part == "nodes")])
        items[:] = [item for item in items if (item in with_nodes) == (part == "nodes")]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let programs be forked off interpreters with the environment that they would be started in."""
    warm_program.take_environment()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Watch the machine from the first test on."""
    machine.watch()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say why a run with too many skips for want of a quiet machine fails."""
    if (busy := _skipped_as_busy(terminalreporter)) > machine.SKIPS_ALLOWED:
        told = f"{busy} tests were skipped as '{machine.TOO_BUSY}', at most {machine.SKIPS_ALLOWED} may be"
        terminalreporter.write_line(f"ERROR: {told}: run these again while nothing else runs", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run with too many such skips."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and _skipped_as_busy(reporter) > machine.SKIPS_ALLOWED and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _skipped_as_busy(reporter: Any) -> int:
    return sum(machine.TOO_BUSY in str(report.longrepr) for report in reporter.stats.get("skipped", ()))


def _missing_for_ros() -> str:
    for module in ("rclpy", "dysl_vla_ros.msg"):
        if importlib.util.find_spec(module) is None:
            return f"{module} cannot be imported: run `make test`, or build the package and source its setup.bash"
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("ros") and (missing := _missing_for_ros()):
        pytest.skip(missing)


@pytest.fixture(scope="session")
def ros_domain() -> Iterator[int]:
    """A DDS domain that no other test run has; this process and what it starts talk on this machine only."""
    with claimed_domain() as domain:
        yield domain


@pytest.fixture
def peer(ros_domain: int) -> Iterator[RosPeer]:
    """A node of the test's own: records topics, publishes, calls services."""
    with RosPeer() as the_peer:
        yield the_peer


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> "FaultyWorker":
    """A policy worker that fails as it is told to: for ``model.python`` of a rig."""
    from faulty_worker import FaultyWorker
    from vla_rig import warm_python

    return FaultyWorker(tmp_path_factory.mktemp("worker"), warm_python())


@pytest.fixture(scope="module")
def borders(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[FailingBorders]":
    """Node and worker whose borders fail to order: for ``program`` and ``model.python`` of a rig."""
    from border_sweep import READY
    from failing_borders import FailingBorders

    borders = FailingBorders(tmp_path_factory.mktemp("borders"))
    try:
        wait_until(lambda: borders.workers.ready, READY, "the imports of workers")
        yield borders
    finally:
        borders.close()
