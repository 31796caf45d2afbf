"""What node and worker say to each other: length, then msgpack. Nothing that is read here can run code.

Conversation on one stream socket, the node's side on the left::

                        <- Hello          at once, before torch is imported
    Load                ->
                        <- PolicyDescription, or Fault and the end
    Step                ->
                        <- StepResult, or Fault; one step in flight
    ...

A message is ``[kind, body]``; a dataclass travels as a map of its fields and is built again by its type hints,
strictly: unknown or missing fields, wrong types and arrays of another dtype are refused.

Frames go beside, through one sparse memory file without a name, one slot a camera (:class:`FrameSlots`). It has no
name, so nothing is left to clean up after a SIGKILL. Its pages exist once they are written to. One request is in flight
at a time, so that the slots belong to the worker from a request to its answer.
"""

import dataclasses
import fcntl
import mmap
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.errors import ObservationError, WorkerError
from dysl_vla_ros.interfaces import FloatArray, PolicyDescription, StepResult
from dysl_vla_ros.policy_options import AS_THE_FILES_SAY, PolicyOptions
from dysl_vla_ros.settings import RuntimeSettings
from dysl_vla_ros.typed_values import DTYPES, WrongValueError, build

PROTOCOL = 11  # raised by every change of a message
MESSAGE_LIMIT = 1 << 20  # bytes; the largest real one, a description, has a few thousand
LENGTH = struct.Struct("<I")
SLOT = 4096 * 3072 * 3  # bytes, a 12-megapixel picture; sparse, so that a small one costs what it needs


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
    options: PolicyOptions = AS_THE_FILES_SAY
    runtime: str = "torch"
    export: str = ""  # of ONNX Runtime alone


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
    draft: str = ""  # a block of a parameter file to fill in, where it is the contract that something is missing in


Kinds = Mapping[str, type[Any]]  # the name of each kind of message of a conversation -> the kind
KINDS: Kinds = {
    "hello": Hello, "load": Load, "description": PolicyDescription, "step": Step, "answer": Answer, "fault": Fault,
}  # fmt: skip


class MessageError(WorkerError):
    """Bytes that are no message of this protocol, or a message too large to send."""


def encode(message: Any, kinds: Kinds = KINDS) -> bytes:
    """Return the bytes of one message, its length in front; ``kinds``: of this conversation.

    Raises:
        MessageError: it is larger than ``MESSAGE_LIMIT``.
    """
    name = next(name for name, kind in kinds.items() if kind is type(message))
    payload: bytes = msgpack.packb([name, _plain(message)])
    if len(payload) > MESSAGE_LIMIT:
        raise MessageError(f"a {name} message of {len(payload)} bytes; at most {MESSAGE_LIMIT} can be sent")
    return LENGTH.pack(len(payload)) + payload


def decode(payload: bytes, kinds: Kinds = KINDS) -> Any:
    """Return the message in ``payload`` (without its length); ``kinds``: of this conversation.

    Raises:
        MessageError: these bytes are no message of this protocol.
    """
    try:
        parts = msgpack.unpackb(payload, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise MessageError(f"{len(payload)} bytes that are no msgpack: {error}") from error
    if not isinstance(parts, list) or len(parts) != 2 or not isinstance(parts[0], str) or parts[0] not in kinds:
        raise MessageError(f"no message of this protocol; there are {', '.join(kinds)}")
    try:
        return build(kinds[parts[0]], parts[1], parts[0])
    except WrongValueError as error:
        raise MessageError(str(error)) from error


def receive(stream: socket.socket, kinds: Kinds = KINDS) -> Any | None:
    """Wait for one message of ``kinds``; None when the other side has closed.

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
    return None if payload is None else decode(payload, kinds)


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


class FrameSlots:
    """One side's view of the slots of ``cameras``; both sides give the same cameras in the same order."""

    def __init__(self, descriptor: int, cameras: Sequence[str], *, writable: bool) -> None:
        """Map the memory file; the writable side makes it large enough first. The descriptor stays the caller's."""
        self._places = {camera: place * SLOT for place, camera in enumerate(cameras)}
        size = max(len(cameras), 1) * SLOT
        if writable:
            os.ftruncate(descriptor, size)
            # Neither side can cut the file: reading past a file's end would kill the node with SIGBUS.
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self._memory = mmap.mmap(descriptor, size, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)

    def write(self, images: Mapping[str, NDArray[np.uint8]]) -> dict[str, tuple[int, int]]:
        """Copy frames into their slots and return (height, width) of each. Checked first: all are written or none.

        Args:
            images: camera -> (height, width, 3) uint8 rgb, of any strides.

        Raises:
            ObservationError: a camera is missing or unknown, or its frame is of a wrong kind or too large.
        """
        if faults := [fault for camera in self._places | dict(images) if (fault := self._fault(camera, images))]:
            raise ObservationError("; ".join(faults))
        for camera, image in images.items():
            slot = np.frombuffer(self._memory, np.uint8, image.size, self._places[camera])
            target = slot.reshape(image.shape)
            if image.strides[1:] == target.strides[1:]:
                np.copyto(target, image)
            else:  # channels reversed, padded or repeated: one by one is four times as fast (0.8 ms for 1280x720)
                for channel in range(3):
                    target[:, :, channel] = image[:, :, channel]
        return {camera: (int(image.shape[0]), int(image.shape[1])) for camera, image in images.items()}

    def read(self, shapes: Mapping[str, tuple[int, int]]) -> dict[str, NDArray[np.uint8]]:
        """Return (height, width, 3) views of the slots, not copies: they change with the next request."""
        return {
            camera: np.frombuffer(self._memory, np.uint8, height * width * 3, self._places[camera]).reshape(
                height, width, 3
            )
            for camera, (height, width) in shapes.items()
        }

    def close(self) -> None:
        """Unmap. Views that ``read`` gave must be gone."""
        self._memory.close()

    def _fault(self, camera: str, images: Mapping[str, NDArray[np.uint8]]) -> str:
        if camera not in self._places:
            return f"camera {camera!r} is unknown; the policy has {', '.join(map(repr, self._places)) or 'none'}"
        if camera not in images:
            return f"camera {camera!r}: no frame; a missing camera is never replaced"
        image = images[camera]
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            kind = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            return f"camera {camera!r}: expected (height, width, 3) uint8, found {kind}"
        if image.size == 0:
            return f"camera {camera!r}: the frame is empty, shape {image.shape}"
        if image.size > SLOT:
            size = f"{image.shape[1]}x{image.shape[0]}"
            return f"camera {camera!r}: {size} does not fit ({image.size} of {SLOT} bytes); use a smaller picture"
        return ""


def memory_file() -> int:
    """Make the memory file and return its descriptor, which is not inherited unless asked for."""
    return os.memfd_create("dysl_vla_frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
