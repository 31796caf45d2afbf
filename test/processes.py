"""Installed programs as processes of their own, and what the kernel knows of them."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import yaml

from waiting import wait_until
from warm_program import start


def install_prefix() -> Path:
    """Return the folder that the package is installed in (``lib``, ``share``, ``bin`` below it)."""
    from ament_index_python.packages import get_package_prefix

    return Path(get_package_prefix("dysl_vla_ros"))


class ProcessId(NamedTuple):
    """A process as the kernel knows it; the start time tells it from a later process of the same number."""

    pid: int
    started: str


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name: state, parent, ... ([] when there is no such process)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_alive(process: ProcessId) -> bool:
    """Tell whether the process still runs (a zombie does not)."""
    fields = _stat(process.pid)
    return bool(fields) and fields[19] == process.started and fields[0] not in "ZX"


def descendants(pid: int) -> list[ProcessId]:
    """Return all living processes below ``pid``."""
    below: dict[int, list[ProcessId]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            below.setdefault(int(fields[1]), []).append(ProcessId(int(entry.name), fields[19]))
    found, open_ends = [], [pid]
    while open_ends:
        children = below.get(open_ends.pop(), [])
        found += children
        open_ends += [child.pid for child in children]
    return found


class NodeProcess:
    """An installed program as a process of its own, its output kept; nothing of it outlives the ``with`` block.

    Args:
        program: ``vla_node`` or ``sim_node``; the path of one that is not installed.
        parameters: ROS parameters, name to value.
        remappings: topic or node names, from to.
        environment: variables beside this process's own.
        namespace: ROS namespace of the node.
        parameter_file: a file of the test's own, beside ``parameters``.
        console: descriptor that the program's output goes to; None: a file, see ``output``.
        ignored: signals that the program's parent ignores, as ``nohup`` does.
        warm: its imports are done (:mod:`warm_program`); false where a test is about the process itself.
    """

    def __init__(
        self,
        program: str,
        parameters: Mapping[str, Any] | None = None,
        remappings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        namespace: str = "",
        parameter_file: Path | None = None,
        console: int | None = None,
        ignored: Sequence[int] = (),
        warm: bool = True,
    ) -> None:
        self.program = Path(program).name
        self._folder = tempfile.TemporaryDirectory(prefix=f"{self.program}-")
        written = Path(self._folder.name) / "parameters.yaml"
        written.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(parameters or {})}}))
        command = [str(install_prefix() / "lib" / "dysl_vla_ros" / program), "--ros-args"]
        for file in ([written] if parameters else []) + ([parameter_file] if parameter_file else []):
            command += ["--params-file", str(file)]
        for source, target in (remappings or {}).items():
            command += ["-r", f"{source}:={target}"]
        if namespace:
            command += ["-r", f"__ns:={namespace}"]
        self._output = Path(self._folder.name) / "output.txt"
        if ignored:
            words = " ".join(signal.Signals(number).name.removeprefix("SIG") for number in ignored)
            command = ["sh", "-c", f"trap '' {words}; exec \"$@\"", "sh", *command]
        with self._output.open("wb") as output:
            self.process = start(
                command,
                warm,
                stdin=subprocess.DEVNULL,
                stdout=output if console is None else console,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
                start_new_session=True,  # a Ctrl-C at the tests must not reach it before we do
            )

    @property
    def pid(self) -> int:
        """Process number of the node."""
        return self.process.pid

    @property
    def output(self) -> str:
        """Everything that the program has written so far."""
        return self._output.read_text(errors="replace")

    def children(self) -> list[ProcessId]:
        """Return the living processes below the node: its policy worker."""
        return descendants(self.pid)

    def wait_for_output(self, text: str, limit: float) -> None:
        """Wait until the program has written ``text``."""
        wait_until(lambda: text in self.output or self._ended(), limit, f"{text!r} from {self.program}")
        assert text in self.output, f"{self.program} ended without {text!r}:\n{self.output}"

    def _ended(self) -> bool:
        return self.process.poll() is not None

    def wait(self, limit: float) -> int:
        """Wait until the program has ended by itself and return its exit code (negative: the signal that ended it)."""
        wait_until(self._ended, limit, f"the end of {self.program}, whose output is:\n{self.output[-3000:]}\n")
        return int(self.process.returncode)

    def stop(self, signal_number: int = signal.SIGINT, limit: float = 10.0, impatient: bool = False) -> int:
        """Send the signal, wait for the end, and make sure that no process is left; return the exit code.

        ``impatient``: send it again and again until the end.
        """
        below = self.children()
        self.process.send_signal(signal_number)
        if impatient:
            wait_until(
                lambda: self._ended() or self.process.send_signal(signal_number), limit, f"the end of {self.program}"
            )
        code = self.wait(limit)
        wait_until(
            lambda: not [process for process in below if is_alive(process)],
            limit,
            f"the end of the {len(below)} processes that {self.program} had started",
        )
        return code

    def close(self) -> None:
        """Kill whatever is left (the program, then what it started) and forget its output. Idempotent."""
        below = self.children() if not self._ended() else []
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(10.0)
        for process in below:
            if is_alive(process):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        self._folder.cleanup()

    def __enter__(self) -> "NodeProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._output.exists():
            print(f"--- output of {self.program} ---\n{self.output}", file=sys.stderr)
        self.close()
