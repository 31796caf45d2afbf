"""Small bags for the tests, written by rosbags (all that rosbag2 can write), by the mcap library, or by us."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from dysl_vla_ros.bags.message_types import known_store
from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.bags.writer import BagWriter

STRING = "std_msgs/msg/String"
SECOND = 10**9  # ns


class Said(NamedTuple):
    """A std_msgs/String of a test: when and where it was received, and its text."""

    time_ns: int
    topic: str
    text: str


def said(count: int, size: int = 40, topics: Sequence[str] = ("/a", "/b")) -> list[Said]:
    """Make messages of about ``size`` characters, 10 ms apart, on one topic after the other."""
    texts = (f"{number} ".ljust(size, chr(97 + number % 26)) for number in range(count))
    return [Said(SECOND + n * 10**7, topics[n % len(topics)], text) for n, text in enumerate(texts)]


def cdr(text: str) -> bytes:
    """Serialise a std_msgs/String."""
    store = known_store(STRING)
    return bytes(store.serialize_cdr(store.types[STRING](data=text), STRING))


def write_rosbags(
    folder: Path,
    messages: Sequence[Said],
    storage: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE,
) -> Path:
    """Write a bag as ``ros2 bag record`` does; return its storage file."""
    writer = Writer(folder, version=9, storage_plugin=storage)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        topics = dict.fromkeys(message.topic for message in messages)
        connections = {topic: writer.add_connection(topic, STRING, typestore=known_store(STRING)) for topic in topics}
        for message in messages:
            writer.write(connections[message.topic], message.time_ns, cdr(message.text))
    return storage_file(folder)


def write_ours(folder: Path, messages: Sequence[Said], flush_each: int = 10) -> Path:
    """Write a bag with our own writer, a chunk for each ``flush_each`` messages; return its storage file."""
    with BagWriter(folder) as writer:
        for topic in dict.fromkeys(message.topic for message in messages):
            writer.add_topic(topic, STRING)
        for number, message in enumerate(messages):
            writer.write(message.topic, message.time_ns, cdr(message.text))
            if number % flush_each == flush_each - 1:
                writer.flush()
    return storage_file(folder)


def write_mcap(
    path: Path,
    messages: Sequence[Said],
    compression: CompressionType = CompressionType.NONE,
    chunked: bool = True,
    schema: tuple[str, str, bytes] = (STRING, "ros2msg", b"string data"),
) -> Path:
    """Write an mcap file with the mcap library: ``schema`` is name, encoding and text of the type."""
    with path.open("wb") as file:
        writer = McapWriter(file, chunk_size=400, compression=compression, use_chunking=chunked)
        writer.start("ros2", "test")
        number = writer.register_schema(*schema)
        topics = dict.fromkeys(message.topic for message in messages)
        channels = {topic: writer.register_channel(topic, "cdr", number) for topic in topics}
        for message in messages:
            writer.add_message(channels[message.topic], message.time_ns, cdr(message.text), message.time_ns)
        writer.finish()
    return path


def storage_file(folder: Path) -> Path:
    """Return the one storage file of a bag."""
    (found,) = (path for path in folder.iterdir() if path.name != "metadata.yaml")
    return found


def read(path: Path) -> tuple[list[Said], tuple[str, ...]]:
    """Read every message, and the sentences on damage."""
    with BagReader(path) as bag:
        found = [Said(message.time_ns, message.topic, message.message.data) for message in bag.messages()]
        assert sum(topic.count for topic in bag.topics.values()) == len(found)
        assert (bag.start_ns, bag.end_ns) == (found[0].time_ns, found[-1].time_ns)
        return found, bag.damage


def forward(messages: Sequence[Said]) -> list[Said]:
    """Let the times of each topic run forward, as they do while no clock is set back."""
    times = {
        topic: iter(sorted(message.time_ns for message in messages if message.topic == topic))
        for topic in {message.topic for message in messages}
    }
    return [message._replace(time_ns=next(times[message.topic])) for message in messages]


def in_order(messages: Sequence[Said]) -> list[Said]:
    """Return messages in the order of their times; those of one time in the order in which they were written."""
    return sorted(messages, key=lambda message: message.time_ns)
