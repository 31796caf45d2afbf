"""Writes a bag of rosbag2 in mcap that survives its writer: what was flushed can be read after SIGKILL.

Messages are gathered in chunks in memory; at least once a second the chunk is closed, written and synced to the disk.
Until then nothing of it touches the file, so that the file always ends with whole chunks: a full disk is found out at
the sync, the half-written chunk is cut off again, and the number of messages that are on the disk is known.
"""

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from mcap.data_stream import RecordBuilder
from mcap.records import DataEnd, Footer
from mcap.writer import CompressionType, Writer

from dysl_vla_ros import __version__
from dysl_vla_ros.bags.folder import require_new
from dysl_vla_ros.bags.mcap_storage import MAGIC
from dysl_vla_ros.bags.message_types import known_store
from dysl_vla_ros.bags.metadata import OfferedQos, WrittenFile, WrittenTopic, metadata_text, qos_text
from dysl_vla_ros.errors import BagError, DyslVlaError
from dysl_vla_ros.files import write_text

FLUSH_PERIOD = 0.5  # s: half of what may be lost, so that a slow disk has the other half
METADATA_PERIOD = 5.0  # s between two updates of metadata.yaml
CHUNK_SIZE = 1 << 20  # bytes, before compression
SEQUENCE_LIMIT = 2**32


class BagWriter:
    """A bag that is being written. Use it in a ``with`` block, from one thread.

    Args:
        folder: made here; it may exist if it is empty.
        ros_distro: noted in the bag.

    Raises:
        BagError: the folder holds something, or cannot be written to.
    """

    def __init__(self, folder: Path, ros_distro: str = "") -> None:
        """Make the folder with an empty bag in it."""
        self.folder = folder = Path(folder)
        self._file = WrittenFile(f"{folder.absolute().name}_0.mcap", ros_distro=ros_distro)
        self._topics: dict[str, WrittenTopic] = {}
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self.messages = 0  # handed to write()
        self.on_disk = 0  # of them, synced to the disk
        self.bytes_on_disk = 0
        self.fault = ""  # why nothing more can be written, "" while it can
        self._counts_on_disk: dict[str, int] = {}
        require_new(folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self._descriptor = os.open(folder / self._file.name, flags, 0o644)
        except OSError as error:
            raise BagError(f"cannot write {folder / self._file.name}: {error.strerror or error}") from error
        self._buffer = _Buffer()
        self._writer = Writer(self._buffer, CHUNK_SIZE, CompressionType.ZSTD, enable_data_crcs=True)
        self._writer.start("ros2", f"dysl_vla_ros {__version__}")
        self._last_flush = self._last_metadata = time.monotonic()
        self._closed = False
        try:
            self.flush()
            self._write_metadata()
        except BaseException:
            os.close(self._descriptor)
            raise

    def add_topic(self, name: str, kind: str, qos: Sequence[OfferedQos] = ()) -> None:
        """Announce a topic; its definition is kept in the bag, so that it can be read anywhere.

        Args:
            name: full name, "/image".
            kind: "sensor_msgs/msg/Image".
            qos: what its publishers offer.

        Raises:
            BagError: the bag cannot be written any more.
        """
        assert name not in self._topics, f"topic {name} was added twice"
        self.flush()  # metadata.yaml, which is renewed here, never counts more than is on the disk
        text, type_hash = _definition(kind)
        if kind not in self._schemas:
            encoding = "ros2msg" if text else ""
            self._schemas[kind] = self._writer.register_schema(kind, encoding, text.encode())
        metadata = {"offered_qos_profiles": qos_text(qos), "topic_type_hash": type_hash}
        self._channels[name] = self._writer.register_channel(name, "cdr", self._schemas[kind], metadata)
        self._topics[name] = WrittenTopic(name, kind, type_hash, tuple(qos))
        self._file.topics = list(self._topics.values())
        self._write_metadata()

    def write(self, topic: str, time_ns: int, raw: bytes, published_ns: int | None = None) -> None:
        """Take a message of a topic that was added; it is on the disk after the next flush, at most a second later.

        Args:
            topic: full name.
            time_ns: when it was received, ns.
            raw: CDR.
            published_ns: when it was sent, ns (None: unknown).

        Raises:
            BagError: this or an earlier message could not be written; says how many are on the disk.
        """
        self._require_usable()
        written = self._topics[topic]
        self._writer.add_message(
            self._channels[topic],
            log_time=time_ns,
            data=raw,
            publish_time=time_ns if published_ns is None else published_ns,
            sequence=written.count % SEQUENCE_LIMIT,
        )
        written.count += 1
        if not self.messages:
            self._file.start = self._file.end = time_ns
        self._file.start, self._file.end = min(self._file.start, time_ns), max(self._file.end, time_ns)
        self.messages += 1
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Flush if the last time was half a second ago. Call it as well when no message comes.

        Raises:
            BagError: it cannot be written; says how many messages are on the disk.
        """
        if time.monotonic() - self._last_flush >= FLUSH_PERIOD:
            self.flush()

    def flush(self) -> None:
        """Close the chunk, write it and wait until the disk has it.

        Raises:
            BagError: it cannot be written; says how many messages are on the disk.
        """
        self._require_usable()
        self._last_flush = time.monotonic()
        self._writer.flush()
        self._sync()
        if time.monotonic() - self._last_metadata >= METADATA_PERIOD:
            self._write_metadata()

    def close(self) -> None:
        """Write what is left and the index. Idempotent.

        Raises:
            BagError: it cannot be written; says how many messages are on the disk. The file is let go of all the same.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if not self.fault:
                self._writer.flush()
                self._sync()  # first what cannot be had again
                self._writer.finish()
                self._sync()
                self._write_metadata()
        finally:
            os.close(self._descriptor)

    # -- the disk ----------------------------------------------------------------------------------------------------

    def _sync(self) -> None:
        """Put the buffer into the file and the file onto the disk."""
        data = memoryview(self._buffer.taken())
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError as error:
            self._fail(error.strerror or str(error))
        self.bytes_on_disk = self._buffer.tell()
        self.on_disk = self.messages
        self._counts_on_disk = {name: topic.count for name, topic in self._topics.items()}

    def _fail(self, reason: str) -> None:
        """End the file behind its last whole chunk and refuse everything from now on."""
        self.fault = (
            f"cannot write to {self.folder}: {reason}; {self.on_disk} of {self.messages} messages are on the disk and "
            "can be read; free space, or name another folder"
        )
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self.bytes_on_disk)
            os.lseek(self._descriptor, self.bytes_on_disk, os.SEEK_SET)
            os.write(self._descriptor, _end_without_index())
            os.fsync(self._descriptor)
        for topic in self._topics.values():
            topic.count = self._counts_on_disk.get(topic.name, 0)
        with contextlib.suppress(DyslVlaError):
            write_text(self.folder / "metadata.yaml", metadata_text(self._file))
        raise BagError(self.fault)

    def _write_metadata(self) -> None:
        self._last_metadata = time.monotonic()
        try:
            write_text(self.folder / "metadata.yaml", metadata_text(self._file))
        except DyslVlaError as error:
            self._fail(str(error))

    def _require_usable(self) -> None:
        assert not self._closed, "the bag is closed"
        if self.fault:
            raise BagError(self.fault)

    def __enter__(self) -> "BagWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Buffer:
    """What the mcap library writes to: memory, at the place in the file where it will stand."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._position = 0

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Do nothing: :meth:`taken` is the way to the disk."""

    def taken(self) -> bytes:
        """Return what was written since the last time, and forget it."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


def _end_without_index() -> bytes:
    """Return the end of an mcap file that has no summary: readers then go through it from the front."""
    builder = RecordBuilder()
    DataEnd(0).write(builder)
    Footer(summary_start=0, summary_offset_start=0, summary_crc=0).write(builder)
    return bytes(builder.end()) + MAGIC


def _definition(kind: str) -> tuple[str, str]:
    """Return a type's definition with all that it refers to, and its hash; "" for both where it is unknown here."""
    try:
        store = known_store(kind)
        return store.generate_msgdef(kind, ros_version=2)[0], store.hash_rihs01(kind)
    except (ValueError, KeyError, DyslVlaError):
        return "", ""
