"""Decompresses what bags hold, as far as it is whole and no further than a limit.

Thirty kilobytes of zstd may say of themselves that they are a gigabyte, and be it. What is said is compared with the
limit before anything is unpacked; where nothing is said, unpacking ends at the limit. zstd is unpacked in pieces of
output, since one byte of input may give 32 kB; of lz4, where it gives 255 bytes at most, small pieces of input serve.
"""

import contextlib
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import lz4.frame
import zstandard

from dysl_vla_ros.bags.storage import BROKEN
from dysl_vla_ros.errors import BagError

LARGEST_UNPACKED = 256 * 2**20  # bytes of a message or chunk; an image of the largest size that is read has 38 MB
SPARE_DISK = 64 * 2**20  # bytes that are left free where a whole file is unpacked
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # no CDR message begins so: its first byte is 0
SKIPPABLE = 0x184D2A5  # of zstd, without the last four bits: what is no data
REST_IS_READ = "what could be unpacked is read"
LONGEST_HEAD = 18  # bytes of a zstd frame in front of its blocks
_OUTPUT_STEP = 1 << 17  # bytes; what came out before a fault is kept
_INPUT_STEP = 1 << 13  # bytes of lz4


class TooLargeError(ValueError):
    """What is compressed is larger than what is read."""

    def __init__(self, said: int | None, limit: int) -> None:
        """Say so; ``said``: bytes that it says of itself, None: it says nothing."""
        found = f"unpacks to more than {limit} bytes" if said is None else f"says that it unpacks to {said} bytes"
        super().__init__(f"it {found}, at most {limit} are read; record or convert the bag with smaller chunks")


def unpacked(raw: bytes) -> bytes:
    """Return a message's bytes, decompressed where each message of the bag was compressed by itself (zstd).

    Raises:
        ValueError: the compressed bytes are damaged, or larger than LARGEST_UNPACKED.
    """
    if raw[:4] != ZSTD_MAGIC:
        return raw
    whole, data = decompressed_prefix("zstd", raw)
    if not whole:
        raise ValueError("a compressed message is damaged")
    return bytes(data)


def decompressed_prefix(compression: str, data: bytes, said: int | None = None) -> tuple[bool, bytes | bytearray]:
    """Decompress as far as possible.

    Args:
        compression: "zstd", "lz4" (frames) or "" for none.
        data: compressed bytes, perhaps cut off or damaged.
        said: bytes that it is said to be when decompressed; more are not unpacked. None: nothing is said.

    Returns:
        Whether all of it came out, and what came out before the damage.

    Raises:
        ValueError: unknown compression.
        TooLargeError: it is, or says that it is, larger than LARGEST_UNPACKED, or larger than ``said``.
    """
    if compression == "":
        return True, data
    if compression not in ("zstd", "lz4"):
        raise ValueError(f"unknown compression {compression!r:.40}")
    source = BytesIO(data)
    declared = _declared(source) if compression == "zstd" else None
    for size in (said, declared):
        if size is not None and size > LARGEST_UNPACKED:
            raise TooLargeError(size, LARGEST_UNPACKED)
    limit = LARGEST_UNPACKED if said is None else said
    found = bytearray()
    whole = compression == "lz4" or zstd_ends_whole(source)
    try:
        for piece in _zstd_pieces(source) if compression == "zstd" else _lz4_pieces(data):
            found += piece
            if len(found) > limit:
                found.clear()  # the error's traceback would keep it
                raise TooLargeError(None, limit)
    except TooLargeError:
        raise
    except BROKEN:
        whole = False
    return whole, found


def unpack_file(path: Path, target: Path) -> str:
    """Decompress a whole file of zstd; return a sentence on its damage, "" if there is none.

    Raises:
        BagError: there is no room for it where ``target`` is to lie.
        OSError: ``path`` cannot be read.
    """
    room = max(shutil.disk_usage(target.parent).free - SPARE_DISK, 0)
    with path.open("rb") as source:
        said = _declared(source)
        if said is not None and said > room:
            raise _no_room(path, f"says that it unpacks to {said} bytes, {room} may be used", target)
        whole, size = zstd_ends_whole(source), 0
        with target.open("wb") as out:
            try:
                for piece in _zstd_pieces(source):
                    size += len(piece)
                    if size > room:
                        raise _no_room(path, f"unpacks to more than the {room} bytes that may be used", target)
                    try:
                        out.write(piece)
                    except OSError as error:
                        raise _no_room(path, f"cannot be unpacked: {error.strerror or error}", target) from error
            except zstandard.ZstdError as error:
                return f"{path.name}: it is damaged ({error}) before byte {source.tell()}: {REST_IS_READ}"
    return "" if whole else f"{path.name}: it is cut off at byte {path.stat().st_size}: {REST_IS_READ}"


def zstd_ends_whole(source: BinaryIO) -> bool:
    """Tell whether the last zstd frame ends where the data does, by the lengths of the blocks alone."""
    size, at = source.seek(0, 2), 0
    while at < size:
        source.seek(at)
        head = source.read(LONGEST_HEAD)
        if int.from_bytes(head[:4], "little") >> 4 == SKIPPABLE:
            at += 8 + int.from_bytes(head[4:8], "little")
            continue
        try:
            checksum = zstandard.get_frame_parameters(head).has_checksum
            at += zstandard.frame_header_size(head)
        except zstandard.ZstdError:
            return False
        last = False
        while not last:
            source.seek(at)
            block = source.read(3)
            if len(block) < 3:
                return False
            value = int.from_bytes(block, "little")
            last, kind, length = bool(value & 1), value >> 1 & 3, value >> 3
            at += 3 + (1 if kind == 1 else length)  # 1: one byte that is repeated
        at += 4 * checksum
    return at == size


def _declared(source: BinaryIO) -> int | None:
    """Return the bytes that the first zstd frame says it unpacks to, None where it says nothing."""
    source.seek(0)
    with contextlib.suppress(zstandard.ZstdError):
        size = zstandard.get_frame_parameters(source.read(LONGEST_HEAD)).content_size
        return None if size in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR) else int(size)
    return None


def _zstd_pieces(source: BinaryIO) -> Iterator[bytes]:
    source.seek(0)
    reader = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True, closefd=False)
    while piece := reader.read(_OUTPUT_STEP):
        yield piece


def _lz4_pieces(data: bytes) -> Iterator[bytes]:
    """Give what comes out.

    Raises:
        EOFError: the last frame does not end.
        RuntimeError: it is damaged.
    """
    at = 0
    while at < len(data):
        unpacker = lz4.frame.LZ4FrameDecompressor()
        while not unpacker.eof:
            if at >= len(data):
                raise EOFError("it does not end")
            yield unpacker.decompress(data[at : at + _INPUT_STEP])
            at += _INPUT_STEP
        at = min(at, len(data)) - len(unpacker.unused_data or b"")


def _no_room(path: Path, what: str, target: Path) -> BagError:
    return BagError(f"{path} {what} in {target.parent}; free space there, or name another folder in TMPDIR")
