"""A launch as users have it, in a process group of its own as a terminal gives it one, and its end by signals."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import ProcessId, descendants, is_alive, wait_until

LIMIT = 30.0  # s
END_LIMIT = 5.0  # s from the signal to the end of everything
# What nobody is to see who ended a launch: the ways in which `launch`, rclpy and Python say that something failed.
COMPLAINT = re.compile(r"^.*(?:\b(?:ERROR|FATAL|CRITICAL)\b|Traceback|Exception ignored|\w*Error: ).*$", re.MULTILINE)
# How a signal comes: from the terminal to the whole process group, or by `kill` to the launch alone; once, or again.
WAYS = {
    "terminal": (True, 1),
    "launch alone": (False, 1),
    "terminal, twice": (True, 2),
    "launch alone, twice": (False, 2),
}


class Launched:
    """A launch file that runs."""

    def __init__(self, folder: Path, file: str, *arguments: str) -> None:
        self._output = folder / "output.txt"
        self._below: set[ProcessId] = set()
        with self._output.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("run_launch_file.py")), file, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "ROS_LOG_DIR": str(folder / "log"), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def wait_for_output(self, text: str, limit: float = LIMIT, times: int = 1) -> None:
        def is_there() -> bool:
            return self.output.count(text) >= times or self.process.poll() is not None

        wait_until(is_there, limit, f"{text!r} from the launch")
        assert self.output.count(text) >= times, f"the launch ended without {text!r}:\n{self.output}"

    def node(self, program: str = "vla_node") -> ProcessId:
        """Return the living process of a program."""
        found = [
            below
            for below in descendants(self.process.pid)
            if f"lib/dysl_vla_ros/{program}" in Path(f"/proc/{below.pid}/cmdline").read_text()
        ]
        assert len(found) == 1, (found, self.output)
        return found[0]

    def below(self) -> list[ProcessId]:
        """Return every living process that the launch has started, also where those above it are gone."""
        for above in (self.process.pid, *(process.pid for process in self._below if is_alive(process))):
            self._below.update(descendants(above))
        return [process for process in self._below if is_alive(process)]

    def ends(self, limit: float = LIMIT) -> int:
        wait_until(lambda: self.process.poll() is not None, limit, "the end of the launch")
        return int(self.process.returncode)

    def interrupted(self, way: str = "terminal", number: int = signal.SIGINT) -> int:
        """End the launch by a signal: all must be gone in time, without a complaint. Returns the exit code."""
        to_the_group, times = WAYS[way]
        complaints = len(COMPLAINT.findall(self.output))
        self.below()
        began = time.monotonic()
        for _ in range(times):
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if to_the_group else os.kill)(self.process.pid, number)
        # the processes that are left keep the launch among them until it has ended
        wait_until(
            lambda: not self.below() and self.process.poll() is not None,
            END_LIMIT,
            f"the end of the launch and of {self.below()}",
        )
        print(f"{way}, signal {number}: all ended after {time.monotonic() - began:.2f} s")
        assert not COMPLAINT.findall(self.output)[complaints:], self.output
        return int(self.process.returncode)

    def close(self) -> None:
        """Kill whatever is left."""
        below = self.below()
        self.process.kill()
        self.process.wait(10.0)
        for left in filter(is_alive, below):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left.pid, signal.SIGKILL)


@contextmanager
def launched(folder: Path, file: str, *arguments: str) -> Iterator[Launched]:
    launch = Launched(folder, file, *arguments)
    try:
        yield launch
    except BaseException:
        print(f"--- output of the launch ---\n{launch.output}", file=sys.stderr)
        raise
    finally:
        launch.close()
