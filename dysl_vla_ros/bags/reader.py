"""Reads a bag of rosbag2: sqlite3 and mcap, split, compressed, and what is whole of a damaged one. No ROS is needed.

Everything is scanned once when the bag is opened, so that topics, counts and damage are known from the start; messages
are read from disk as they are asked for.
"""

import contextlib
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tqdm import tqdm

from dysl_vla_ros.bags.folder import PACKED, find_files, open_file
from dysl_vla_ros.bags.message_types import MessageTypes
from dysl_vla_ros.bags.storage import BROKEN, Definition, StoredFile, StoredTopic
from dysl_vla_ros.errors import BagError

PROGRESS_AFTER = 2.0  # s of scanning before a bar is shown


@dataclass(frozen=True)
class TopicInfo:
    """A topic of a bag."""

    type: str  # "sensor_msgs/msg/Image"
    count: int  # messages that can be read
    fault: str = ""  # why they cannot be deserialised; "": they can


@dataclass(frozen=True)
class BagMessage:
    """One message; it is deserialised when :attr:`message` is first asked for."""

    topic: str
    type: str
    time_ns: int  # when it was received, ns
    raw: bytes = field(repr=False)  # CDR
    _types: MessageTypes = field(repr=False, compare=False)

    @cached_property
    def message(self) -> Any:
        """The message: an object with the fields of its definition, arrays as numpy arrays.

        Raises:
            BagError: the type is unknown, or the bytes are damaged.
        """
        try:
            return self._types.deserialise(self.type, self.raw)
        except BagError as error:
            raise BagError(f"the message on {self.topic} received at {self.time_ns / 1e9:.3f} s: {error}") from error


class BagReader:
    """An open bag. Use it in a ``with`` block.

    Args:
        path: folder of rosbag2, with or without metadata.yaml, or one .mcap or .db3 file (perhaps with .zstd behind).

    Attributes:
        topics: name -> type and number of readable messages, sorted by name.
        start_ns: when the first message was received, ns.
        end_ns: when the last one was, ns.
        damage: one sentence for each loss: which file, how many messages were read, from where on they are lost. All
            of it is known after opening; flipped bytes where the writer left no checksum (sqlite3; mcap written
            without them) show at :attr:`BagMessage.message` only, or not at all.

    Raises:
        BagError: there is nothing that could be read; says why, and the mend.
    """

    def __init__(self, path: Path) -> None:
        """Open and scan."""
        self.path = Path(path)
        self._stack = contextlib.ExitStack()
        self._files: list[StoredFile] = []
        try:
            self.damage = tuple(self._open())
            self._order()
        except BaseException:
            self._stack.close()
            raise

    def _open(self) -> list[str]:
        """Open and scan every file; return what is damaged."""
        found = find_files(self.path)
        damage = [f"{name}: it is named in metadata.yaml and is missing" for name in found.missing]
        unpacked = found.path.parent
        if any(path.name.endswith(PACKED) for path in found.files):
            unpacked = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="dysl-vla-bag-")))
        faults: list[BagError] = []
        for path in tqdm(
            found.files, desc=f"scanning {self.path.name}", unit="file", delay=PROGRESS_AFTER, disable=None
        ):
            try:
                file = open_file(path, unpacked)
            except BagError as error:
                faults.append(error)
                damage.append(f"{path.name}: nothing of it can be read: {error}")
                continue
            self._stack.callback(file.close)
            self._files.append(file)
            damage += file.damage
        if not self._files:
            raise faults[0]
        count = sum(len(file.index) for file in self._files)
        if not count:
            reason = "; ".join(damage) or "nothing was recorded, or its writer was killed before it wrote anything"
            raise BagError(f"{self.path} holds no message: {reason}")
        if found.message_count is not None and found.message_count > count:
            lost = found.message_count - count
            damage.append(f"metadata.yaml counts {found.message_count} messages, {count} were read: {lost} are lost")
        return damage

    def _order(self) -> None:
        """Merge all files by time, and sum the topics up."""
        stored = [(number, topic) for number, file in enumerate(self._files) for topic in file.topics]
        first = np.cumsum([0, *(len(file.topics) for file in self._files)])  # place of each file's first topic
        indices = [file.index for file in self._files]
        times = np.concatenate([np.frombuffer(index.times, np.uint64) for index in indices])
        topics = np.concatenate(
            [np.frombuffer(index.topics, np.dtype("L")).astype(np.int64) + first[i] for i, index in enumerate(indices)]
        )
        files = np.concatenate([np.full(len(index), number) for number, index in enumerate(indices)])
        places = np.concatenate([np.arange(len(index)) for index in indices])
        order = np.argsort(times, kind="stable")  # of two received at one time, the one that was written first
        self._times, self._topics = times[order], topics[order]
        self._file_numbers, self._places = files[order], places[order]
        self._stored: list[StoredTopic] = [topic for _, topic in stored]
        self.start_ns, self.end_ns = int(self._times[0]), int(self._times[-1])
        self._types = MessageTypes(self._definitions())
        self.topics: Mapping[str, TopicInfo] = self._summed_up()

    def _definitions(self) -> dict[str, Definition | None]:
        found: dict[str, Definition | None] = {}
        for topic in self._stored:
            found[topic.type] = found.get(topic.type) or topic.definition
        return found

    def _summed_up(self) -> dict[str, TopicInfo]:
        counts = np.bincount(self._topics, minlength=len(self._stored))
        names: dict[str, dict[str, int]] = {}
        encodings: dict[str, str] = {}
        for topic, count in zip(self._stored, counts, strict=True):
            of_type = names.setdefault(topic.name, {})
            of_type[topic.type] = of_type.get(topic.type, 0) + int(count)
            encodings[topic.name] = topic.encoding
        infos = {}
        for name in sorted(names):
            kind = max(names[name], key=names[name].__getitem__)
            encoding = encodings[name]
            fault = self._types.faults.get(kind, "") if encoding == "cdr" else f"it is serialised as {encoding!r:.40}"
            infos[name] = TopicInfo(kind, sum(names[name].values()), fault)
        return infos

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """Give the messages of ``topics`` (None: of all) in the order in which they were received.

        Raises:
            BagError: a file changed or vanished since the bag was opened, or a message's own compression is damaged.
        """
        wanted = np.array([topics is None or topic.name in topics for topic in self._stored])
        for number in np.flatnonzero(wanted[self._topics]):
            topic = self._stored[self._topics[number]]
            file, place = self._files[self._file_numbers[number]], int(self._places[number])
            try:
                raw = file.read(place)
            except (OSError, *BROKEN) as error:
                raise BagError(f"cannot read message {place} of {file.path}: {error}") from error
            yield BagMessage(topic.name, topic.type, int(self._times[number]), raw, self._types)

    def close(self) -> None:
        """Let go of all files. Idempotent."""
        self._stack.close()

    def __enter__(self) -> "BagReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
