"""Start the package's programs without their imports, which are nearly all of a start: 1 s of a node, 10 s of a verb.

:func:`start` and :func:`run` are ``subprocess.Popen`` and ``subprocess.run`` for a node or ``dysl_vla``: the process is
forked off an interpreter that has imported what the program imports (:mod:`warm_interpreter`), as a child of this
process with its own arguments, environment, folder, descriptors, session, signals and exit status. It is the installed
program that runs, from its first line. Whatever cannot be had so (an environment that matters to an interpreter's own
start, any other program) is started as usual. A test that is about the start gives ``warm=False``.
"""

import atexit
import contextlib
import ctypes
import functools
import importlib
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

IMPORTS = 120.0  # s for all that one interpreter imports
TURN = 30.0  # s for a fork
# What each interpreter imports, by the program. A verb that is not named imports little, or much that no other does.
NODE = ("dysl_vla_ros.nodes.vla_node", "dysl_vla_ros.nodes.bag_recorder")
SIMULATOR = ("dysl_vla_ros.nodes.sim_node",)
POLICY = ("dysl_vla_ros.worker.server", "dysl_vla_ros.runtime.step", "dysl_vla_ros.policies.reference")
PROGRAMS = {"vla_node": NODE, "bag_recorder": NODE, "sim_node": SIMULATOR}
VERBS = {"monitor": NODE, "doctor": POLICY, "inspect": POLICY, "replay": POLICY}
# Variables that programs read while they run. Any other that is not as in USUAL asks for a start as usual: the
# interpreter, its loader or a library reads it once.
READ_LATE = (
    "ROS_", "FASTDDS_", "FASTRTPS_", "PYTEST_CURRENT_TEST", "PYTHONUNBUFFERED", "COLUMNS", "LINES",
    # set by libraries as they are used
    "TORCHINDUCTOR_CACHE_DIR", "PYOPENGL_PLATFORM", "LP_NUM_THREADS", "PYGAME_HIDE_SUPPORT_PROMPT",
)  # fmt: skip
USUAL = dict(os.environ)
HONOURED = {"cwd", "env", "start_new_session", "stderr", "stdin", "stdout", "text"}  # of Popen's options
SET_CHILD_SUBREAPER = 36  # prctl(2): orphans below become children of this process


class Interpreter:
    """A warm interpreter, from here to the end of this process."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("warm_interpreter.py")), str(theirs.fileno()), *modules],
                stdin=subprocess.DEVNULL, env=USUAL, pass_fds=[theirs.fileno()], preexec_fn=os.setpgrp,
            )  # fmt: skip
        atexit.register(self._close)
        self._line.settimeout(IMPORTS)
        assert self._line.recv(32) == b"ready", f"the imports of {modules} failed"
        self._line.settimeout(TURN)

    def _close(self) -> None:
        self._line.close()
        self._process.wait(10.0)

    def fork(self, order: Mapping[str, Any], descriptors: Sequence[int]) -> int:
        """Start a program as a child of this process; return its process number."""
        with self._lock, _adopting():
            socket.send_fds(self._line, [json.dumps(order).encode()], descriptors)
            number = self._line.recv(32)
        assert number, "the warm interpreter has ended: its own lines are above"
        return int(number)


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Make children of what is orphaned below this process meanwhile."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        prctl(SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class WarmProcess(subprocess.Popen):
    """A program off a warm interpreter; all but the start is ``Popen``'s."""

    def __init__(self, command: Sequence[Any], interpreter: Interpreter, **options: Any) -> None:
        self._interpreter = interpreter
        super().__init__(command, **options)

    def _execute_child(self, *given: Any) -> None:
        asked = inspect.signature(subprocess.Popen._execute_child).bind(self, *given).arguments  # type: ignore[attr-defined]
        pipes = [asked[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        order = {
            "command": list(map(str, asked["args"])),
            "environment": dict(os.environ if asked["env"] is None else asked["env"]),
            "folder": str(asked["cwd"] or os.getcwd()),
            "session": bool(asked["start_new_session"]),
            "group": os.getpgrp(),
        }
        wanted = (pipes[0], pipes[3], pipes[5])
        descriptors = [own if wish == -1 else wish for own, wish in enumerate(wanted)]
        self.pid = self._interpreter.fork(order, descriptors)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


interpreter = functools.cache(Interpreter)


def take_environment() -> None:
    """Take this process's environment as the usual one: after the imports that change it, before a test does."""
    importlib.import_module("cv2")  # it changes LD_LIBRARY_PATH
    USUAL.clear()
    USUAL.update(os.environ)


def start(
    command: Sequence[Any], warm: bool = True, imports: tuple[str, ...] | None = None, **options: Any
) -> "subprocess.Popen[Any]":
    """Start a program as ``subprocess.Popen`` does; ``imports``: of one that is not the package's."""
    modules = imports or imports_of(command) if warm else None
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])  # and so in the program, from its start on
    if modules and not blocked and options.keys() <= HONOURED and not _matters_to_the_start(options.get("env")):
        return WarmProcess(command, interpreter(modules), **options)
    return subprocess.Popen(command, **options)


def run(
    command: Sequence[Any], timeout: float, warm: bool = True, capture_output: bool = False, **options: Any
) -> "subprocess.CompletedProcess[Any]":
    """Run a program to its end, as ``subprocess.run`` does."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(command, warm, **options) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def imports_of(command: Sequence[Any]) -> tuple[str, ...] | None:
    """Return what the program imports; None where it is none of ours."""
    first, *arguments = map(str, command)
    if first == sys.executable and arguments[:2] == ["-m", "dysl_vla_ros.commands.main"]:
        arguments = arguments[2:]
    elif Path(first).name != "dysl_vla":
        return PROGRAMS.get(Path(first).name) if _of_this_interpreter(Path(first)) else None
    verb = next((word for word in arguments if not word.startswith("-")), "")
    return VERBS.get(verb)


def _of_this_interpreter(program: Path) -> bool:
    if not program.is_file():
        return False
    with program.open("rb") as source:
        named = Path(os.fsdecode(source.readline()).removeprefix("#!").strip())
    return named.is_file() and named.parent.samefile(Path(sys.executable).parent)


def _matters_to_the_start(environment: Mapping[str, str] | None) -> bool:
    """Whether an environment differs from the warm interpreters' in what is read once."""
    asked = dict(os.environ if environment is None else environment)
    different = {name for name in asked.keys() | USUAL.keys() if asked.get(name) != USUAL.get(name)}
    return any(not name.startswith(READ_LATE) for name in different)
