"""The command's side: starts the worker, asks it for one thing after the other, shows bars, and ends it.

Interrupted (Ctrl-C), it lets the worker keep what was learned; interrupted once more, it waits no longer.
"""

import contextlib
import dataclasses
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tqdm import tqdm

from dysl_vla_ros import __version__
from dysl_vla_ros.errors import WorkerError
from dysl_vla_ros.interfaces import PolicyDescription
from dysl_vla_ros.job_worker.messages import (
    KINDS,
    CopyFrames,
    Done,
    KeepAndEnd,
    LogLine,
    OpenDataset,
    OpenSide,
    Readable,
    ReadInstruction,
    StepSide,
    Tell,
)
from dysl_vla_ros.runs.frame_store import FrameWriter
from dysl_vla_ros.worker.client import WorkerSpec
from dysl_vla_ros.worker.messages import PROTOCOL, Fault, Hello, Load, encode, receive
from dysl_vla_ros.worker.process import WorkerProcess, compute_threads

LOG = logging.getLogger(__name__)
PROGRAM = "dysl_vla_ros.job_worker"
NOTHING_LEARNED = (OpenSide, StepSide, ReadInstruction, OpenDataset, CopyFrames)  # orders that leave nothing to keep
KEEP_LIMIT = 120.0  # s that keeping what was learned may take: a step of a large policy, and writing
T = TypeVar("T")
Start = Callable[[WorkerSpec, int, int], "WorkerProcess | None"]
"""(what to load, descriptor of the stream, descriptor of the frames) -> the process, None where there is none."""


def start_process(spec: WorkerSpec, stream: int, frames: int) -> WorkerProcess:
    """Start the worker in the Python that ``spec`` names."""
    return WorkerProcess(spec.python, compute_threads(spec.threads), stream, frames, PROGRAM)


class JobWorker:
    """A worker with a policy, from entering to leaving a ``with`` block. Of one thread.

    Attributes:
        frames: where recordings are written for it.
        description: of the policy.
    """

    frames: FrameWriter
    description: PolicyDescription

    def __init__(self, spec: WorkerSpec, folder: Path, start: Start = start_process) -> None:
        """Have ``spec`` loaded, its frames in a file without a name in ``folder``."""
        self._spec, self._folder, self._start = spec, folder, start
        self._process: WorkerProcess | None = None
        self._stream: socket.socket | None = None
        self._bar: Any = None
        self._at_work = False
        self._parts = contextlib.ExitStack()

    def __enter__(self) -> "JobWorker":
        """Start it and have everything loaded.

        Raises:
            WorkerError: the worker's own reason, or that it took too long.
            DataError: there is no room for frames.
        """
        with contextlib.ExitStack() as parts:
            self.frames = FrameWriter(self._folder)
            parts.callback(self.frames.close)
            ours, theirs = socket.socketpair()
            self._stream = parts.enter_context(ours)
            with theirs:
                self._process = self._start(self._spec, theirs.fileno(), self.frames.descriptor)
            parts.callback(self._end_process)
            self.description = self._load()
            self._parts = parts.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """End it; where the user asked for an end, when it has kept what was learned."""
        try:
            if kind is KeyboardInterrupt and self._at_work:
                self._keep()
        finally:
            self._close_bar()
            self._parts.close()

    def ask(self, order: Any, wanted: type[T]) -> T:
        """Return the answer to an order, of the kind that is ``wanted``.

        Raises:
            WorkerError: the worker's own reason, or how it ended.
        """
        answer = next(self._answers(order))
        assert isinstance(answer, wanted), f"a {type(answer).__name__} where a {wanted.__name__} was expected"
        self._at_work = False
        return answer

    def parts(self, order: Any) -> Iterator[Any]:
        """Yield the pieces of a long answer. Raises as :meth:`ask`."""
        for answer in self._answers(order):
            if isinstance(answer, Done):
                break
            yield answer
        self._at_work = False

    def pieces(self, order: Any, last: type[T], take: Callable[[Any], None]) -> T:
        """Give every piece of an answer to ``take`` and return what ends it, a ``last``. Raises as :meth:`ask`."""
        for answer in self._answers(order):
            if isinstance(answer, last):
                self._at_work = False
                return answer
            take(answer)
        raise AssertionError("answers end with an error")

    def tell(self, order: Any) -> None:
        """Send what has no answer."""
        self._send(order)

    def reads(self, text: str) -> str:
        """Return why the policy cannot read an instruction, "" where it can."""
        return self.ask(ReadInstruction(text), Readable).fault

    def _answers(self, order: Any) -> Iterator[Any]:
        self._at_work = not isinstance(order, NOTHING_LEARNED)
        self._send(order)
        while True:
            answer = self._receive()
            if isinstance(answer, Tell):
                self._show(answer)
            elif isinstance(answer, LogLine):
                self._close_bar()
                LOG.log(answer.level, "%s", answer.text)
            elif isinstance(answer, Fault):
                self._at_work = False
                raise WorkerError(answer.text, answer.draft)
            else:
                self._close_bar()
                yield answer

    def _load(self) -> PolicyDescription:
        """Shake hands and have the policy loaded."""
        spec, limit = self._spec, self._spec.load_timeout
        assert self._stream is not None
        self._stream.settimeout(limit)
        try:
            hello = self._receive()
            if not isinstance(hello, Hello) or (hello.package, hello.protocol) != (__version__, PROTOCOL):
                raise WorkerError("the worker runs another version of dysl_vla_ros; install the same one for both")
            if self._process:
                self._process.forget_folder()
            paths = (spec.checkpoint, spec.options.tokenizer)
            checkpoint, tokenizer = (os.path.abspath(path) if path else "" for path in paths)
            options, threads = dataclasses.replace(spec.options, tokenizer=tokenizer), compute_threads(spec.threads)
            self._send(Load(checkpoint, "", spec.device, threads, spec.noise, spec.noise_seed, spec.dtype, options))
            answer = self._receive()
        except TimeoutError as error:
            words = self._process.last_words() if self._process else ""
            raise WorkerError(
                f"loading {spec.checkpoint} took longer than model.load_timeout ({limit:g} s); raise it in the "
                f"parameter file{words}"
            ) from error
        if isinstance(answer, Fault):
            raise WorkerError(answer.text, answer.draft)
        assert isinstance(answer, PolicyDescription), f"a {type(answer).__name__} where a description was expected"
        self._stream.settimeout(None)
        return answer

    def _send(self, message: Any) -> None:
        assert self._stream is not None
        try:
            self._stream.sendall(encode(message, KINDS))
        except ConnectionError as error:
            raise WorkerError(self._how_it_ended()) from error

    def _receive(self) -> Any:
        assert self._stream is not None
        message = receive(self._stream, KINDS)
        if message is None:
            raise WorkerError(self._how_it_ended())
        return message

    def _end_process(self) -> str:
        """Make sure that the process is gone; return how it ended."""
        process, self._process = self._process, None
        return "has hung up" if process is None else process.end()

    def _how_it_ended(self) -> str:
        return f"the worker {self._end_process()}"

    def _keep(self) -> None:
        """Let the worker keep what was learned, and wait for its end."""
        self._close_bar()
        LOG.info("ending: what was learned is kept (Ctrl-C once more: at once)")
        try:
            assert self._stream is not None
            self._stream.settimeout(KEEP_LIMIT)
            self._stream.sendall(encode(KeepAndEnd(), KINDS))
            while self._stream.recv(1 << 16):  # perhaps from the middle of a message on
                pass
        except OSError as error:
            LOG.warning("what was learned since the last state on disk is lost: %s", error.strerror or error)

    def _show(self, told: Tell) -> None:
        if self._bar is None or self._bar.desc != f"{told.label}: ":
            self._close_bar()
            self._bar = tqdm(total=told.total, desc=told.label, mininterval=2.0)
        self._bar.set_postfix_str(told.said, refresh=False)
        self._bar.update(told.done - self._bar.n)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
