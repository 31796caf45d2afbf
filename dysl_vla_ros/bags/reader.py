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
from numpy.typing import NDArray
from tqdm import tqdm

from dysl_vla_ros.bags.folder import PACKED, find_files, open_file
from dysl_vla_ros.bags.message_types import MessageTypes
from dysl_vla_ros.bags.order import SetBack, reading_order
from dysl_vla_ros.bags.storage import BROKEN, Definition, StoredFile, StoredTopic
from dysl_vla_ros.errors import BagError

PROGRESS_AFTER = 2.0  # s of scanning before a bar is shown


@dataclass(frozen=True)
class TopicInfo:
    """A topic of a bag."""

    type: str  # "sensor_msgs/msg/Image"
    count: int  # messages that can be read
    fault: str = ""  # why they cannot be deserialised; "": they can
    rate: float = 0.0  # Hz, by the median of the gaps: a pause or a late begin changes nothing; 0: fewer than two


@dataclass(frozen=True)
class BagMessage:
    """One message; it is deserialised when :attr:`message` is first asked for."""

    topic: str
    type: str
    time_ns: int  # when it was received, ns
    segment: int  # number of times that the clock had been set back by then
    elapsed_ns: int  # since the bag's first message; a clock that is set back does not set this back
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
        end_ns: when the last one was, ns; less than ``start_ns`` where the clock was set back by more than it ran.
        seconds: from the first message to the last one; a clock that is set back takes nothing away.
        set_backs: by how many seconds the clock was set back before each segment but the first.
        damage: one sentence for each loss: which file, how many messages were read, from where on they are lost; and
            one for each time that the clock was set back. All of it is known after opening; flipped bytes where the
            writer left no checksum (sqlite3; mcap written without them) show at :attr:`BagMessage.message` only, or
            not at all.

    Raises:
        BagError: there is nothing that could be read; says why, and the mend.
    """

    def __init__(self, path: Path) -> None:
        """Open and scan."""
        self.path = Path(path)
        self._stack = contextlib.ExitStack()
        self._files: list[StoredFile] = []
        try:
            damage = self._open()
            self.damage = (*damage, *self._order())
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

    def _order(self) -> list[str]:
        """Put all files into one order, and sum the topics up; return where the clock was set back."""
        stored = [(number, topic) for number, file in enumerate(self._files) for topic in file.topics]
        first = np.cumsum([0, *(len(file.topics) for file in self._files)])  # place of each file's first topic
        indices = [file.index for file in self._files]
        times = np.concatenate([np.frombuffer(index.times, np.uint64) for index in indices])
        topics = np.concatenate(
            [np.frombuffer(index.topics, np.dtype("L")).astype(np.int64) + first[i] for i, index in enumerate(indices)]
        )
        files = np.concatenate([np.full(len(index), number) for number, index in enumerate(indices)])
        places = np.concatenate([np.arange(len(index)) for index in indices])
        self._stored: list[StoredTopic] = [topic for _, topic in stored]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(topic.name for topic in self._stored))}
        named = np.array([numbers[topic.name] for topic in self._stored], np.int64)
        order = reading_order(times, named[topics])
        self._times, self._topics = times[order.places], topics[order.places]
        self._file_numbers, self._places = files[order.places], places[order.places]
        self._segments, self._elapsed = order.segments, order.elapsed
        self.start_ns, self.end_ns = int(self._times[0]), int(self._times[-1])
        self.seconds = float(self._elapsed[-1]) * 1e-9
        self.set_backs = tuple(set_back.seconds for set_back in order.set_backs)
        self._types = MessageTypes(self._definitions())
        rates = {name: self._rate(named[self._topics] == number) for name, number in numbers.items()}
        self.topics: Mapping[str, TopicInfo] = self._summed_up(rates)
        return [
            _set_back_sentence(own, self._files[files[own.place]].path.name, int(places[own.place]))
            for own in order.set_backs
        ]

    def _rate(self, those: NDArray[np.bool_]) -> float:
        """Return how many of these messages come in a second, by the median of the gaps between them."""
        gaps = np.diff(self._elapsed[those])
        usual = float(np.median(gaps)) if len(gaps) else 0.0
        return 1e9 / usual if usual else 0.0

    def _definitions(self) -> dict[str, Definition | None]:
        found: dict[str, Definition | None] = {}
        for topic in self._stored:
            found[topic.type] = found.get(topic.type) or topic.definition
        return found

    def _summed_up(self, rates: Mapping[str, float]) -> dict[str, TopicInfo]:
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
            infos[name] = TopicInfo(kind, sum(names[name].values()), fault, rates[name])
        return infos

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """Give the messages of ``topics`` (None: of all) in the order in which they were received.

        That is the order of their times; where the clock was set back, all in front of that place come first.

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
            when = (int(self._times[number]), int(self._segments[number]), int(self._elapsed[number]))
            yield BagMessage(topic.name, topic.type, *when, raw, self._types)

    def close(self) -> None:
        """Let go of all files. Idempotent."""
        self._stack.close()

    def __enter__(self) -> "BagReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _set_back_sentence(own: SetBack, file: str, place: int) -> str:
    where = f"behind its message {place}" if place else "before its first message"
    return (
        f"{file}: the clock was set back by {own.seconds:.3f} s while it was recorded, {where}, from "
        f"{own.before / 1e9:.3f} s to {own.after / 1e9:.3f} s: no message is lost, from there on the order of the file "
        "counts, and an episode begins there"
    )
