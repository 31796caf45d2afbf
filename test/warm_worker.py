"""Policy workers that start in a moment: each is forked off one interpreter that has torch and transformers imported.

A worker takes 10 s to start, nearly all of it imports. A test that needs hundreds of them gives a node
:attr:`WarmWorkers.python` in place of an interpreter: what the node starts hands its arguments, environment and
descriptors to the warm interpreter, whose child is then the worker. It ends as that worker ends, and who kills it kills
the worker. The worker is the real one in everything but its parent, which is the warm interpreter, not the node.
"""

import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MESSAGE = 1 << 20  # bytes at most, of arguments and environment
OUTPUT = (1, 2)  # the worker's descriptors that are those of what the node started
STARTS = "import sys; sys.path.insert(0, {folder!r}); import warm_worker; warm_worker.hand_over({address!r})"


class WarmWorkers:
    """The warm interpreter, from here to :meth:`close`.

    Args:
        folder: for its socket.
        server: a program that calls :func:`serve`, with its arguments but for the socket's name, which comes last.
        other: another interpreter and the environment for it; it imports for itself.
    """

    def __init__(
        self, folder: Path, server: Sequence[str] = (__file__,), other: tuple[str, dict[str, str]] | None = None
    ) -> None:
        from warm_program import POLICY, start  # not of hand_over, which is to take no time

        self._address = folder / "warm"
        self.python = str(folder / "python")
        code = STARTS.format(folder=str(Path(__file__).resolve().parent), address=str(self._address))
        Path(self.python).write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S -c "{code}" "$@"\n')
        Path(self.python).chmod(0o755)
        python, environment = other or (sys.executable, None)
        self._process = start(
            [python, *server, str(self._address)],
            warm=other is None,
            imports=POLICY,
            env=environment,
            stdin=subprocess.PIPE,  # it ends with this process, however that ends
            start_new_session=True,
        )

    @property
    def ready(self) -> bool:
        """Whether workers can be started."""
        assert self._process.poll() is None, "the warm interpreter has ended"
        return self._address.exists()

    @property
    def pid(self) -> int:
        """Process number of the warm interpreter; all below it are workers."""
        return self._process.pid

    def close(self) -> None:
        """End it with all of its workers."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10.0)


def hand_over(address: str) -> None:
    """Have the worker started that this process was to be, and end as it ends. It imports nothing that takes time."""
    arguments = sys.argv[1:]
    named = [int(each.partition("=")[2]) for each in arguments if each.startswith(("--stream=", "--frames="))]
    order = json.dumps([arguments, dict(os.environ), os.getcwd()]).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.connect(address)
        socket.send_fds(line, [order], [*OUTPUT, *named])
        for descriptor in named:
            os.close(descriptor)
        code = int(line.recv(16) or -signal.SIGKILL)
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve(address: str, begin: Callable[[], None]) -> None:
    """Start workers until standard input ends; ``begin`` is called in each before anything else."""
    from warm_program import POLICY

    for name in POLICY:
        __import__(name)
    watch = selectors.DefaultSelector()
    workers: dict[Any, int] = {}  # connection to what the node started -> the worker
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"{address}.new")
        listener.listen()
        os.rename(f"{address}.new", address)
        watch.register(sys.stdin.fileno(), selectors.EVENT_READ, "end")
        watch.register(listener, selectors.EVENT_READ, "start")
        while True:
            for key, _ in watch.select():
                if key.data == "end":
                    for worker in workers.values():
                        os.kill(worker, signal.SIGKILL)
                    return
                if key.data == "start":
                    line, _ = listener.accept()
                    worker = workers[line] = _fork(line, begin)
                    watch.register(line, selectors.EVENT_READ, "killed")
                    watch.register(os.pidfd_open(worker), selectors.EVENT_READ, line)
                elif key.data == "killed":
                    os.kill(workers[key.fileobj], signal.SIGKILL)
                    watch.unregister(key.fileobj)
                else:
                    _bury(watch, key, workers)


def _bury(watch: selectors.BaseSelector, key: selectors.SelectorKey, workers: dict[Any, int]) -> None:
    """Tell what the node started how its worker has ended."""
    line = key.data
    _, status = os.waitpid(workers.pop(line), 0)
    watch.unregister(key.fileobj)
    os.close(key.fd)
    if line in watch.get_map():
        watch.unregister(line)
        line.send(str(os.waitstatus_to_exitcode(status)).encode())
    line.close()


def _fork(line: socket.socket, begin: Callable[[], None]) -> int:
    """Make the worker that is asked for."""
    order, descriptors, _, _ = socket.recv_fds(line, MESSAGE, 8)
    arguments, environment, folder = json.loads(order)
    worker = os.fork()
    if worker:
        for descriptor in descriptors:
            os.close(descriptor)
        return worker
    try:
        os.setsid()
        for descriptor, own in zip(descriptors, OUTPUT, strict=False):
            os.dup2(descriptor, own)
            os.close(descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        stream, frames = descriptors[len(OUTPUT) :]
        given = {"--stream": stream, "--frames": frames, "--parent": os.getppid()}
        own = [f"{name}={given[name]}" if (name := each.partition("=")[0]) in given else each for each in arguments]
        begin()
        if own[0] == "-m":
            sys.argv[:] = own[1:]
            runpy.run_module(own[1], run_name="__main__", alter_sys=True)  # ends with os._exit
        else:
            sys.argv[:] = own
            runpy.run_path(own[0], run_name="__main__")
    except SystemExit as ending:  # as the interpreter does
        if ending.code is None or isinstance(ending.code, int):
            os._exit(ending.code or 0)
        os.write(2, f"{ending.code}\n".encode())
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    serve(sys.argv[1], lambda: None)
