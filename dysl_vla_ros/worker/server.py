"""The worker's side: loads a runtime, answers one step at a time, and ends with the node.

The method's package is imported after the first words, so that a wrong version is told before torch is loaded.
"""

import os
import select
import socket
import sys
import threading
import traceback
from typing import TYPE_CHECKING

from dysl_vla_ros import __version__
from dysl_vla_ros.errors import DyslVlaError, InstructionError, ObservationError
from dysl_vla_ros.interfaces import THE_INSTRUCTION, THE_MODEL, THE_OBSERVATION, Observation
from dysl_vla_ros.worker.messages import PROTOCOL, Answer, Fault, FrameSlots, Hello, Load, Step, encode, receive

if TYPE_CHECKING:
    from dysl_vla_ros.runtime.step import Runtime


def serve(stream: socket.socket, frames: int) -> int:
    """Speak with the node until it hangs up; return the exit code.

    Args:
        stream: the inherited end of the socket pair.
        frames: descriptor of the shared memory file.
    """
    threading.Thread(target=end_with, args=(stream,), name="hang-up", daemon=True).start()
    python = ".".join(map(str, sys.version_info[:3]))
    stream.sendall(encode(Hello(__version__, PROTOCOL, python)))
    order = receive(stream)
    if order is None:
        return 0
    assert isinstance(order, Load), f"a {type(order).__name__} where an order to load was expected"
    try:
        runtime = load(order)
        description = runtime.description
    except Exception as error:  # whatever it is, the node must hear the reason
        stream.sendall(encode(Fault(reason(error), getattr(error, "draft", ""))))
        return 1
    stream.sendall(encode(description))
    slots: FrameSlots | None = None
    episode: int | None = None
    while (step := receive(stream)) is not None:
        assert isinstance(step, Step), f"a {type(step).__name__} where a step was expected"
        if slots is None:  # the node has sized the file by now
            slots = FrameSlots(frames, description.cameras, writable=False)
        stream.sendall(encode(answer(runtime, step, slots, fresh=step.episode != episode)))
        episode = step.episode
    return 0


def load(order: Load) -> "Runtime":
    """Load and warm up, so that the first real step is no slower than the rest."""
    from dysl_vla_ros.runtime.noise import NoiseSettings
    from dysl_vla_ros.runtime.step import Runtime  # its engine imports torch, where it is torch

    noise = NoiseSettings(order.noise, order.noise_seed)
    runtime = Runtime.load(
        order.checkpoint, order.adapters, order.device, order.threads, noise, order.dtype,
        options=order.options, engine=order.runtime, export=order.export,
    )  # fmt: skip
    runtime.warm_up()
    return runtime


def answer(runtime: "Runtime", step: Step, slots: FrameSlots, *, fresh: bool) -> Answer:
    """Compute one step; a failure becomes a fault and the worker lives on.

    What the policy refuses is told apart from a fault of the model: nobody but the user can put that right.

    Args:
        runtime: what computes.
        step: the request.
        slots: where its frames lie; they are looked at, not copied.
        fresh: the episode is another one: guidance and the policy's state are forgotten first, and the instruction is
            checked before any picture is used.
    """
    warnings: tuple[str, ...] = ()
    try:
        if fresh:
            runtime.reset(step.episode)
            warnings = runtime.check_instruction(step.instruction)
        observation = Observation(slots.read(step.frames), step.proprioception, step.instruction)
        result = runtime.step(observation, step.played, step.settings, gaps=step.gaps, first_index=step.first_index)
    except InstructionError as error:
        return Answer(step.episode, step.sequence, None, reason(error), THE_INSTRUCTION)
    except ObservationError as error:
        return Answer(step.episode, step.sequence, None, reason(error), THE_OBSERVATION)
    except Exception as error:
        return Answer(step.episode, step.sequence, None, reason(error), THE_MODEL)
    return Answer(step.episode, step.sequence, result, "", warnings=warnings)


def reason(error: Exception) -> str:
    """Return an error as one line for the node; what no user can have caused also prints its traceback here."""
    if isinstance(error, DyslVlaError):
        return str(error) or type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        return f"{sys.executable} has no {error.name}; install it there, or name another Python in model.python"
    traceback.print_exception(error)
    return f"unexpected: {type(error).__name__}: {error}"


def end_with(stream: socket.socket) -> None:
    """End this process when the node hangs up, also in the middle of a step: nobody waits for its result.

    Where that cannot be noticed it ends at once: the node tells why.
    """
    code = 1
    try:
        watch = select.poll()
        watch.register(stream.fileno(), select.POLLRDHUP)
        watch.poll()
        code = 0
    except Exception as error:
        traceback.print_exception(error)
        sys.stderr.flush()
    finally:
        os._exit(code)
