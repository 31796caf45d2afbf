"""Frames of recordings in a file without a name, which two processes share by its descriptor: one writes, both read.

A run over a large policy looks at every frame many times, in an order of its own. Pictures stay in the file, as they
were recorded; what is read of it lies in memory for as long as somebody holds it. It is gone when the last process
that has it ends, however that ends.
"""

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import msgpack
import numpy as np

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import Observation

HEAD = struct.Struct("<QQ")  # bytes of a record's description, and of its pictures behind it


class FrameStore(Sequence[Observation]):
    """Observations by number, read-only arrays each; those of a slice are a sequence that reads them as they come."""

    def __init__(self, descriptor: int) -> None:
        """Read the file that ``descriptor`` has; it stays the caller's."""
        self._descriptor = descriptor
        self._offsets: list[int] = []
        self._end = 0
        self.refresh()

    def refresh(self) -> None:
        """Look for frames that were written since."""
        while len(head := os.pread(self._descriptor, HEAD.size, self._end)) == HEAD.size:
            self._offsets.append(self._end)
            self._end += HEAD.size + sum(HEAD.unpack(head))

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, number: int) -> Observation: ...
    @overload
    def __getitem__(self, number: slice) -> "StoreSlice": ...
    def __getitem__(self, number: "int | slice") -> "Observation | StoreSlice":
        if isinstance(number, slice):
            return StoreSlice(self, range(len(self))[number])
        offset = self._offsets[number]
        told, pixels = HEAD.unpack(os.pread(self._descriptor, HEAD.size, offset))
        about = msgpack.unpackb(_read(self._descriptor, told, offset + HEAD.size))
        data = np.frombuffer(_read(self._descriptor, pixels, offset + HEAD.size + told), np.uint8)
        images, place = {}, 0
        for camera, (height, width) in about["images"].items():
            size = height * width * 3
            images[camera] = data[place : place + size].reshape(height, width, 3)
            place += size
        return Observation(images, np.frombuffer(about["proprioception"], np.float32), about["instruction"])


class StoreSlice(Sequence[Observation]):
    """Some frames of a store, read when they are asked for."""

    def __init__(self, store: FrameStore, rows: range) -> None:
        self._store, self._rows = store, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, number: int) -> Observation: ...
    @overload
    def __getitem__(self, number: slice) -> "StoreSlice": ...
    def __getitem__(self, number: "int | slice") -> "Observation | StoreSlice":
        if isinstance(number, slice):
            return StoreSlice(self._store, self._rows[number])
        return self._store[self._rows[number]]


class FrameWriter:
    """Writes frames behind each other.

    Attributes:
        descriptor: of the file.
        count: frames that were written.
    """

    def __init__(self, folder: Path) -> None:
        """Make the file in ``folder``, without a name.

        Raises:
            DataError: it cannot be made.
        """
        try:
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by whoever has it
        except OSError as error:
            raise DataError(f"cannot write to {folder}: {error.strerror or error}; name another folder") from error
        self._begin(file, folder)

    def _begin(self, file: Any, folder: Path) -> None:
        self._file, self._folder, self._digest = file, folder, hashlib.sha256()
        self.descriptor, self.count = file.fileno(), 0

    @property
    def digest(self) -> str:
        """SHA-256 of what was written."""
        return self._digest.hexdigest()

    def add(self, frames: Iterable[Observation]) -> int:
        """Write frames; return how many.

        Raises:
            DataError: there is no room.
        """
        before = self.count
        self._file.seek(0, os.SEEK_END)  # another process may have written behind
        for frame in frames:
            images = {name: np.ascontiguousarray(image) for name, image in frame.images.items()}
            told = msgpack.packb(
                {
                    "images": {name: list(image.shape[:2]) for name, image in images.items()},
                    "proprioception": np.asarray(frame.proprioception, np.float32).tobytes(),
                    "instruction": frame.instruction,
                }
            )
            parts = [HEAD.pack(len(told), sum(image.nbytes for image in images.values())), told]
            try:
                for part in (*parts, *(image.data for image in images.values())):
                    self._file.write(part)
                    self._digest.update(part)
            except OSError as error:
                raise self._full(error) from error
            self.count += 1
        try:
            self._file.flush()
        except OSError as error:
            raise self._full(error) from error
        return self.count - before

    @classmethod
    def behind(cls, descriptor: int) -> "FrameWriter":
        """Return what writes behind the frames of a file that another process made; the descriptor stays the caller's.

        Its count and digest are of what it writes itself.
        """
        own = cls.__new__(cls)
        own._begin(os.fdopen(os.dup(descriptor), "r+b"), Path(f"/proc/self/fd/{descriptor}"))
        return own

    def take_over(self, count: int, digest: str) -> None:
        """Count frames that another process has written behind these, and their SHA-256."""
        self.count += count
        self._digest.update(digest.encode())

    def put_alone(self, frame: Observation) -> None:
        """Write one frame in place of everything that is there. Raises as :meth:`add`."""
        self._file.seek(0)
        self._file.truncate(0)
        self.count = 0
        self.add((frame,))

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _full(self, error: OSError) -> DataError:
        return DataError(
            f"{self._folder}: no room for frame {self.count} of the recordings ({self._file.tell() / 1e9:.1f} GB are "
            f"there): {error.strerror or error}; take fewer --observations or free space"
        )


def _read(descriptor: int, count: int, offset: int) -> bytes:
    parts = []
    while count and (part := os.pread(descriptor, count, offset)):
        parts.append(part)
        count, offset = count - len(part), offset + len(part)
    return b"".join(parts)
