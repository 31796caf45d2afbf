"""The worker's side: loads a policy, then does one thing after the other that the command asks for.

Imports no more of other libraries than torch, numpy, safetensors and msgpack, and what the policy itself is made of.
"""

import logging
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dysl_vla_ros import __version__
from dysl_vla_ros.distillation.beside.progress import Interrupted, RunProgress
from dysl_vla_ros.errors import DyslVlaError, InstructionError, NonFiniteActionError, ObservationError
from dysl_vla_ros.interfaces import THE_INSTRUCTION, THE_MODEL, THE_OBSERVATION
from dysl_vla_ros.job_worker.messages import (
    KINDS,
    PIECE,
    AskFloor,
    AskOutputs,
    ChooseLayers,
    ChosenByWorker,
    Chunks,
    Copied,
    CopyFrames,
    DatasetPart,
    Distill,
    Done,
    FloorPart,
    FramesThere,
    KeepAndEnd,
    LogLine,
    OpenDataset,
    OpenSide,
    Readable,
    ReadInstruction,
    Remember,
    Remembered,
    Replayed,
    ReplayRuns,
    SaveThresholds,
    StepSide,
    Tell,
    TrainedByWorker,
    ValuesPart,
)
from dysl_vla_ros.readings import instruction_fault
from dysl_vla_ros.runs.frame_store import FrameStore, FrameWriter
from dysl_vla_ros.worker.messages import PROTOCOL, Answer, Fault, Hello, Load, encode, receive
from dysl_vla_ros.worker.server import end_with, reason

if TYPE_CHECKING:
    from dysl_vla_ros.calibration.remembered_passes import RememberedPasses
    from dysl_vla_ros.policies.lerobot.dataset import LeRobotFrames
    from dysl_vla_ros.runtime.folder import DyslFolder
    from dysl_vla_ros.runtime.step import Runtime

VALUES = 50_000  # in a piece


def serve(stream: socket.socket, frames: int, *, ends_process: bool = True) -> int:
    """Speak with the command until it hangs up; return the exit code.

    Args:
        stream: the inherited end of the socket pair.
        frames: descriptor of the file with frames.
        ends_process: end this process when the command hangs up, also in the middle of something.
    """
    if ends_process:
        threading.Thread(target=end_with, args=(stream,), name="hang-up", daemon=True).start()
    stream.sendall(encode(Hello(__version__, PROTOCOL, ".".join(map(str, sys.version_info[:3]))), KINDS))
    order = receive(stream, KINDS)
    if order is None:
        return 0
    assert isinstance(order, Load), f"a {type(order).__name__} where an order to load was expected"
    try:
        runtime = load(order)
    except Exception as error:  # whatever it is, the command must hear the reason
        stream.sendall(encode(Fault(reason(error), getattr(error, "draft", "")), KINDS))
        return 1
    stream.sendall(encode(runtime.description, KINDS))
    job, handler = JobServer(stream, frames, order, runtime), _Lines(stream)
    logger = logging.getLogger("dysl_vla_ros")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        while (order := receive(stream, KINDS)) is not None and not isinstance(order, KeepAndEnd):
            if not job.do(order):
                break
    finally:
        logger.removeHandler(handler)
    return 0


def load(order: Load) -> "Runtime":
    """Load the policy alone: every layer runs."""
    import torch

    from dysl_vla_ros.engines.torch.devices import device_named, dtype_named
    from dysl_vla_ros.policies.registry import load_policy
    from dysl_vla_ros.runtime.step import Runtime

    torch.set_num_threads(order.threads)
    device = device_named(order.device)
    return Runtime(load_policy(Path(order.checkpoint), device, dtype_named(order.dtype), order.options), None)


class JobServer:
    """What the command asked for so far, and what it needs for the next."""

    def __init__(self, stream: socket.socket, frames: int, order: Load, runtime: "Runtime") -> None:
        """Answer on ``stream`` for the policy of ``runtime``."""
        self._stream, self._order, self._runtime, self._store = stream, order, runtime, FrameStore(frames)
        self._descriptor = frames
        self._frames = FramesThere(0, 0)
        self._passes: RememberedPasses | None = None
        self._datasets: dict[int, LeRobotFrames] = {}
        self._sides: list[Runtime] = []
        self._folders: dict[str, DyslFolder | None] = {}  # of the sides, by name: each is loaded once
        self._folder = Path()
        self._m = 1
        self._answers: dict[type[Any], Callable[[Any], None]] = {
            ReadInstruction: self._read, FramesThere: self._take_frames, ChooseLayers: self._choose,
            Distill: self._distill, Remember: self._remember, ReplayRuns: self._replay, AskFloor: self._at_floor,
            AskOutputs: self._outputs,
            OpenDataset: self._open_dataset, CopyFrames: self._copy_frames, OpenSide: self._open_side,
            SaveThresholds: self._save, StepSide: self._step,
        }  # fmt: skip

    def do(self, order: Any) -> bool:
        """Answer one order; return whether another may come. What goes wrong is told, and this lives on."""
        try:
            self._answers[type(order)](order)
        except Interrupted:
            return False
        except Exception as error:  # the command prints the reason; what nobody can have caused has a traceback here
            self._send(Fault(reason(_out_of_memory(error))))
        return True

    def _send(self, message: Any) -> None:
        self._stream.sendall(encode(message, KINDS))

    @property
    def _progress(self) -> RunProgress:
        return RunProgress(lambda *told: self._send(Tell(*told)), self._asked_to_stop)

    def _asked_to_stop(self) -> bool:
        """Tell whether the command wants an end. It says nothing else while something is done for it."""
        if not select.select([self._stream], [], [], 0.0)[0]:
            return False
        said = receive(self._stream, KINDS)
        assert said is None or isinstance(said, KeepAndEnd), f"a {type(said).__name__} in the middle of something"
        return True

    def _read(self, order: ReadInstruction) -> None:
        fault = instruction_fault(order.text)
        if not fault:
            try:
                self._runtime.check_instruction(order.text)
            except InstructionError as error:
                fault = str(error)
        self._send(Readable(fault))

    def _take_frames(self, order: FramesThere) -> None:
        self._store.refresh()
        self._frames = order

    def _open_dataset(self, order: OpenDataset) -> None:
        from dysl_vla_ros.policies.lerobot.dataset import LeRobotFrames

        found = LeRobotFrames(Path(order.folder), self._runtime.description, order.remapped)
        self._datasets[order.number] = found
        stretches = found.stretches()
        for start in range(0, len(stretches), PIECE):
            texts, starts, ends = zip(*stretches[start : start + PIECE], strict=True)
            self._send(DatasetPart(texts, starts, ends))
        self._send(Done())

    def _copy_frames(self, order: CopyFrames) -> None:
        frames, writer = self._datasets[order.number], FrameWriter.behind(self._descriptor)
        try:
            for done, row in enumerate(order.rows, 1):
                if self._asked_to_stop():
                    raise Interrupted
                writer.add((frames[row],))
                self._progress.tell("reading the dataset", done, len(order.rows), "")
            self._send(Copied(writer.count, writer.digest))
        finally:
            writer.close()

    @property
    def _learned(self) -> Any:
        return self._store[: self._frames.learned]

    @property
    def _held_out(self) -> Any:
        return self._store[self._frames.learned : self._frames.learned + self._frames.held_out]

    def _choose(self, order: ChooseLayers) -> None:
        from dysl_vla_ros.distillation.beside.static_choice import choose_static_beside

        choice = choose_static_beside(
            self._runtime.policy, self._learned, self._held_out, order.count, order.wanted, order.trial,
            self._progress, order.together,
        )  # fmt: skip
        self._send(ChosenByWorker(choice.choice, choice.partition.static, choice.similarity, choice.floor_errors))

    def _distill(self, order: Distill) -> None:
        from dysl_vla_ros.distillation.beside.run import distill_beside

        held_out = self._held_out
        report, warnings = distill_beside(self._runtime.policy, self._learned, held_out, order.plan, self._progress)
        self._send(TrainedByWorker(report, tuple(warnings)))

    def _remember(self, order: Remember) -> None:
        from dysl_vla_ros.calibration.remembered_passes import RememberedPasses
        from dysl_vla_ros.calibration.tolerated import REMEMBERED_AT, set_tolerated_error
        from dysl_vla_ros.runs.full_depth import FullDepthRun
        from dysl_vla_ros.runtime.step import Runtime

        policy, self._folder, self._m = self._runtime.policy, Path(order.folder), order.m
        runtime = Runtime.beside(policy, self._order.checkpoint, order.folder, calibrated=False)
        assert runtime.dysl is not None
        set_tolerated_error(runtime.dysl.modules, REMEMBERED_AT)
        self._store.refresh()
        first, runs, total = self._frames.learned + self._frames.held_out, [], sum(order.runs)
        for number, count in enumerate(order.runs):
            seen = self._store[first : first + count]
            chunks = []
            for chunk in self._full_depth(seen, order.m):
                chunks.append(chunk)
                done = first - self._frames.learned - self._frames.held_out + len(chunks)
                self._progress.tell("full depth", done, total, "")
            runs.append(FullDepthRun(seen, np.stack(chunks)))
            for start in range(0, count, PIECE):
                self._send(Chunks(number, runs[-1].chunks[start : start + PIECE]))
            first += count
        self._passes = RememberedPasses(runtime, runs, prepared=False)
        partition, config = runtime.dysl.partition, runtime.dysl.config
        self._send(Remembered(partition.static, partition.per_block, config["partition"]["choice"]))

    def _full_depth(self, seen: Any, m: int) -> Iterator[np.ndarray]:
        """Yield the chunk (H, A) of every observation of an episode, every layer run."""
        from dataclasses import replace

        from dysl_vla_ros.settings import FULL_DEPTH

        runtime, settings = self._runtime, replace(FULL_DEPTH, actions_per_inference=m)
        runtime.reset()
        played = np.zeros((0, runtime.policy.action.dimensions), np.float32)
        for observation in seen:
            if self._asked_to_stop():
                raise Interrupted
            chunk = runtime.step(observation, played, settings).chunk.actions
            played = chunk[:m]
            yield chunk

    @property
    def _remembered(self) -> "RememberedPasses":
        assert self._passes is not None, "nothing is remembered yet"
        return self._passes

    def _replay(self, order: ReplayRuns) -> None:
        m, steps = order.settings.actions_per_inference, []
        for step in self._remembered.replay(order.settings, order.runs):
            if self._asked_to_stop():
                raise Interrupted
            steps.append(step)
        for start in range(0, len(steps), PIECE):
            part = steps[start : start + PIECE]
            self._send(
                Replayed(
                    np.stack([step.actions[:m] for step in part]).astype(np.float32),
                    tuple(step.layer_calls for step in part),
                    tuple(bool(step.verified) for step in part),
                    tuple(step.allow_points for step in part),
                    tuple(step.warming_up for step in part),
                )
            )
        self._send(Done())

    def _at_floor(self, order: AskFloor) -> None:
        for run, (chunks, says) in enumerate(self._remembered.at_floor(order.m)):
            for start in range(0, len(chunks), PIECE):
                own = slice(start, start + PIECE)
                self._send(FloorPart(run, chunks[own, : order.m].astype(np.float32), says[own].astype(np.float32)))
        self._send(Done())

    def _outputs(self, order: AskOutputs) -> None:
        values = self._remembered.outputs().astype(np.float32)
        for start in range(0, len(values), VALUES):
            self._send(ValuesPart(values[start : start + VALUES]))
        self._send(Done())

    def _save(self, order: SaveThresholds) -> None:
        from dysl_vla_ros.calibration.tolerated import set_tolerated_error
        from dysl_vla_ros.runtime.folder import save_dysl

        dysl, policy = self._remembered.dysl, self._runtime.policy
        set_tolerated_error(dysl.modules, order.tolerated_error)
        save_dysl(
            self._folder,
            dysl.partition,
            dysl.modules,
            family=policy.family,
            base_sha256=policy.weights_hash,
            choice=dysl.config["partition"]["choice"],
            module_sizes=dysl.module_sizes,
            calibration=order.calibration,
            training=dysl.config.get("training"),
        )
        self._send(Done())

    def _open_side(self, order: OpenSide) -> None:
        from dysl_vla_ros.runtime.noise import NoiseSettings
        from dysl_vla_ros.runtime.step import Runtime

        policy, noise = self._runtime.policy, NoiseSettings(self._order.noise, self._order.noise_seed)
        if order.adapters not in self._folders:
            self._folders[order.adapters] = Runtime.beside(policy, self._order.checkpoint, order.adapters).dysl
        side = Runtime(policy, self._folders[order.adapters], noise)
        side.warm_up()
        self._sides.append(side)
        self._send(side.description)

    def _step(self, order: StepSide) -> None:
        """Compute a step; what the observation or the model is at fault for is an answer, not the end."""
        side, result, fault, at_fault = self._sides[order.side], None, "", ""
        if order.begins:
            side.reset()
        try:
            result = side.step(FrameStore(self._descriptor)[0], order.played, order.settings, gaps=order.gaps)
        except InstructionError as error:
            fault, at_fault = str(error), THE_INSTRUCTION
        except ObservationError as error:
            fault, at_fault = str(error), THE_OBSERVATION
        except NonFiniteActionError as error:
            fault, at_fault = str(error), THE_MODEL
        self._send(Answer(0, 0, result, fault, at_fault))


def _out_of_memory(error: Exception) -> Exception:
    """Return what a user can do something about where memory has run out, else the error itself."""
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return DyslVlaError(
            f"out of memory: {str(error).splitlines()[0] if str(error) else type(error).__name__}; take fewer frames a "
            "pass (--together 1), or model.dtype bfloat16"
        )
    return error


class _Lines(logging.Handler):
    """Sends what is logged to the command."""

    def __init__(self, stream: socket.socket) -> None:
        super().__init__(logging.INFO)
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line."""
        self._stream.sendall(encode(LogLine(record.levelno, record.getMessage()), KINDS))
