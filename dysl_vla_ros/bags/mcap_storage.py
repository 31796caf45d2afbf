"""One mcap file (https://mcap.dev/spec), also cut off, unindexed or damaged.

The file is scanned once from the front; nothing depends on the summary at its end. Records are those of the mcap
library, but they are taken out of their frames here: its stream reader returns a shortened message at the end of a cut
file, and loses its place for good at a record whose inside is damaged.

A chunk whose checksum is wrong is left out whole. After damage, only chunks that are certain are taken: those with a
right checksum, and those where the file's own summary says that one begins.
"""

import struct
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TypeVar

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, ChunkIndex, DataEnd, Footer, Schema, Statistics

from dysl_vla_ros.bags.storage import (
    BROKEN,
    Definition,
    MessageIndex,
    StoredTopic,
    read_so_far,
)
from dysl_vla_ros.bags.unpacking import LARGEST_UNPACKED, decompressed_prefix, unpacked
from dysl_vla_ros.errors import BagError

MAGIC = b"\x89MCAP0\r\n"
KEPT_CHUNKS = 8  # unpacked chunks in memory, for chunks that overlap in time; fewer where they are large
MAX_RECORD = 2**31  # bytes; a longer record is a damaged length
MAX_SUMMARY = 2**28  # bytes; that of 100 GB in chunks of 1 MB has some 30 MB
RECORD_HEAD = struct.Struct("<BQ")  # opcode, length of what follows
MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence number, log time, publish time
DEFINITION_ENCODINGS = {"ros2msg": "ros2msg", "ros2idl": "ros2idl", "omgidl": "ros2idl"}
FOOTER_LENGTH = RECORD_HEAD.size + 20  # bytes
Record = TypeVar("Record", Channel, Chunk, ChunkIndex, DataEnd, Footer, Schema, Statistics)


class McapFile:
    """An open mcap file; everything about it is known when it has been made.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, source: Path | None = None) -> None:
        """Scan ``source``, which is ``path`` or what was unpacked of it."""
        self.path = path
        self.topics: list[StoredTopic] = []
        self.index = MessageIndex()
        self.damage: list[str] = []
        self._places = (array("l"), array("Q"), array("Q"))  # chunk (-1: none), offset, length of each message
        self._chunks: list[tuple[int, int]] = []  # offset and length of each chunk's record
        self._kept: OrderedDict[int, bytes | bytearray] = OrderedDict()
        self._kept_bytes = 0
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, Channel] = {}
        self._numbers: dict[int, int] = {}  # channel -> place in topics
        self._spare_channels: dict[int, Channel] = {}  # those of the summary, for one whose own record is lost
        self._unknown = 0  # messages of no known channel
        self._certain: list[int] = []  # offsets at which, by the summary, a chunk begins
        self._expected: int | None = None  # messages, by the summary
        self._ended = False  # all data was seen: what follows is an index
        self._broken = False  # damage was met: from now on, only what is certain is taken
        self._file = (source or path).open("rb")
        self._size = self._file.seek(0, 2)
        try:
            fault = self._read_summary()
            self._scan()
        except BaseException:
            self._file.close()
            raise
        if fault and not self.damage:
            self.damage.append(f"{path.name}: {fault}: {read_so_far(self.index)}; no message is lost")
        if self._unknown:
            self.damage.append(f"{path.name}: {self._unknown} messages are left out: their topic's record is lost")
        if self._expected is not None and self._expected > len(self.index):
            lost = self._expected - len(self.index)
            self.damage.append(f"{path.name}: {lost} of its {self._expected} messages are lost")

    def read(self, number: int) -> bytes:
        """Return the bytes of a message."""
        chunk, offset, length = (column[number] for column in self._places)
        if chunk < 0:
            self._file.seek(offset)
            return unpacked(self._file.read(length))
        return unpacked(bytes(memoryview(self._unpacked_chunk(chunk))[offset : offset + length]))

    def close(self) -> None:
        """Let go of the file."""
        self._kept.clear()
        self._file.close()

    # -- scanning ----------------------------------------------------------------------------------------------------

    def _read_summary(self) -> str:
        """Learn from the end of the file, if it is there, where chunks lie; return what is wrong with it, or ""."""
        self._file.seek(max(self._size - FOOTER_LENGTH - len(MAGIC), 0))
        tail = self._file.read(FOOTER_LENGTH)
        if len(tail) < FOOTER_LENGTH or tail[0] != Opcode.FOOTER:
            return ""  # the scan will meet the place from where on something is missing
        footer = _record(Footer, tail[RECORD_HEAD.size :])
        if footer.summary_start == 0:  # none was made
            return ""
        if not 0 < self._size - footer.summary_start <= MAX_SUMMARY:
            return "its index is damaged"
        self._file.seek(footer.summary_start)
        summary = self._file.read(self._size - len(MAGIC) - FOOTER_LENGTH - footer.summary_start)
        if footer.summary_crc not in (0, zlib.crc32(summary + tail[:-4])):  # 0: none was made
            return "its index is damaged"
        try:
            for opcode, _, body in _frames(summary):
                if opcode == Opcode.SCHEMA:
                    self._add_schema(_record(Schema, body))
                elif opcode == Opcode.CHANNEL:
                    channel = _record(Channel, body)
                    self._spare_channels[channel.id] = channel
                elif opcode == Opcode.CHUNK_INDEX:
                    self._certain.append(_record(ChunkIndex, body).chunk_start_offset)
                elif opcode == Opcode.STATISTICS:
                    self._expected = _record(Statistics, body).message_count
        except BROKEN as error:
            return f"its index is damaged ({error})"
        finally:
            self._certain.sort()
        return ""

    def _scan(self) -> None:
        self._file.seek(0)
        checksum: int | None = None
        position: int | None = len(MAGIC)
        if self._file.read(len(MAGIC)) == MAGIC:
            checksum = zlib.crc32(MAGIC)
        elif self._certain:
            self._fault(0, "the file does not begin as an mcap file does", "what is certain is taken all the same")
        else:
            raise BagError(f"{self.path} is no mcap file: its first bytes are not those of one")
        while position is not None:
            begin = position
            self._file.seek(begin)
            head = self._file.read(RECORD_HEAD.size)
            opcode, length = RECORD_HEAD.unpack(head) if len(head) == RECORD_HEAD.size else (0, 0)
            end = begin + RECORD_HEAD.size + length
            if not head or opcode == 0 or end > self._size or length > MAX_RECORD:
                self._note_lost_place(begin, len(head), opcode, end)
                position, checksum = self._next_certain(begin), None
                continue
            body = self._file.read(length)
            if opcode == Opcode.FOOTER and self._ended:
                if self._file.read(len(MAGIC)) != MAGIC:
                    self._fault(end, "its last bytes are missing", "no message is lost")
                return
            self._take(opcode, body, begin, checksum)
            checksum = zlib.crc32(body, zlib.crc32(head, checksum)) if checksum is not None else None
            position = end

    def _next_certain(self, begin: int) -> int | None:
        """Return where the next chunk begins for certain, None where that is not known."""
        return next((offset for offset in self._certain if offset > begin), None)

    def _take(self, opcode: int, body: bytes, begin: int, checksum: int | None) -> None:
        """Take one whole record; one that is damaged inside leaves the next one's place as it is.

        Args:
            opcode: what it is.
            body: what stands in its frame.
            begin: where it begins in the file.
            checksum: of all before it, None where that is not known.
        """
        try:
            if opcode == Opcode.SCHEMA:
                self._add_schema(_record(Schema, body))
            elif opcode == Opcode.CHANNEL:
                self._add_channel(_record(Channel, body))
            elif opcode == Opcode.CHUNK:
                self._take_chunk(_record(Chunk, body), begin, RECORD_HEAD.size + len(body))
            elif opcode == Opcode.MESSAGE and not self._broken:
                self._add_message(body, -1, begin + RECORD_HEAD.size)
            elif opcode == Opcode.DATA_END:
                self._ended = True
                self._check_data(_record(DataEnd, body), begin, checksum)
            elif opcode == Opcode.FOOTER:
                raise ValueError("an end in the middle")
        except BROKEN as error:
            self._fault(begin, f"a record is damaged ({error})", "it and what is not certain behind it are left out")

    def _check_data(self, record: DataEnd, begin: int, checksum: int | None) -> None:
        """Compare the checksum of everything that was read with the one that a careful writer left behind."""
        if self.damage or checksum is None or record.data_section_crc in (0, checksum):  # 0: none was made
            return
        self._fault(begin, "the checksum of all data is wrong", "which message is damaged cannot be told")

    def _take_chunk(self, chunk: Chunk, begin: int, length: int, cut: bool = False) -> None:
        """Index a chunk's messages; of one that is cut off, those in front of the cut."""
        fault = ""
        try:
            whole, data = decompressed_prefix(chunk.compression, chunk.data, chunk.uncompressed_size)
            cut = cut and len(data) < chunk.uncompressed_size  # else all is there, and only a length is damaged
            if not cut and not (whole and len(data) == chunk.uncompressed_size):
                fault = "a chunk cannot be unpacked"
            elif not cut and chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc:
                fault = "a chunk's checksum is wrong"
            elif self._broken and not chunk.uncompressed_crc and begin not in self._certain:
                fault = "a chunk without a checksum lies behind the damage"
        except ValueError as error:
            fault = f"a chunk cannot be unpacked ({error})"
        if fault:
            self._fault(begin, fault, f"its messages, from {chunk.message_start_time / 1e9:.3f} s on, are left out")
            return
        self._chunks.append((begin, length))
        try:
            for opcode, offset, body in _frames(data):
                if opcode == Opcode.MESSAGE:
                    self._add_message(body, len(self._chunks) - 1, offset)
                elif opcode == Opcode.SCHEMA:
                    self._add_schema(_record(Schema, body))
                elif opcode == Opcode.CHANNEL:
                    self._add_channel(_record(Channel, body))
        except BROKEN as error:
            if not cut:
                self._fault(begin, f"a chunk is damaged inside ({error})", "the rest of it is left out")

    def _add_schema(self, schema: Schema) -> None:
        self._schemas.setdefault(schema.id, schema)

    def _add_channel(self, channel: Channel) -> None:
        if channel.id in self._channels:
            return
        self._channels[channel.id] = channel
        schema = self._schemas.get(channel.schema_id)
        encoding = DEFINITION_ENCODINGS.get(schema.encoding) if schema else None
        definition = Definition(encoding, schema.data.decode(errors="replace")) if encoding and schema else None
        self._numbers[channel.id] = len(self.topics)
        topic = StoredTopic(channel.topic, schema.name if schema else "", channel.message_encoding, definition)
        self.topics.append(topic)

    def _add_message(self, body: bytes | memoryview, chunk: int, begin: int) -> None:
        """Index a message whose record's inside, ``body``, begins at ``begin`` of the file (chunk -1) or chunk."""
        channel, _, time, _ = MESSAGE_HEAD.unpack_from(body)
        if channel not in self._numbers and channel in self._spare_channels:
            self._add_channel(self._spare_channels[channel])
        if channel not in self._numbers:
            self._unknown += 1
            return
        self.index.times.append(time)
        self.index.topics.append(self._numbers[channel])
        place = (chunk, begin + MESSAGE_HEAD.size, len(body) - MESSAGE_HEAD.size)
        for column, value in zip(self._places, place, strict=True):
            column.append(value)

    # -- damage ------------------------------------------------------------------------------------------------------

    def _note_lost_place(self, begin: int, head: int, opcode: int, end: int) -> None:
        """Say what is wrong at ``begin``, from where the next record cannot be found."""
        if self._ended:
            self._fault(begin, "its index is cut off or damaged", "no message is lost")
        elif head == 0:
            self._fault(begin, "it was never closed", "what its writer had not yet written is missing")
        elif opcode == Opcode.CHUNK and not self._broken:
            self._take_cut_chunk(begin)
            self._fault(begin, "it is cut off within a chunk", "what followed is missing")
        elif end > self._size or head < RECORD_HEAD.size:
            self._fault(begin, "it is cut off", "what followed is missing")
        else:
            self._fault(begin, "a record is damaged", "what follows is left out where it is not certain")

    def _take_cut_chunk(self, begin: int) -> None:
        """Take the messages in front of the cut."""
        self._file.seek(begin + RECORD_HEAD.size)
        rest = self._file.read(MAX_RECORD)
        try:
            chunk = _record(Chunk, rest)  # the library gives as much of the data as there is
            self._take_chunk(chunk, begin, RECORD_HEAD.size + len(rest), cut=True)
        except BROKEN:
            return

    def _fault(self, begin: int, what: str, lost: str) -> None:
        self.damage.append(f"{self.path.name}: {what} at byte {begin}: {read_so_far(self.index)}; {lost}")
        self._broken = True

    def _unpacked_chunk(self, number: int) -> bytes | bytearray:
        """Return a chunk's bytes, from memory where it was read lately."""
        if number not in self._kept:
            begin, length = self._chunks[number]
            self._file.seek(begin + RECORD_HEAD.size)
            chunk = _record(Chunk, self._file.read(length - RECORD_HEAD.size))
            data = decompressed_prefix(chunk.compression, chunk.data, chunk.uncompressed_size)[1]
            while self._kept and (len(self._kept) >= KEPT_CHUNKS or self._kept_bytes + len(data) > LARGEST_UNPACKED):
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])
            self._kept[number] = data
            self._kept_bytes += len(data)
        self._kept.move_to_end(number)
        return self._kept[number]


def _frames(data: bytes | bytearray) -> Iterator[tuple[int, int, memoryview]]:
    """Take records out of their frames: opcode, offset of the inside, a view of the inside.

    Raises:
        ValueError: a record is longer than what there is.
        struct.error: what is there is shorter than a frame.
    """
    view, offset = memoryview(data), 0
    while offset < len(data):
        opcode, length = RECORD_HEAD.unpack_from(data, offset)
        offset += RECORD_HEAD.size
        body = view[offset : offset + length]
        if len(body) < length:
            raise ValueError("a record is longer than what it lies in")
        yield opcode, offset, body
        offset += length


def _record(kind: type[Record], body: bytes | memoryview) -> Record:
    """Read a record of the mcap library from what stands in its frame."""
    return kind.read(ReadDataStream(BytesIO(body)))
