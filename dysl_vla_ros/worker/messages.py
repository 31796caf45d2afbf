"""What node and worker say to each other: length, then msgpack. Nothing that is read here can run code.

Conversation on one stream socket, the node's side on the left::

                        <- Hello          at once, before torch is imported
    Load                ->
                        <- PolicyDescription, or Fault and the end
    Step                ->
                        <- StepResult, or Fault; one step in flight
    ...

A message is ``[kind, body]``; a dataclass travels as a map of its fields and is built again by its type hints,
strictly: unknown or missing fields, wrong types and arrays of another dtype are refused. Frames do not travel here
(``frames``).
"""

import dataclasses
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from dysl_vla_ros.errors import WorkerError
from dysl_vla_ros.interfaces import FloatArray, PolicyDescription, StepResult
from dysl_vla_ros.settings import RuntimeSettings
from dysl_vla_ros.typed_values import DTYPES, WrongValueError, build

PROTOCOL = 6  # raised by every change of a message
MESSAGE_LIMIT = 1 << 20  # bytes; the largest real one, a description, has a few thousand
LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Hello:
    """The worker's first words."""

    package: str
    protocol: int
    python: str


@dataclass(frozen=True)
class Load:
    """What to load, and where it runs."""

    checkpoint: str
    adapters: str
    device: str
    threads: int
    noise: str
    noise_seed: int
    dtype: str


@dataclass(frozen=True)
class Step:
    """One inference; the frames lie in the shared memory file when this is read."""

    episode: int
    sequence: int
    frames: Mapping[str, tuple[int, int]]  # camera -> height, width
    proprioception: FloatArray  # (P,)
    instruction: str
    played: FloatArray  # (n, A)
    gaps: tuple[int, ...]  # places in played before which an underrun lay
    first_index: int
    settings: RuntimeSettings


@dataclass(frozen=True)
class Answer:
    """The result of one step, or why there is none (``fault``) and what is at fault."""

    episode: int
    sequence: int
    result: StepResult | None
    fault: str
    at_fault: str = ""  # THE_MODEL, THE_INSTRUCTION or THE_OBSERVATION; "" where there is a result
    warnings: tuple[str, ...] = ()  # of the policy about the instruction, with the first step of an episode


@dataclass(frozen=True)
class Fault:
    """Why nothing could be loaded."""

    text: str


KINDS: dict[str, type[Any]] = {
    "hello": Hello, "load": Load, "description": PolicyDescription, "step": Step, "answer": Answer, "fault": Fault,
}  # fmt: skip
NAMES = {kind: name for name, kind in KINDS.items()}


class MessageError(WorkerError):
    """Bytes that are no message of this protocol, or a message too large to send."""


def encode(message: Any) -> bytes:
    """Return the bytes of one message, its length in front.

    Raises:
        MessageError: it is larger than ``MESSAGE_LIMIT``.
    """
    name = NAMES[type(message)]
    payload: bytes = msgpack.packb([name, _plain(message)])
    if len(payload) > MESSAGE_LIMIT:
        raise MessageError(f"a {name} message of {len(payload)} bytes; at most {MESSAGE_LIMIT} can be sent")
    return LENGTH.pack(len(payload)) + payload


def decode(payload: bytes) -> Any:
    """Return the message in ``payload`` (without its length).

    Raises:
        MessageError: these bytes are no message of this protocol.
    """
    try:
        parts = msgpack.unpackb(payload, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise MessageError(f"{len(payload)} bytes that are no msgpack: {error}") from error
    if not isinstance(parts, list) or len(parts) != 2 or not isinstance(parts[0], str) or parts[0] not in KINDS:
        raise MessageError(f"no message of this protocol; there are {', '.join(KINDS)}")
    try:
        return build(KINDS[parts[0]], parts[1], parts[0])
    except WrongValueError as error:
        raise MessageError(str(error)) from error


def receive(stream: socket.socket) -> Any | None:
    """Wait for one message; None when the other side has closed.

    Raises:
        MessageError: what came is no message, or one larger than ``MESSAGE_LIMIT``.
    """
    head = _read(stream, LENGTH.size)
    if head is None:
        return None
    (length,) = LENGTH.unpack(head)
    if length > MESSAGE_LIMIT:
        raise MessageError(f"a message of {length} bytes was announced; at most {MESSAGE_LIMIT} are taken")
    payload = _read(stream, length)
    return None if payload is None else decode(payload)


def _read(stream: socket.socket, count: int) -> bytes | None:
    """Read exactly ``count`` bytes; None at the end of the stream, also in the middle of a message."""
    parts = []
    while count:
        try:
            part = stream.recv(min(count, 1 << 16))
        except ConnectionError:
            return None
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _plain(value: Any) -> Any:
    """Return ``value`` as what msgpack knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        assert value.dtype.name in DTYPES, f"an array of {value.dtype} is not sent"
        return {"shape": list(value.shape), "dtype": value.dtype.name, "bytes": value.tobytes()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
