"""The worker as an operating system process: how it is started, what it inherits, what it said, how it ends."""

import collections
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import msgpack

import dysl_vla_ros
from dysl_vla_ros.errors import WorkerError

# What the worker inherits from the node's environment. ROS puts its own libraries and packages into LD_LIBRARY_PATH,
# PYTHONPATH, AMENT_PREFIX_PATH and more: another Python must not see those. Where Hugging Face's files lie and which
# GPUs may be used are the user's to say.
KEPT = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE",
    "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
# What another Python finds through a link, so that nothing of ours need be installed there. Of msgpack the half in pure
# Python runs in any version; the compiled one is taken where it fits.
LINKED = (dysl_vla_ros, msgpack)
LAST_LINES = 20  # of the worker's output, kept to explain its end
GRACE = 0.2  # s that a worker which hung up has to end by itself, so that its exit code can be told
REAP_LIMIT = 2.0  # s; SIGKILL takes longer only on a process stuck in the kernel


class WorkerProcess:
    """One worker process in a session of its own.

    To be made in a thread that lives until ``end``: the kernel kills the worker when the thread that started it ends.
    """

    def __init__(
        self, python: str, threads: int, stream: int, frames: int, program: str = "dysl_vla_ros.worker"
    ) -> None:
        """Start it; the descriptors ``stream`` and ``frames`` are inherited, ``program`` is the module that runs.

        Raises:
            WorkerError: the interpreter cannot be started; names it.
        """
        self._lock = threading.Lock()
        self._gone = False
        self._lines: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        self._python = _interpreter(python)
        self._folder = Path(tempfile.mkdtemp(prefix="dysl_vla_"))
        for package in LINKED:
            (self._folder / package.__name__).symlink_to(Path(str(package.__file__)).absolute().parent)
        arguments = [f"--stream={stream}", f"--frames={frames}", f"--parent={os.getpid()}"]
        try:
            self._process = subprocess.Popen(
                [self._python, "-m", program, *arguments],
                cwd=self._folder,  # `-m` looks there first: no file beside the node can stand in for a package
                env=environment(threads, self._folder),
                start_new_session=True,  # Ctrl-C is for the node, which ends the worker after its zero twist
                pass_fds=(stream, frames),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            self.forget_folder()
            raise WorkerError(
                f"model.python: cannot start {self._python!r}: {error.strerror or error}; name a Python interpreter"
            ) from error
        except BaseException:
            self.forget_folder()
            raise
        try:
            self._handle = os.pidfd_open(self._process.pid)
            self._forwarder = threading.Thread(target=self._forward, name="dysl_vla worker output", daemon=True)
            self._forwarder.start()
        except BaseException:  # nobody has this object, so nobody else can end the process
            self.kill()
            self._process.wait(REAP_LIMIT)
            self.forget_folder()
            raise

    @property
    def pid(self) -> int:
        """Process id; only meaningful until ``end``."""
        return self._process.pid

    def forget_folder(self) -> None:
        """Remove the folder with the links: it serves until the worker has said hello."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """Kill the worker and whatever it started, also where it is stopped. From any thread."""
        with self._lock:
            if not self._gone:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> str:
        """Make sure that the process is gone, and return how it ended and its last words. Call once."""
        watch = select.poll()
        watch.register(self._handle, select.POLLIN)
        by_itself = watch.poll(GRACE * 1000)
        self.kill()
        watch.poll(REAP_LIMIT * 1000)
        with self._lock:  # nobody may kill by this id once the process is reaped
            code = self._process.poll()
            self._gone = code is not None
        os.close(self._handle)
        self.forget_folder()
        self._forwarder.join(GRACE)  # longer only where a stranger still holds the pipe
        how = _how(code) if by_itself or code is None else "hung up and was ended"  # that signal was ours
        return f"{how}{self.last_words()}"

    def last_words(self) -> str:
        """Return the last lines of output as the tail of a sentence, "" where there were none."""
        lines = [line for line in list(self._lines) if line.strip()][-4:]
        return f"; its last lines: {' | '.join(line.strip()[:200] for line in lines)}" if lines else ""

    def _forward(self) -> None:
        """Pass the worker's output on to the console, a line at a time, and keep the last lines."""
        assert self._process.stdout is not None
        with self._process.stdout as output:
            while data := output.readline(8192):
                line = data.decode(errors="replace").rstrip("\n")
                self._lines.append(line)
                with contextlib.suppress(OSError, ValueError):  # a closed console is no reason to block the worker
                    print(f"[policy worker] {line}", file=sys.stderr, flush=True)


def environment(threads: int, folder: Path) -> dict[str, str]:
    """Return the worker's whole environment; ``folder`` holds the links to what it imports of ours."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | {
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",  # what is loaded lies in the checkpoint; a robot's worker asks no server
    }


def compute_threads(setting: int) -> int:
    """Return the number of compute threads that ``model.threads`` stands for; 0: half the cores, at least 1."""
    return setting or max(1, len(os.sched_getaffinity(0)) // 2)


def _interpreter(python: str) -> str:
    """Return what to execute: a path must not change its meaning with the worker's working directory."""
    if not python:
        return sys.executable
    python = os.path.expanduser(python)
    return os.path.abspath(python) if os.sep in python else python


def _how(code: int | None) -> str:
    if code is None:
        return "does not end, although it was killed: it hangs in the kernel"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    hint = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
    return f"ended with signal {-code} ({name}{hint})"
