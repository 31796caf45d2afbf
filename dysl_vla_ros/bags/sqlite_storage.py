"""One sqlite3 file of rosbag2, also cut off, damaged, or left behind with its journal.

The user's file is never written to. Where a journal lies beside it, both are copied and sqlite mends the copy.
SQLite has no checksums: a flipped byte inside a message cannot be seen here.
"""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path

from dysl_vla_ros.bags.storage import BROKEN, Definition, MessageIndex, StoredTopic, read_so_far
from dysl_vla_ros.bags.unpacking import unpacked
from dysl_vla_ros.errors import BagError

MAGIC = b"SQLite format 3\0"
JOURNALS = ("-journal", "-wal", "-shm")
MAX_TIME = 2**63 - 1  # ns


class SqliteFile:
    """An open sqlite3 storage file; everything about it is known when it has been made.

    Raises:
        OSError: the file cannot be opened or copied.
        BagError: it has no tables of rosbag2.
    """

    def __init__(self, path: Path, source: Path | None = None) -> None:
        """Scan ``source``, which is ``path`` or what was unpacked of it."""
        self.path = path
        self.topics: list[StoredTopic] = []
        self.index = MessageIndex()
        self.damage: list[str] = []
        self._rows = array("q")
        self._numbers: dict[int, int] = {}  # id of a topic -> place in topics
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lost = ("", "")  # what is known to be lost before anything is read: why, and what
        self._database = self._open(source or path)
        try:
            self._read_topics()
            self._scan()
            if self._lost[0]:
                self._fault(*self._lost)
        except BaseException:
            self.close()
            raise

    def read(self, number: int) -> bytes:
        """Return the bytes of a message."""
        return unpacked(self._data(self._rows[number]))

    def _data(self, row: int) -> bytes:
        try:
            found = self._database.execute("SELECT data FROM messages WHERE id = ?", (row,)).fetchone()
        except sqlite3.Error as error:
            raise ValueError(str(error)) from error
        if found is None or not isinstance(found[0], bytes):
            raise ValueError("a row cannot be found by its number")
        return bytes(found[0])

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _open(self, source: Path) -> sqlite3.Connection:
        """Connect to the file, or to a copy that sqlite may mend."""
        beside = [source.with_name(source.name + ending) for ending in JOURNALS]
        journals = [path for path in beside if path.is_file() and path.stat().st_size]
        size, page, whole = _sizes(source)
        if journals or size < whole:
            self._folder = tempfile.TemporaryDirectory(prefix="dysl-vla-bag-")
            copy = Path(self._folder.name) / source.name
            for path in (source, *journals):
                shutil.copyfile(path, copy.with_name(path.name))
            if not journals:
                os.truncate(copy, size - size % page)  # sqlite would take what lacks of a page as zeros
            source = copy
        database = sqlite3.connect(
            source.resolve().as_uri() + ("?mode=rw" if journals else "?mode=ro&immutable=1"), uri=True
        )
        database.text_factory = lambda raw: raw.decode(errors="replace")
        if journals:
            self._lost = "its writer was ended in the middle", "what it had not yet committed is missing"
        elif size < whole:
            self._lost = f"it is cut off, {size} of {whole} bytes are there", "what lay behind is missing"
        return database

    def _read_topics(self) -> None:
        definitions: dict[str, Definition] = {}
        try:
            self._database.execute("PRAGMA trusted_schema = OFF")
            self._database.execute("PRAGMA writable_schema = ON")  # or a file that is cut off is refused as a whole
            tables = {row[0] for row in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"topics", "messages"} <= tables:
                raise BagError(f"{self.path} is no bag: it is a database without the tables 'topics' and 'messages'")
            self._require_stored(tables & {"topics", "messages", "message_definitions"})
            if "message_definitions" in tables:
                columns = "topic_type, encoding, encoded_message_definition"
                for name, encoding, text in self._database.execute(f"SELECT {columns} FROM message_definitions"):
                    if encoding in ("ros2msg", "ros2idl") and isinstance(text, str) and text:
                        definitions[name] = Definition(encoding, text)
            topics = self._database.execute("SELECT id, name, type, serialization_format FROM topics ORDER BY id")
            for number, *words in topics:
                if not all(isinstance(word, str) for word in words):
                    raise ValueError("a topic's name or type is no text")
                name, kind, encoding = words
                self._numbers[number] = len(self.topics)
                self.topics.append(StoredTopic(name, kind, encoding, definitions.get(kind)))
        except BROKEN_ROWS as error:
            self._fault(f"its list of topics is damaged ({error})", "nothing more of it can be read")

    def _require_stored(self, tables: set[str]) -> None:
        """Refuse columns that are computed when they are read: a few bytes of SQL may stand for a gigabyte.

        Raises:
            BagError: there are some.
        """
        for table in sorted(tables):
            for _, column, *_, hidden in self._database.execute(f"PRAGMA table_xinfo({table})"):
                if hidden:
                    what = f"the column {column!r:.40} of its table {table!r} is computed, not stored"
                    raise BagError(f"{self.path} is no bag: {what}; name a folder of `ros2 bag record`")

    def _scan(self) -> None:
        """Read every message once, from the front; behind damage, from the back as far as that goes."""
        if not self._numbers:
            return
        try:
            for row in self._valid_rows("ASC"):
                self._add(row)
        except BROKEN_ROWS as error:
            before, last = read_so_far(self.index), self._rows[-1] if self._rows else None
            later: list[tuple[int, int, int]] = []
            with contextlib.suppress(*BROKEN_ROWS):
                for row in self._valid_rows("DESC"):
                    if last is not None and row[0] <= last:
                        break
                    later.append(row)
            for row in reversed(later):
                self._add(row)
            self.damage.append(
                f"{self.path.name}: it is damaged ({error}): {before}; {len(later)} messages were read behind the "
                "damage, those between are lost"
            )

    def _valid_rows(self, order: str) -> Iterator[tuple[int, int, int]]:
        """Give id, time and topic of each message, while they are what a writer of bags makes.

        Raises:
            sqlite3.Error: sqlite can read no further.
            ValueError: a row that is no message.
        """
        last: int | None = None
        for number, time, topic, data in self._database.execute(
            f"SELECT id, timestamp, topic_id, data FROM messages ORDER BY id {order}"
        ):
            in_order = last is None or (number > last) == (order == "ASC")
            whole = isinstance(time, int) and 0 <= time <= MAX_TIME and isinstance(data, bytes)
            if not in_order or not whole or topic not in self._numbers:
                raise ValueError("a row is not a message")
            if self._data(number) != data:  # the way to a row and the row itself are damaged apart
                raise ValueError("a row is another one when it is looked up")
            unpacked(data)
            last = number
            yield number, time, topic

    def _add(self, row: tuple[int, int, int]) -> None:
        self._rows.append(row[0])
        self.index.times.append(row[1])
        self.index.topics.append(self._numbers[row[2]])

    def _fault(self, what: str, lost: str) -> None:
        self.damage.append(f"{self.path.name}: {what}: {read_so_far(self.index)}; {lost}")


BROKEN_ROWS = (sqlite3.Error, *BROKEN)


def _sizes(path: Path) -> tuple[int, int, int]:
    """Return the size of a file, of one of its pages, and the size that its head says it has."""
    with path.open("rb") as file:
        head = file.read(32)
        size = file.seek(0, 2)
    page, pages = int.from_bytes(head[16:18], "big"), int.from_bytes(head[28:32], "big")
    page = 65536 if page == 1 else max(page, 512)
    return size, page, page * pages
