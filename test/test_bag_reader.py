"""Bags as they are found: every storage and compression, several files, no index, types of all origins."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer

from dysl_vla_ros.bags.message_types import known_store
from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.errors import BagError
from dysl_vla_ros.readings import picture
from small_bags import (
    SECOND,
    STRING,
    Said,
    cdr,
    forward,
    in_order,
    read,
    said,
    storage_file,
    write_mcap,
    write_ours,
    write_rosbags,
)

KINDS = [
    (storage, compression)
    for storage in StoragePlugin
    for compression in CompressionMode
    if (storage, compression) != (StoragePlugin.SQLITE3, CompressionMode.STORAGE)  # there is no such thing
]
MESSAGES = st.lists(
    st.builds(
        Said,
        time_ns=st.one_of(st.integers(0, 3), st.integers(0, 2**62)),
        topic=st.sampled_from(["/a", "/b", "/robot/c"]),
        text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=300),
    ),
    min_size=1,
    max_size=40,
).map(forward)


@pytest.mark.parametrize(("storage", "compression"), KINDS, ids=lambda kind: kind.name.lower())
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=MESSAGES, cuts=st.lists(st.integers(0, 40), max_size=2), metadata=st.booleans())
def test_what_was_written_comes_back_by_time_however_it_was_stored_packed_and_split(
    tmp_path, storage, compression, messages, cuts, metadata
):
    bag = tmp_path / "bag"
    shutil.rmtree(bag, ignore_errors=True)
    bag.mkdir()
    edges = sorted({0, len(messages), *(cut for cut in cuts if cut < len(messages))})
    names = []
    for number, (begin, end) in enumerate(zip(edges, edges[1:], strict=False)):
        file = write_rosbags(tmp_path / "part", messages[begin:end], storage, compression)
        ending = "".join(file.suffixes)
        names.append(f"bag_{number}{ending}")
        file.rename(bag / names[-1])
        information = yaml.safe_load((tmp_path / "part" / "metadata.yaml").read_text())
        shutil.rmtree(tmp_path / "part")
    if metadata:
        information["rosbag2_bagfile_information"] |= {"relative_file_paths": names, "message_count": len(messages)}
        (bag / "metadata.yaml").write_text(yaml.safe_dump(information))
    assert read(bag) == (in_order(messages), ())


@pytest.mark.parametrize("compression", list(CompressionType), ids=lambda kind: kind.name.lower())
@pytest.mark.parametrize("chunked", [True, False], ids=["chunks", "no chunks"])
def test_mcap_files_of_other_writers_are_read(tmp_path, compression, chunked):
    messages = said(50)
    assert read(write_mcap(tmp_path / "a.mcap", messages, compression, chunked)) == (messages, ())


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=MESSAGES)
def test_what_our_writer_wrote_comes_back(tmp_path, messages):
    shutil.rmtree(tmp_path / "bag", ignore_errors=True)
    write_ours(tmp_path / "bag", messages)
    assert read(tmp_path / "bag") == (in_order(messages), ())


def test_a_file_alone_is_a_bag_packed_or_not(tmp_path):
    messages = said(20)
    for storage in StoragePlugin:
        for compression in (CompressionMode.NONE, CompressionMode.FILE):
            folder = tmp_path / f"{storage.name}-{compression.name}"
            assert read(write_rosbags(folder, messages, storage, compression))[0] == messages


def test_two_files_that_overlap_in_time_are_merged_and_each_reading_is_the_same(tmp_path):
    messages = said(100)
    (tmp_path / "bag").mkdir()
    for name, part in (("bag_0.mcap", messages[::2]), ("bag_1.mcap", messages[1::2])):
        write_mcap(tmp_path / "bag" / name, part)
    with BagReader(tmp_path / "bag") as bag:
        first, second = list(bag.messages()), list(bag.messages())
    assert first == second
    assert [message.message.data for message in first] == [message.text for message in messages]


def test_files_are_taken_in_the_order_of_their_numbers(tmp_path):
    (tmp_path / "bag").mkdir()
    for number in range(11):
        write_mcap(tmp_path / "bag" / f"bag_{number}.mcap", [Said(SECOND, "/a", str(number))])
    assert [message.text for message in read(tmp_path / "bag")[0]] == [str(number) for number in range(11)]


def test_only_the_topics_asked_for_are_given(tmp_path):
    messages = said(60, topics=("/a", "/b", "/c"))
    file = write_ours(tmp_path / "bag", messages)
    with BagReader(file) as bag:
        assert dict.fromkeys(bag.topics) == {"/a": None, "/b": None, "/c": None}
        assert bag.topics["/a"].type == STRING
        assert bag.topics["/a"].count == 20
        found = [message.message.data for message in bag.messages(["/a", "/c", "/nowhere"])]
    assert found == [message.text for message in messages if message.topic != "/b"]


# -- types -----------------------------------------------------------------------------------------------------------


def write_typed(folder: Path, kind: str, raw: bytes, storage: StoragePlugin = StoragePlugin.SQLITE3) -> Path:
    with Writer(folder, version=9, storage_plugin=storage) as writer:
        connection = writer.add_connection("/typed", kind, typestore=known_store(kind))
        other = writer.add_connection("/said", STRING, typestore=known_store(STRING))
        writer.write(connection, SECOND, raw)
        writer.write(other, 2 * SECOND, cdr("hello"))
    return storage_file(folder)


def own_action() -> bytes:
    kind = "dysl_vla_ros/msg/EndEffectorAction"
    store = known_store(kind)
    make = store.types
    stamp = make["builtin_interfaces/msg/Time"](sec=3, nanosec=4)
    vector = make["geometry_msgs/msg/Vector3"](x=0.25, y=0.0, z=-1.0)
    action = make[kind](
        version=1,
        header=make["std_msgs/msg/Header"](stamp=stamp, frame_id="base"),
        image_stamp=stamp,
        episode=7,
        inference=8,
        translation=vector,
        rotation=vector,
        gripper=float("nan"),
        time_step=0.05,
        chunk_index=2,
        chunk_length=4,
        first_tick=True,
        verified=False,
        limits=["control.max_speed"],
        stop_reason="",
    )
    return bytes(store.serialize_cdr(action, kind))


@pytest.mark.parametrize("definitions", ["in the bag", "none in the bag", "no such table"])
def test_our_own_messages_are_understood_with_or_without_the_bags_help(tmp_path, definitions):
    import sqlite3

    file = write_typed(tmp_path / "bag", "dysl_vla_ros/msg/EndEffectorAction", own_action())
    with sqlite3.connect(file) as database:
        if definitions == "none in the bag":
            database.execute("DELETE FROM message_definitions")
        elif definitions == "no such table":  # before Iron
            database.execute("DROP TABLE message_definitions")
    database.close()
    with BagReader(tmp_path / "bag") as bag:
        action = next(bag.messages(["/typed"])).message
    assert (action.episode, action.translation.z, action.header.frame_id) == (7, -1.0, "base")
    assert action.limits == ["control.max_speed"]
    assert np.isnan(action.gripper)


def test_a_definition_in_idl_is_understood(tmp_path):
    idl = (
        "=" * 80 + "\nIDL: test_msgs/msg/Pair\nmodule test_msgs {\n  module msg {\n    struct Pair {\n"
        "      string first;\n      string second;\n    };\n  };\n};\n"
    )
    path = write_mcap(
        tmp_path / "a.mcap", said(1, topics=["/pair"]), schema=("test_msgs/msg/Pair", "ros2idl", idl.encode())
    )
    with BagReader(path) as bag:
        assert bag.topics["/pair"].fault == ""
        message = next(bag.messages())
        with pytest.raises(BagError, match="/pair"):  # the text of a String is no Pair
            _ = message.message


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (("custom_msgs/msg/Thing", "", b""), "neither the bag nor this machine"),
        (("custom_msgs/msg/Thing", "ros2msg", b"other_msgs/Unknown x"), "other_msgs/msg/Unknown"),
        (("custom_msgs/msg/Thing", "ros2msg", b"this is ( no definition"), "cannot be used"),
        (("no type at all", "ros2msg", b"string data"), "not the name of a message type"),
        (("", "", b""), "not the name of a message type"),
    ],
)
def test_a_type_that_cannot_be_resolved_is_listed_and_stops_nothing_else(tmp_path, schema, words):
    bag = tmp_path / "bag"
    bag.mkdir()
    write_mcap(bag / "bag_0.mcap", said(3, topics=["/custom"]), schema=schema)
    write_mcap(bag / "bag_1.mcap", said(3, topics=["/said"]))
    with BagReader(bag) as reader:
        assert words in reader.topics["/custom"].fault
        assert reader.topics["/custom"].count == 3
        assert reader.topics["/said"].fault == ""
        assert [message.message.data[0] for message in reader.messages(["/said"])] == ["0", "1", "2"]
        message = next(reader.messages(["/custom"]))
        assert message.raw == cdr(said(1)[0].text)
        with pytest.raises(BagError, match="/custom"):
            _ = message.message


@pytest.mark.parametrize("storage", StoragePlugin, ids=lambda kind: kind.name.lower())
def test_pictures_come_back_as_the_node_reads_them(tmp_path, storage):
    kind = "sensor_msgs/msg/Image"
    store = known_store(kind)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    padded = np.zeros((6, 20), np.uint8)
    padded[:, :15] = pixels.reshape(6, 15)
    header = store.types["std_msgs/msg/Header"](store.types["builtin_interfaces/msg/Time"](1, 2), "camera")
    image = store.types[kind](header, 6, 5, "rgb8", 0, 20, padded.reshape(-1))
    write_typed(tmp_path / "bag", kind, bytes(store.serialize_cdr(image, kind)), storage)
    with BagReader(tmp_path / "bag") as bag:
        assert np.array_equal(picture(next(bag.messages(["/typed"])).message), pixels)


def test_a_compressed_picture_keeps_its_bytes(tmp_path):
    kind = "sensor_msgs/msg/CompressedImage"
    store = known_store(kind)
    header = store.types["std_msgs/msg/Header"](store.types["builtin_interfaces/msg/Time"](1, 2), "camera")
    data = np.frombuffer(b"\xff\xd8 some picture", np.uint8)
    raw = bytes(store.serialize_cdr(store.types[kind](header, "jpeg", data), kind))
    write_typed(tmp_path / "bag", kind, raw)
    with BagReader(tmp_path / "bag") as bag:
        message = next(bag.messages(["/typed"])).message
    assert message.format == "jpeg"
    assert bytes(message.data) == b"\xff\xd8 some picture"


# -- what is no bag ----------------------------------------------------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(BagError) as caught:
        BagReader(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.mcap", b"", ("a.mcap", "empty")),
        ("a.db3", b"", ("a.db3", "empty")),
        ("a.mcap", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", ("git-lfs", "git lfs pull")),
        ("a.bag", b"#ROSBAG V2.0\n", ("ROS 1", "rosbags-convert")),
        ("a.mcap", b"something else entirely", ("no mcap file",)),
        ("a.db3", b"something else entirely", ("damaged database",)),
        ("notes.txt", b"something else entirely", ("notes.txt", "neither mcap nor sqlite3")),
        ("a.mcap.zstd", b"something else entirely", ("a.mcap.zstd", "damaged")),
    ],
)
def test_a_file_that_is_no_bag_is_refused_with_what_it_is(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    text = refused(tmp_path / name)
    assert all(word in text for word in words), text


def test_a_folder_that_is_no_bag_is_refused_with_what_it_lacks(tmp_path):
    assert "no such file or folder" in refused(tmp_path / "nowhere")
    assert "no .mcap or .db3" in refused(tmp_path)
    (tmp_path / "metadata.yaml").write_text(
        json.dumps({"rosbag2_bagfile_information": {"relative_file_paths": ["gone.mcap"]}})
    )
    assert "gone.mcap" in refused(tmp_path)


@pytest.mark.parametrize("text", ["a: [1", "just text", "{}", "rosbag2_bagfile_information: {relative_file_paths: 3}"])
def test_bad_metadata_is_named_with_the_fix_and_without_it_the_bag_is_read(tmp_path, text):
    write_mcap(tmp_path / "bag_0.mcap", said(5))
    (tmp_path / "metadata.yaml").write_text(text)
    assert "metadata.yaml" in refused(tmp_path)
    assert "remove it" in refused(tmp_path)
    (tmp_path / "metadata.yaml").unlink()
    assert len(read(tmp_path)[0]) == 5


def test_a_bag_without_messages_is_refused(tmp_path):
    write_rosbags(tmp_path / "bag", [])
    assert "holds no message" in refused(tmp_path / "bag")


def test_a_database_that_is_no_bag_is_refused(tmp_path):
    import sqlite3

    with sqlite3.connect(tmp_path / "a.db3") as database:
        database.execute("CREATE TABLE things (id INTEGER)")
    database.close()
    assert "topics" in refused(tmp_path / "a.db3")
