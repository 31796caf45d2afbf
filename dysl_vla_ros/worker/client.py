"""The node's side of the policy worker: starts it, sends observations, notices its loss, ends it. Imports no torch.

One thread a client: it starts the worker (whose life is bound to that thread by the kernel), waits for its messages,
calls back, and buries it.
"""

import contextlib
import dataclasses
import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dysl_vla_ros import __version__
from dysl_vla_ros.errors import ObservationError, WorkerError, WorkerLostError
from dysl_vla_ros.interfaces import THE_MODEL, FloatArray, Observation, PolicyDescription, StepResult
from dysl_vla_ros.load_limit import load_limit
from dysl_vla_ros.policy_options import AS_THE_FILES_SAY, PolicyOptions
from dysl_vla_ros.robot_contract import RobotContract
from dysl_vla_ros.settings import ModelSettings, RuntimeSettings
from dysl_vla_ros.worker.messages import (
    PROTOCOL,
    Answer,
    Fault,
    FrameSlots,
    Hello,
    Load,
    MessageError,
    Step,
    encode,
    memory_file,
    receive,
)
from dysl_vla_ros.worker.process import WorkerProcess, compute_threads

REQUEST_LIMIT = 128 << 10  # bytes: what an empty socket takes without waiting (its buffer has 208 KiB)
CLOSE_LIMIT = 5.0  # s that close waits for a callback that is running


@dataclass(frozen=True)
class WorkerSpec:
    """What the worker loads and where it runs; the fields are those of ``model.*``."""

    checkpoint: str
    adapters: str = ""
    device: str = "cpu"
    threads: int = 0  # 0: half the cores, at least 1
    python: str = ""  # "": the interpreter that runs this
    load_timeout: float = 60.0  # s
    noise: str = "fresh"
    noise_seed: int = 0
    dtype: str = ""
    runtime: str = "torch"
    export: str = ""
    options: PolicyOptions = AS_THE_FILES_SAY

    @classmethod
    def from_settings(cls, model: ModelSettings, robot: RobotContract | None = None) -> "WorkerSpec":
        """Take the worker's part of the ``model`` settings, and what the user says of the robot."""
        own = {field.name: getattr(model, field.name) for field in dataclasses.fields(cls) if field.name != "options"}
        own["load_timeout"] = load_limit(model)
        return cls(**own, options=PolicyOptions.of(model, robot or RobotContract()))


@dataclass(frozen=True)
class StepRequest:
    """One inference: an observation, and what was played since the last request."""

    episode: int  # another number than the last request's: guidance and policy state start afresh
    sequence: int
    observation: Observation
    played: FloatArray  # (n, A) physical units, as the policy gave them
    gaps: tuple[int, ...]  # places in played before which an underrun lay
    first_index: int  # of the chunk's first action that will be played
    settings: RuntimeSettings


@dataclass(frozen=True)
class StepReply:
    """The answer to one request: a result, or the text of what went wrong."""

    episode: int
    sequence: int
    result: StepResult | None
    error: str  # "" where there is a result
    transfer_ms: float  # round trip less the runtime's own time; also in the result's timings
    at_fault: str = ""  # THE_MODEL, THE_INSTRUCTION or THE_OBSERVATION; "" where there is a result
    warnings: tuple[str, ...] = ()  # of the policy about the instruction, with the first result of an episode


@dataclass(frozen=True)
class _InFlight:
    episode: int
    sequence: int
    since: float  # s, monotonic


class WorkerClient:
    """Owns one worker process, from ``start`` to ``close``; a lost or closed client is not started again.

    ``on_reply`` and ``on_lost`` are called from the client's own thread, never at the same time. ``on_lost`` comes at
    most once, never during ``start`` (which raises instead) and never after ``close``. Both callbacks may call
    ``submit`` and ``close``. Where ``on_reply`` raises it is called once more, with the exception as the error of the
    reply. An exception of that call or of ``on_lost`` is logged and changes nothing.

    Do not hold a lock that a callback takes while calling ``close`` from elsewhere: ``close`` waits for a callback that
    is running (at most ``CLOSE_LIMIT``).
    """

    def __init__(self, spec: WorkerSpec, on_reply: Callable[[StepReply], None], on_lost: Callable[[str], None]) -> None:
        self._spec = spec
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._changed = threading.Condition()  # guards everything below; never held while calling back or waiting
        self._closed = False
        self._ended = ""  # why there is no worker any more
        self._draft = ""  # see WorkerError
        self._process: WorkerProcess | None = None
        self._stream: socket.socket | None = None
        self._slots: FrameSlots | None = None
        self._description: PolicyDescription | None = None
        self._in_flight: _InFlight | None = None
        self._thread = threading.Thread(target=self._live, name="dysl_vla worker client", daemon=True)

    def start(self) -> PolicyDescription:
        """Start the worker, load and warm up; blocks at most ``load_timeout``.

        Raises:
            WorkerError: the worker's own reason, its last words, or that it took too long or was closed meanwhile.
        """
        with self._changed:
            assert self._thread.ident is None, "a WorkerClient is started once"
            if self._closed:
                raise WorkerError("the policy worker was closed before it was started")
            self._thread.start()
        limit = self._spec.load_timeout
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._description or self._ended or self._closed, limit)
                if self._description and not (self._ended or self._closed):
                    return self._description
                late = not (self._ended or self._closed)
                words = self._process.last_words() if self._process else ""
        except BaseException:  # a signal's exception in the main thread must not leave a worker behind
            self.close()
            raise
        if late:
            self.close()
            raise WorkerError(
                f"loading {self._spec.checkpoint} took longer than model.load_timeout ({limit:g} s); raise it, or give "
                f"the worker more of the machine{words}"
            )
        reason = self._ended or "the policy worker was closed while it was starting"
        self.close()
        raise WorkerError(reason, self._draft)

    def submit(self, request: StepRequest) -> None:
        """Send one observation; the reply comes through ``on_reply``. Does not wait.

        Raises:
            WorkerLostError: the worker is gone, or going; ``on_lost`` tells why.
            WorkerError: a request is in flight, or the worker takes none.
            ObservationError: a frame is missing, of a wrong kind, or too large for its slot (names the camera), or the
                rest of the request is too large.
        """
        with self._changed:
            if self._stream is None or self._slots is None:
                raise WorkerLostError(self._ended or "the policy worker is not running")
            if self._in_flight is not None:
                raise WorkerError(f"the policy worker still computes request {self._in_flight.sequence}")
            since = time.monotonic()
            data = encode(_step(request, self._slots.write(request.observation.images)))
            if len(data) > REQUEST_LIMIT:
                raise ObservationError(
                    f"a request of {len(data)} bytes beside its frames, at most {REQUEST_LIMIT} can be sent; the "
                    f"instruction has {len(request.observation.instruction)} characters: use a shorter one"
                )
            self._send(self._stream, data)
            self._in_flight = _InFlight(request.episode, request.sequence, since)

    @property
    def busy(self) -> bool:
        """Whether a request is in flight; false again before ``on_reply`` is called for it."""
        with self._changed:
            return self._in_flight is not None

    def busy_for(self) -> float:
        """Return for how many seconds the request in flight has been waiting; 0.0 when idle."""
        with self._changed:
            return time.monotonic() - self._in_flight.since if self._in_flight else 0.0

    @property
    def pid(self) -> int | None:
        """Process id of the worker while there is one."""
        with self._changed:
            return self._process.pid if self._process else None

    def close(self) -> None:
        """End the worker without waiting for a step. Idempotent, from any thread, also during ``start``.

        After it returns the process is gone and no callback comes; called from a callback, both hold when that returns.
        """
        with self._changed:
            self._closed = True
            if self._process:
                self._process.kill()
            if self._stream:
                with contextlib.suppress(OSError):
                    self._stream.shutdown(socket.SHUT_RDWR)  # wakes the thread even if the process cannot be killed
            self._changed.notify_all()
            started = self._thread.ident is not None
        if started and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_LIMIT)
            if self._thread.is_alive():
                _log.error("a callback of the policy worker has not returned for %g s", CLOSE_LIMIT)

    # From here on: the client's own thread.

    def _live(self) -> None:
        """Start, load, serve, bury; then tell, unless ``start`` or ``close`` does."""
        ready = False
        why = ""
        ours: socket.socket | None = None
        frames = -1
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                frames = memory_file()
                process = WorkerProcess(self._spec.python, compute_threads(self._spec.threads), theirs.fileno(), frames)
                with self._changed:  # at once: whatever comes next, it is to be buried
                    self._process = process
            with self._changed:
                if self._closed:
                    process.kill()
            description = self._load(ours, process)
            slots = FrameSlots(frames, description.cameras, writable=True)
            with self._changed:
                self._slots, self._stream, self._description = slots, ours, description
                ready = not self._closed
                self._changed.notify_all()
            if ready:
                self._serve(ours)
        except (WorkerError, OSError) as error:
            why, self._draft = str(error), getattr(error, "draft", "")
        except Exception as error:  # our own mistake: it must end in on_lost, not in a silent thread
            traceback.print_exception(error)
            why = f"unexpected: {type(error).__name__}: {error}"
        self._bury(ours, frames, why)
        if ready:
            self._call(self._on_lost, self._ended)

    def _load(self, stream: socket.socket, process: WorkerProcess) -> PolicyDescription:
        """Shake hands, have everything loaded, and return what was loaded.

        Raises:
            WorkerError: the worker's own reason, another version, or "" when it ended without a word.
        """
        hello = receive(stream)
        if hello is None:
            raise WorkerError("")
        if not isinstance(hello, Hello) or (hello.package, hello.protocol) != (__version__, PROTOCOL):
            theirs = f"{hello.package}, protocol {hello.protocol}" if isinstance(hello, Hello) else "unknown"
            raise WorkerError(
                f"the policy worker runs dysl_vla_ros {theirs}; this node has {__version__}, protocol {PROTOCOL}: "
                "install the same version for both"
            )
        process.forget_folder()
        spec = self._spec
        # The worker has another working directory: paths must not change their meaning.
        paths = (spec.checkpoint, spec.adapters, spec.options.tokenizer, spec.export)
        checkpoint, adapters, tokenizer, export = (os.path.abspath(path) if path else "" for path in paths)
        options = dataclasses.replace(spec.options, tokenizer=tokenizer)
        threads = compute_threads(spec.threads)
        order = Load(
            checkpoint, adapters, spec.device, threads, spec.noise, spec.noise_seed, spec.dtype, options, spec.runtime,
            export,
        )  # fmt: skip
        self._send(stream, encode(order))
        answer = receive(stream)
        if answer is None:
            raise WorkerError("")
        if isinstance(answer, Fault):
            raise WorkerError(answer.text, answer.draft)
        if not isinstance(answer, PolicyDescription):
            raise MessageError(f"a {type(answer).__name__} where the policy's description was expected")
        return answer

    def _serve(self, stream: socket.socket) -> None:
        """Pass answers on until the worker is gone."""
        while (answer := receive(stream)) is not None:
            with self._changed:
                request, self._in_flight = self._in_flight, None
                if self._closed:
                    return
            if not isinstance(answer, Answer) or request is None:
                raise MessageError(f"a {type(answer).__name__} that nothing asked for")
            if (answer.episode, answer.sequence) != (request.episode, request.sequence):
                raise MessageError(f"an answer to request {answer.sequence}, {request.sequence} was asked")
            self._hand_over(_reply(answer, time.monotonic() - request.since))

    def _bury(self, stream: socket.socket | None, frames: int, why: str) -> None:
        """Give back every descriptor, make sure that the process is gone, and note why: each whatever else fails."""
        with self._changed:
            slots, self._slots, self._stream, self._in_flight = self._slots, None, None, None
            process = self._process
        how = ""
        try:
            with contextlib.ExitStack() as parts:
                if frames >= 0:
                    parts.callback(os.close, frames)
                if slots:
                    parts.callback(slots.close)
                if stream:
                    parts.callback(stream.close)
        except Exception:
            _log.exception("giving back what the policy worker shared failed")
        try:
            if process and why:
                process.kill()  # it still runs, and what it says is not understood
            how = process.end() if process else ""
        except Exception as error:  # the end of this thread kills it
            _log.exception("ending the policy worker failed")
            how = f"could not be ended: {error!r}"
        finally:
            with self._changed:
                self._process = None
                self._ended = why or f"the policy worker {how}"
                self._changed.notify_all()

    def _send(self, stream: socket.socket, data: bytes) -> None:
        """Send all of ``data`` without waiting; a worker that takes less is as good as lost."""
        try:
            sent = stream.send(data, socket.MSG_DONTWAIT)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise WorkerLostError(f"the policy worker has hung up: {error.strerror or error}") from error
        except OSError as error:
            raise WorkerError(f"the policy worker takes no message: {error.strerror or error}") from error
        if sent != len(data):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            raise WorkerLostError(f"the policy worker took {sent} of {len(data)} bytes")

    def _hand_over(self, reply: StepReply) -> None:
        """Give ``on_reply`` an answer; where that raises, why, in the answer's place: somebody waits for it."""
        with self._changed:
            if self._closed:
                return
        try:
            self._on_reply(reply)
        except Exception as error:
            traceback.print_exception(error)
            lost = f"its answer was lost: {type(error).__name__}: {error}"
            self._call(self._on_reply, StepReply(reply.episode, reply.sequence, None, lost, 0.0, THE_MODEL))

    def _call(self, callback: Callable[[Any], None], argument: Any) -> None:
        with self._changed:
            if self._closed:
                return
        try:
            callback(argument)
        except Exception:  # the node guards its own callbacks; this thread must live on, or the worker dies with it
            _log.exception("a callback of the policy worker's client failed")


_log = logging.getLogger("dysl_vla.worker")


def _step(request: StepRequest, frames: dict[str, tuple[int, int]]) -> Step:
    return Step(
        episode=request.episode,
        sequence=request.sequence,
        frames=frames,
        proprioception=np.asarray(request.observation.proprioception, np.float32),
        instruction=request.observation.instruction,
        played=np.asarray(request.played, np.float32),
        gaps=request.gaps,
        first_index=request.first_index,
        settings=request.settings,
    )


def _reply(answer: Answer, round_trip: float) -> StepReply:
    result, transfer = answer.result, round_trip * 1000
    if result is not None:
        transfer -= result.timings.total
        result = dataclasses.replace(result, timings=dataclasses.replace(result.timings, transfer=transfer))
    error = "" if result is not None else answer.fault or "no result, no reason"
    return StepReply(answer.episode, answer.sequence, result, error, transfer, answer.at_fault, answer.warnings)
