"""The judge of deadlines itself: it fails, and it skips only where the machine was late as well."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import machine
from harness import wait_until

FOLDER = Path(__file__).parent


@pytest.fixture
def loop() -> machine.BareLoop:
    loop = machine.watch()
    began = time.monotonic()
    wait_until(
        lambda: loop.lateness(began, began + machine.TICK) < time.monotonic() - began, 20.0, "a tick of the loop"
    )
    return loop


def test_what_is_in_time_passes_and_what_is_late_on_a_quiet_machine_fails(loop: machine.BareLoop) -> None:
    now = time.monotonic()
    machine.assert_in_time(now - 0.5, now, 0.4, 0.2, "a stop")
    with pytest.raises(AssertionError, match="a stop: 90.000 s, allowed 1 s and a margin of 80 s"):
        machine.assert_in_time(now - 90.0, now, 1.0, 80.0, "a stop")


def test_where_a_bare_loop_is_late_too_the_test_is_skipped_by_name(loop: machine.BareLoop) -> None:
    began = time.monotonic()
    os.kill(loop.process, signal.SIGSTOP)
    try:
        wait_until(lambda: loop.lateness(began, began + 0.3) > 0.2, 20.0, "a loop that is late")
        with pytest.raises(pytest.skip.Exception, match=machine.TOO_BUSY):
            machine.assert_in_time(began, time.monotonic(), 0.0, 0.2, "a stop")
    finally:
        os.kill(loop.process, signal.SIGCONT)
    ended = time.monotonic()
    wait_until(lambda: loop.lateness(time.monotonic() - 0.5, time.monotonic()) < 0.2, 60.0, "a loop that goes on")
    assert loop.lateness(began, ended) > 0.2, "a lateness that is over was forgotten"


@pytest.mark.parametrize("skips", [machine.SKIPS_ALLOWED, machine.SKIPS_ALLOWED + 1])
def test_more_of_these_skips_than_allowed_fail_a_run(tmp_path: Path, skips: int) -> None:
    file = tmp_path / "test_busy.py"
    file.write_text(
        f"import machine, pytest\n@pytest.mark.parametrize('n', range({skips}))\n"
        "def test_it(n):\n    pytest.skip(machine.TOO_BUSY)\n"
    )
    path = os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-q", str(file)]
    run = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    allowed = skips <= machine.SKIPS_ALLOWED
    assert (run.returncode == 0) == allowed, run.stdout
    assert ("ERROR: 4 tests were skipped as 'machine too busy', at most 3 may be" in run.stdout) == (not allowed)
