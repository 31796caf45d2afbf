"""Damaged bags: what is whole is read, what is lost is said, and nothing that was not recorded comes out."""

import os
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.bags.writer import BagWriter
from dysl_vla_ros.errors import BagError
from small_bags import STRING, Said, read, said, storage_file, write_mcap, write_ours, write_rosbags

MESSAGES = said(60)


def cut(file: Path, length: int) -> tuple[list[Said], tuple[str, ...]]:
    """Read a file of which only ``length`` bytes are left; nothing at all counts as no message."""
    part = file.with_name("part" + "".join(file.suffixes))
    part.write_bytes(file.read_bytes()[:length])
    try:
        return read(part)
    except BagError as error:
        return [], (str(error),)
    finally:
        part.unlink()


def assert_prefix(found: list[Said], damage: tuple[str, ...]) -> None:
    assert found == MESSAGES[: len(found)]
    assert damage
    assert all("\n" not in sentence for sentence in damage)
    if found:
        assert any(f"{len(found)} messages were read" in sentence for sentence in damage), damage


@pytest.mark.parametrize("writer", ["ours", "rosbags", "rosbags, chunks packed", "no chunks"])
def test_an_mcap_cut_off_at_any_byte_gives_a_prefix_and_says_how_many(tmp_path, writer):
    if writer == "ours":
        file = write_ours(tmp_path / "bag", MESSAGES)
    elif writer == "no chunks":
        file = write_mcap(tmp_path / "a.mcap", MESSAGES, chunked=False)
    else:
        packed = CompressionMode.STORAGE if "packed" in writer else CompressionMode.NONE
        file = write_rosbags(tmp_path / "bag", MESSAGES, compression=packed)
    size = file.stat().st_size
    counts = []
    for length in range(0, size, 67):
        found, damage = cut(file, length)
        assert_prefix(found, damage)
        counts.append(len(found))
    assert counts == sorted(counts)
    assert counts[-1] == len(MESSAGES)  # only the index is lost
    assert len(set(counts)) > (5 if "packed" not in writer else 1)


def test_in_a_chunk_that_is_cut_off_the_messages_in_front_of_the_cut_are_kept(tmp_path):
    file = write_rosbags(tmp_path / "bag", MESSAGES)  # one chunk for everything
    counts = {len(cut(file, length)[0]) for length in range(0, file.stat().st_size, 31)}
    assert counts == set(range(len(MESSAGES) + 1))


@pytest.mark.parametrize("compression", [CompressionMode.NONE, CompressionMode.MESSAGE], ids=["plain", "packed"])
def test_a_sqlite_file_cut_off_at_any_page_gives_a_prefix_and_says_how_many(tmp_path, compression):
    messages = said(300, size=200)
    file = write_rosbags(tmp_path / "bag", messages, StoragePlugin.SQLITE3, compression)
    size = file.stat().st_size
    counts = set()
    for length in range(0, size, size // 40):
        found, damage = cut(file, length)
        assert found == messages[: len(found)]
        assert damage
        counts.add(len(found))
    assert len(counts) > 3


@pytest.mark.parametrize("storage", StoragePlugin, ids=lambda kind: kind.name.lower())
def test_a_packed_file_that_is_cut_off_gives_what_could_be_unpacked(tmp_path, storage):
    messages = [message._replace(text=os.urandom(2000).hex()) for message in said(300)]
    file = write_rosbags(tmp_path / "bag", messages, storage, CompressionMode.FILE)
    found, damage = cut(file, file.stat().st_size * 2 // 3)
    assert found == messages[: len(found)]
    assert "cut off" in damage[0]
    if storage is StoragePlugin.MCAP:  # of a database, the pages that lead to the others may lie at its end
        assert 100 < len(found) < 300


def test_any_flipped_byte_of_a_bag_of_ours_is_noticed_and_no_wrong_message_comes_out(tmp_path):
    file = write_ours(tmp_path / "bag", MESSAGES)
    whole = file.read_bytes()
    originals = set(MESSAGES)
    least = len(MESSAGES)
    for place in range(0, len(whole), 11):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            found, damage = read(file)
        except BagError:
            assert place < 8  # no mcap file any more
            continue
        assert damage, place
        assert set(found) <= originals
        assert found == sorted(found)
        least = min(least, len(found))
    assert least >= len(MESSAGES) - 10, "one chunk at most is lost: the others are found by their checksums"


def test_a_damaged_chunk_is_left_out_and_the_warning_says_which_and_how_many(tmp_path):
    file = write_ours(tmp_path / "bag", MESSAGES)
    whole = bytearray(file.read_bytes())
    whole[whole.index(b"zstd", len(whole) // 4) + 30] ^= 0xFF
    file.write_bytes(whole)
    found, damage = read(tmp_path / "bag")
    assert len(found) == 50
    text = " ".join(damage)
    assert file.name in text
    assert re.search(r"at byte \d+: \d+ messages were read, up to 1\.\d+ s", text)
    assert "10 of its 60 messages are lost" in text
    assert "10 are lost" in text  # by metadata.yaml as well


@pytest.mark.parametrize("storage", StoragePlugin, ids=lambda kind: kind.name.lower())
def test_flipped_bytes_without_checksums_break_nothing(tmp_path, storage):
    file = write_rosbags(tmp_path / "bag", MESSAGES, storage)
    whole = file.read_bytes()
    for place in range(0, len(whole), len(whole) // 100):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x81]) + whole[place + 1 :])
        try:
            with BagReader(file) as bag:
                for message in bag.messages():
                    try:
                        _ = message.message
                    except BagError as error:
                        assert message.topic in str(error)
        except BagError as error:
            assert "\n" not in str(error)


def test_a_message_whose_bytes_are_damaged_is_named_with_topic_and_time(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/a", STRING)
        for raw in (b"", b"\0\1\0\0", b"\0\1\0\0\xff\xff\xff\x7fab", b"\0\1\0\0\2\0\0\0\xff\0", b"\7\7\0\0\1\0\0\0\0"):
            writer.write("/a", 1_500_000_000, raw)
    with BagReader(tmp_path / "bag") as bag:
        for message in bag.messages():
            with pytest.raises(BagError, match=r"/a received at 1\.500 s: \d+ bytes are no std_msgs/msg/String"):
                _ = message.message


def test_a_file_of_several_that_is_missing_or_unreadable_is_said_and_the_others_are_read(tmp_path):
    bag = tmp_path / "bag"
    write_rosbags(bag, MESSAGES[:30])
    metadata = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(metadata.replace("- bag.mcap", "- bag.mcap\n  - bag_1.mcap"))
    (bag / "bag_2.mcap").write_bytes(b"")
    found, damage = read(bag)
    assert found == MESSAGES[:30]
    assert "bag_1.mcap: it is named in metadata.yaml and is missing" in damage
    assert any(sentence.startswith("bag_2.mcap: nothing of it can be read") for sentence in damage)


def test_fewer_messages_than_the_metadata_counts_are_said(tmp_path):
    write_rosbags(tmp_path / "bag", MESSAGES)
    shorter = write_rosbags(tmp_path / "other", MESSAGES[:20])
    shutil.copy(shorter, tmp_path / "bag" / "bag.mcap")
    found, damage = read(tmp_path / "bag")
    assert len(found) == 20
    assert damage == ("metadata.yaml counts 60 messages, 20 were read: 40 are lost",)


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_database_left_behind_with_its_journal_gives_what_was_committed_and_stays_as_it_is(tmp_path, mode):
    file = write_rosbags(tmp_path / "bag", MESSAGES, StoragePlugin.SQLITE3)
    database = sqlite3.connect(file, isolation_level=None)
    database.execute(f"PRAGMA journal_mode = {mode}")
    database.execute("PRAGMA cache_size = 1")  # pages go to the file in the middle of the transaction
    database.execute("BEGIN")
    for _ in range(200):
        database.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (1, 5, ?)", (b"\0" * 4000,))
    shutil.copytree(tmp_path / "bag", tmp_path / "killed")  # as a SIGKILL would leave it
    database.close()
    journals = [path for path in (tmp_path / "killed").iterdir() if path.name.endswith(("-journal", "-wal"))]
    assert journals
    assert journals[0].stat().st_size
    before = {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()}
    found, damage = read(tmp_path / "killed")
    assert found == MESSAGES
    assert "not yet committed" in damage[0]
    assert {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()} == before


def test_messages_behind_a_damaged_page_of_a_database_are_read_as_well(tmp_path):
    messages = said(400, size=400)
    file = write_rosbags(tmp_path / "bag", messages, StoragePlugin.SQLITE3)
    content = bytearray(file.read_bytes())
    place = content.index(b"200 ") // 4096 * 4096  # the page that holds message 200
    content[place : place + 100] = b"\xff" * 100
    file.write_bytes(content)
    found, damage = read(storage_file(tmp_path / "bag"))
    assert set(found) < set(messages)
    assert found[0] == messages[0]
    assert found[-1] == messages[-1]
    assert len(found) > 350
    assert "behind the damage" in damage[0]
