"""What is flushed is on the disk: through SIGKILL, a full disk and a disk that is too slow."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability, QosReliability

from dysl_vla_ros.bags.metadata import OfferedQos
from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.bags.recording import Recording
from dysl_vla_ros.bags.writer import BagWriter
from dysl_vla_ros.errors import BagError
from harness import wait_until
from small_bags import STRING, cdr, in_order, read, said, storage_file, write_ours

MESSAGES = said(60)
LIMIT = 256 << 10  # bytes of a disk that is soon full


def test_another_reader_finds_messages_types_hashes_and_offered_qos(tmp_path):
    folder = tmp_path / "bag"
    with BagWriter(folder, "kilted") as writer:
        writer.add_topic("/a", STRING, [OfferedQos("best_effort"), OfferedQos(durability="transient_local")])
        writer.add_topic("/report", "dysl_vla_ros/msg/SkipReport")
        for message in MESSAGES:
            writer.write("/a", message.time_ns, cdr(message.text))
    with AnyReader([folder]) as bag:  # checks the types' hashes as well
        assert [bag.deserialize(raw, c.msgtype).data for c, _, raw in bag.messages()] == [m.text for m in MESSAGES]
        (offered,) = (c.ext.offered_qos_profiles for c in bag.connections if c.topic == "/a")
    assert [profile.reliability for profile in offered] == [QosReliability.BEST_EFFORT, QosReliability.RELIABLE]
    assert [profile.durability for profile in offered] == [QosDurability.VOLATILE, QosDurability.TRANSIENT_LOCAL]
    information = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert information["message_count"] == 60
    assert information["ros_distro"] == "kilted"
    assert information["duration"]["nanoseconds"] == MESSAGES[-1].time_ns - MESSAGES[0].time_ns
    assert {topic["topic_metadata"]["name"]: topic["message_count"] for topic in topics(information)} == {
        "/a": 60,
        "/report": 0,
    }


def topics(information):
    return information["topics_with_message_count"]


@pytest.mark.ros
def test_hashes_of_types_are_those_that_ros_generated():
    import json

    from ament_index_python.packages import get_package_share_directory

    from dysl_vla_ros.bags.message_types import known_store

    for package in ("dysl_vla_ros", "sensor_msgs", "geometry_msgs", "diagnostic_msgs"):
        described = list((Path(get_package_share_directory(package)) / "msg").glob("*.json"))
        assert described
        for path in described:
            content = json.loads(path.read_text())
            name = content["type_description_msg"]["type_description"]["type_name"]
            (wanted,) = (entry["hash_string"] for entry in content["type_hashes"] if entry["type_name"] == name)
            assert known_store(name).hash_rihs01(name) == wanted


def test_what_is_flushed_can_be_read_while_the_bag_is_still_being_written(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/a", STRING)
        for number, message in enumerate(said(30, topics=["/a"])):
            writer.write("/a", message.time_ns, cdr(message.text))
            if number == 19:
                writer.flush()
        found, damage = read(tmp_path / "bag")
        assert len(found) == writer.on_disk == 20
        assert len(damage) == 1
        assert "20 messages were read" in damage[0]
        assert "never closed" in damage[0]


def test_messages_go_to_the_disk_within_a_second_without_being_told_to(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/a", STRING)
        begin = time.monotonic()
        written = []

        def write() -> bool:
            writer.write("/a", time.monotonic_ns(), cdr("x"))
            written.append(time.monotonic())
            return writer.on_disk > 0

        wait_until(write, 1.0, "the first flush")
        assert time.monotonic() - begin < 1.0


@pytest.mark.parametrize("content", ["file", "folder"])
def test_a_folder_that_holds_something_is_refused_and_left_as_it_is(tmp_path, content):
    (tmp_path / "bag").mkdir()
    other = tmp_path / "bag" / "other"
    other.write_text("mine") if content == "file" else other.mkdir()
    with pytest.raises(BagError, match="is not empty: name a new folder"):
        BagWriter(tmp_path / "bag")
    assert list((tmp_path / "bag").iterdir()) == [other]


def test_a_place_that_cannot_be_written_to_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BagError, match="file/bag"):
        BagWriter(tmp_path / "file" / "bag")


def test_an_empty_folder_and_a_relative_one_are_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bag").mkdir()
    file = write_ours(Path("bag"), MESSAGES)
    assert file.name == "bag_0.mcap"
    assert read(tmp_path / "bag")[0] == MESSAGES


# -- killed, full ------------------------------------------------------------------------------------------------------

WRITE_FOR_EVER = """
import os, sys, time
from pathlib import Path
from dysl_vla_ros.bags.writer import BagWriter
writer = BagWriter(Path(sys.argv[1]))
writer.add_topic("/a", "std_msgs/msg/String")
number = 0
while True:
    text = b"%d" % number
    writer.write("/a", time.time_ns(), b"\\0\\1\\0\\0" + (len(text) + 1).to_bytes(4, "little") + text + b"\\0")
    number += 1
    print(writer.on_disk, flush=True)
    time.sleep(0.002)
"""


def test_a_killed_writer_loses_less_than_its_last_second(tmp_path):
    command = [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path / "bag")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        promised = 0
        for line in process.stdout:
            promised = int(line)
            if promised > 400:
                process.send_signal(signal.SIGKILL)
                killed = time.time()
                break
        process.stdout.close()
    with BagReader(tmp_path / "bag") as bag:
        found = [int(message.message.data) for message in bag.messages()]
        assert killed - bag.end_ns * 1e-9 < 1.0
        assert bag.damage
    assert len(found) >= promised
    assert found == list(range(len(found)))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={LIMIT}", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("mount") else None
    if done is None or done.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {done.stderr.strip() if done else 'no mount program'}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=10)


def fill(folder: Path) -> BagWriter:
    """Write random messages until the disk refuses; return the writer, closed."""
    writer = BagWriter(folder)
    writer.add_topic("/a", STRING)
    with pytest.raises(BagError, match="messages are on the disk"):
        for number in range(1000):
            writer.write("/a", number, cdr(os.urandom(500).hex()))
            if number % 20 == 19:
                writer.flush()
    writer.close()
    assert 20 <= writer.on_disk < writer.messages < 1000
    return writer


def assert_counted(writer: BagWriter) -> None:
    """What the writer says is on the disk is what can be read, and metadata.yaml says nothing else."""
    found, _ = read(writer.folder)
    assert len(found) == writer.on_disk
    assert f"{writer.on_disk} of {writer.messages} messages are on the disk" in writer.fault
    information = yaml.safe_load((writer.folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert information["message_count"] <= writer.on_disk
    with pytest.raises(AssertionError, match="closed"):
        writer.write("/a", 1, b"")


def test_a_full_disk_is_said_with_the_count_that_is_on_it(full_disk):
    writer = fill(full_disk / "bag")
    assert "No space left" in writer.fault
    assert_counted(writer)


def test_a_size_limit_acts_as_a_full_disk(tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        writer = fill(tmp_path / "bag")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "too large" in writer.fault
    assert_counted(writer)
    with BagReader(tmp_path / "bag") as bag:
        assert not bag.damage, "the file ends as it should behind its last whole chunk"


# -- the recording's thread --------------------------------------------------------------------------------------------


def test_a_recording_takes_messages_from_many_threads_and_keeps_all(tmp_path):
    recording = Recording(tmp_path / "bag")
    topics = ("/a", "/b", "/c", "/d")  # one a thread: the times of each run forward
    for topic in topics:
        recording.add_topic(topic, STRING)

    def hand_over(part) -> None:
        for message in part:
            recording.put(message.topic, message.time_ns, cdr(message.text))

    messages = said(400, topics=topics)
    threads = [threading.Thread(target=hand_over, args=(messages[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    status = recording.close()
    assert (status.messages, status.on_disk, status.dropped, status.fault) == (400, 400, 0, "")
    found, damage = read(tmp_path / "bag")
    assert not damage
    assert sorted(found) == sorted(in_order(messages))


def test_a_recording_flushes_although_no_further_message_comes(tmp_path):
    recording = Recording(tmp_path / "bag")
    recording.add_topic("/a", STRING)
    recording.put("/a", 1, cdr("only one"))
    wait_until(lambda: recording.status().on_disk == 1, 1.5, "the message on the disk")
    recording.close()


def test_a_disk_that_is_too_slow_drops_messages_and_counts_them_and_the_caller_never_waits(tmp_path):
    recording = Recording(tmp_path / "bag", queue_limit=10_000)
    recording.add_topic("/a", STRING)
    raw = cdr("x" * 900)
    stopped = threading.Event()
    recording._put(0, lambda: stopped.wait(10.0) and None)  # as a write that takes its time
    begin = time.monotonic()
    for number in range(100):
        recording.put("/a", number, raw)
    assert time.monotonic() - begin < 1.0
    dropped = recording.status().dropped
    stopped.set()
    status = recording.close()
    assert 85 <= dropped <= 95
    assert status.on_disk == 100 - dropped
    assert status.fault == ""


def test_a_recording_whose_disk_is_full_ends_with_the_reason_and_drops_the_rest(full_disk):
    recording = Recording(full_disk / "bag")
    recording.add_topic("/a", STRING)
    raw = cdr(os.urandom(500_000).hex())
    recording.put("/a", 1, cdr("small"))
    wait_until(lambda: recording.status().on_disk == 1, 2.0, "the first message on the disk")
    recording.put("/a", 2, raw)
    fault = wait_until(lambda: recording.status().fault, 5.0, "the full disk")
    assert "1 of 2 messages are on the disk" in fault
    recording.put("/a", 3, raw)
    status = recording.close()
    assert status.dropped == 1
    assert status.fault == fault
    assert len(read(full_disk / "bag")[0]) == 1


def test_the_storage_file_is_named_as_rosbag2_names_it(tmp_path):
    with contextlib.closing(BagWriter(tmp_path / "drive")):
        assert storage_file(tmp_path / "drive").name == "drive_0.mcap"
        assert "drive_0.mcap" in (tmp_path / "drive" / "metadata.yaml").read_text()
