"""What one file of a bag is to the reader: topics, an index of whole messages, their bytes, and what is damaged."""

import struct
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import lz4.frame
import zstandard
from mcap.exceptions import McapError

# What the readers of damaged files raise. RuntimeError is what lz4 raises.
BROKEN = (
    *(McapError, struct.error, ValueError, KeyError, IndexError, EOFError, OverflowError, MemoryError),
    *(zstandard.ZstdError, RuntimeError),
)
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # no CDR message begins so: its first byte is 0


@dataclass(frozen=True)
class Definition:
    """The text that a bag keeps to explain a message type."""

    encoding: str  # "ros2msg" or "ros2idl"
    text: str


@dataclass(frozen=True)
class StoredTopic:
    """A topic as one file has it."""

    name: str
    type: str
    encoding: str = "cdr"
    definition: Definition | None = None


@dataclass
class MessageIndex:
    """When and on which topic each whole message of a file was received, in the order in which they lie there."""

    times: "array[int]" = field(default_factory=lambda: array("Q"))  # ns
    topics: "array[int]" = field(default_factory=lambda: array("L"))  # places in StoredFile.topics

    def __len__(self) -> int:
        return len(self.times)


class StoredFile(Protocol):
    """One storage file, scanned when it was opened."""

    path: Path
    topics: list[StoredTopic]
    index: MessageIndex
    damage: list[str]  # what was lost, in sentences that begin with the file's name

    def read(self, number: int) -> bytes:
        """Return the bytes of message ``number`` of the index."""

    def close(self) -> None:
        """Let go of the file."""


def read_so_far(index: MessageIndex) -> str:
    """Say how many messages were read, and up to when: the beginning of every sentence on damage."""
    if not len(index):
        return "no message was read"
    first, last = min(index.times), max(index.times)
    return f"{len(index)} messages were read, up to {last / 1e9:.3f} s ({(last - first) / 1e9:.2f} s after the first)"


def unpacked(raw: bytes) -> bytes:
    """Return a message's bytes, decompressed where each message of the bag was compressed by itself (zstd).

    Raises:
        ValueError: the compressed bytes are damaged.
    """
    if raw[:4] != ZSTD_MAGIC:
        return raw
    whole, data = decompressed_prefix("zstd", raw)
    if not whole:
        raise ValueError("a compressed message is damaged")
    return data


def decompressed_prefix(compression: str, data: bytes) -> tuple[bool, bytes]:
    """Decompress as far as possible.

    Args:
        compression: "zstd", "lz4" (frames) or "" for none.
        data: compressed bytes, perhaps cut off or damaged.

    Returns:
        Whether all of it came out, and what came out before the damage.

    Raises:
        ValueError: unknown compression.
    """
    if compression == "":
        return True, data
    if compression not in ("zstd", "lz4"):
        raise ValueError(f"unknown compression {compression!r:.40}")
    pieces: list[bytes] = []
    while data:
        unpacker = (
            zstandard.ZstdDecompressor().decompressobj() if compression == "zstd" else lz4.frame.LZ4FrameDecompressor()
        )
        try:
            for begin in range(0, len(data), _STEP):
                pieces.append(unpacker.decompress(data[begin : begin + _STEP]))
                if unpacker.eof:
                    data = (unpacker.unused_data or b"") + data[begin + _STEP :]
                    break
            else:
                return False, b"".join(pieces)
        except BROKEN:
            return False, b"".join(pieces)
    return True, b"".join(pieces)


_STEP = 1 << 17  # bytes handed to a decompressor at once: what came out before a fault is kept
