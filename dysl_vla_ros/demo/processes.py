"""The demo's two nodes as processes of their own: where they are, what they are told, how they end."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dysl_vla_ros.errors import DataError, DyslVlaError
from dysl_vla_ros.transport import environment_for_images

PACKAGE = "dysl_vla_ros"
STOP_TIMES = ((signal.SIGINT, 8.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0))  # s to end after each
DOMAINS = range(1, 102)  # their ports lie below Linux's ephemeral ports
_ERROR_LINE = re.compile(r"^\[(?:ERROR|FATAL)\] \[[\d.]+\] \[[^\]]*\]: (?P<text>.*)$|^\w+: error: (?P<plain>.*)$")


class NodeEnded(DyslVlaError):
    """A node of the demo ended, or refused to work, of its own accord."""


def ros_environment() -> dict[str, str]:
    """Return the environment that the demo's processes share: images arrive, and nobody else's robot hears us.

    ``ROS_DOMAIN_ID`` and a DDS transport that the user chose are kept.
    """
    environment = environment_for_images(os.environ)
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if not environment.get("ROS_DOMAIN_ID"):
        environment["ROS_DOMAIN_ID"] = str(_free_domain())
    return environment


def share_folder() -> Path:
    """Return the package's share folder (``config``, ``checkpoints``): as installed, else the checkout's root."""
    installed = _prefix()
    return installed / "share" / PACKAGE if installed else Path(__file__).resolve().parents[2]


def program_command(program: str) -> list[str]:
    """Return how to start ``vla_node`` or ``sim_node``: as installed, else the module beside this one."""
    installed = _prefix()
    path = installed / "lib" / PACKAGE / program if installed else None
    return [str(path)] if path and path.exists() else [sys.executable, "-m", f"{PACKAGE}.nodes.{program}"]


class NodeProcess:
    """One node. Use it in a ``with`` block: when that ends, the process has ended, however it takes.

    It runs in a session of its own: a Ctrl-C at the terminal reaches the demo alone, which ends its nodes in order.

    Args:
        program: ``vla_node``, ``sim_node`` or ``bag_recorder``.
        arguments: what follows ``--ros-args``.
        environment: all variables of the process.
        log: file for what it writes.

    Raises:
        DataError: the log cannot be written.
    """

    def __init__(self, program: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.program = program
        self._log = log
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    [*program_command(program), "--ros-args", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**environment, "PYTHONUNBUFFERED": "1"},
                    start_new_session=True,
                )
        except OSError as error:
            raise DataError(f"cannot start {program} with its log in {log}: {error.strerror or error}") from error

    def require_alive(self) -> None:
        """Do nothing while the process runs.

        Raises:
            NodeEnded: it has ended; the message has its own reason.
        """
        if (code := self._process.poll()) is not None:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise NodeEnded(f"{self.program} ended with {how}: {self.reason()}")

    @property
    def exit_code(self) -> int | None:
        """Exit code of the process (negative: the signal that ended it); None while it runs."""
        return self._process.poll()

    def reason(self) -> str:
        """Return the last error that the process logged, and where the log is."""
        lines = self._log.read_text(errors="replace").splitlines()
        found = (match["text"] or match["plain"] for line in reversed(lines) if (match := _ERROR_LINE.match(line)))
        last = next((line for line in reversed(lines) if line.strip()), "it wrote nothing")
        return f"{next(found, last)} (log: {self._log})"

    def stop(self) -> None:
        """Ask for an end, ever less politely; return when the process has ended."""
        for number, limit in STOP_TIMES:
            if self._process.poll() is not None:
                return
            self._process.send_signal(number)
            try:
                self._process.wait(limit)
            except subprocess.TimeoutExpired:
                continue

    def __enter__(self) -> "NodeProcess":
        return self

    def __exit__(self, *details: object) -> None:
        self.stop()


def _prefix() -> Path | None:
    """Return the folder that the package is installed in, None where it only is a checkout."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        return Path(get_package_prefix(PACKAGE))
    except PackageNotFoundError:
        return None


def _free_domain() -> int:
    """Choose a DDS domain at random whose first participant's port nobody has bound."""
    for domain in random.sample(DOMAINS, len(DOMAINS)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7400 + 250 * domain + 10))
            except OSError:
                continue
            return domain
    raise DataError("every DDS domain from 1 to 101 is in use; set ROS_DOMAIN_ID")
