"""What one file of a bag is to the reader: topics, an index of whole messages, their bytes, and what is damaged."""

import struct
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import zstandard
from mcap.exceptions import McapError

# What the readers of damaged files raise. RuntimeError is what lz4 raises.
BROKEN = (
    *(McapError, struct.error, ValueError, KeyError, IndexError, EOFError, OverflowError, MemoryError),
    *(zstandard.ZstdError, RuntimeError),
)


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
