"""The recorder over real DDS: hears everything as it is offered, survives SIGKILL and full disks, ends cleanly."""

import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from dysl_vla_ros.bags.reader import BagReader
from harness import NodeProcess, RosPeer, wait_until

pytestmark = pytest.mark.ros

LAST_SECOND = 1.0  # s that may be lost
MARGIN = 0.3  # s from publishing to hearing on a busy machine


def recorder(folder: Path, *topics: str, **parameters: object) -> NodeProcess:
    chosen = {"topics": list(topics)} if topics else {}
    return NodeProcess("bag_recorder", {"folder": str(folder), **chosen, **parameters})


@pytest.fixture
def listener(peer: RosPeer) -> RosPeer:
    from diagnostic_msgs.msg import DiagnosticArray

    peer.listen("/diagnostics", DiagnosticArray)
    return peer


def status(peer: RosPeer, wanted: Callable[[object, dict[str, str]], bool], what: str):
    """Wait for a status of the recorder; return it with its values."""

    def fits(array) -> bool:
        return any(
            entry.name == "bag_recorder: recording" and wanted(entry, {pair.key: pair.value for pair in entry.values})
            for entry in array.status
        )

    (entry,) = peer.wait_for("/diagnostics", fits, 15.0, what).status
    return entry, {pair.key: pair.value for pair in entry.values}


def level(entry) -> int:
    return int.from_bytes(entry.level, "little")


def test_everything_is_recorded_as_it_is_offered(listener, tmp_path):
    from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
    from sensor_msgs.msg import Image
    from std_msgs.msg import Float64, String

    from dysl_vla_ros.msg import SkipReport

    peer = listener
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    peer.publish("instruction", String(data="said before"), latched)
    topics = ("image", "instruction", "late", "dysl_vla/skip_report", "never")
    with recorder(tmp_path / "bag", *topics) as node:
        image = peer.publisher("image", Image, qos_profile_sensor_data)
        report = peer.publisher("dysl_vla/skip_report", SkipReport, 10)
        for topic in ("image", "dysl_vla/skip_report", "instruction"):
            peer.wait_for_subscriber(topic, 15.0)
        status(peer, lambda _, values: int(values.get("messages", 0)) >= 1, "the instruction that came before")
        volatile = peer.node.create_publisher(String, "instruction", 10)  # `ros2 topic pub` is volatile
        wait_until(lambda: volatile.get_subscription_count() >= 1, 15.0, "the recorder as a volatile subscriber")
        volatile.publish(String(data="said by hand"))
        peer.publish("instruction", String(data="said again"))  # heard twice, recorded once
        late = peer.publisher("late", Float64, 10)
        peer.wait_for_subscriber("late", 15.0)
        for number in range(20):
            image.publish(Image(height=2, width=1, encoding="rgb8", step=3, data=bytes([number] * 6)))
            report.publish(SkipReport(version=1, inference=number, continuity=-0.5))
            late.publish(Float64(data=float(number)))
        status(peer, lambda _, values: int(values.get("messages on disk", 0)) >= 63, "63 messages on the disk")
        _, values = status(peer, lambda _, values: "/never" in values["topics not there"], "any status")
        assert node.stop(signal.SIGINT, impatient=True) == 0, node.output
    with BagReader(tmp_path / "bag") as bag:
        assert not bag.damage
        heard = {topic: [message.message for message in bag.messages([topic])] for topic in bag.topics}
    assert [message.data for message in heard["/instruction"]] == ["said before", "said by hand", "said again"]
    assert [int(message.data[0]) for message in heard["/image"]] == list(range(20))
    assert [message.inference for message in heard["/dysl_vla/skip_report"]] == list(range(20))
    assert [message.data for message in heard["/late"]] == list(range(20))
    assert "/never" not in heard
    assert values["folder"] == str(tmp_path / "bag")
    information = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    offers = {
        entry["topic_metadata"]["name"]: entry["topic_metadata"]["offered_qos_profiles"][0]
        for entry in information["topics_with_message_count"]
    }
    assert offers["/image"]["reliability"] == "best_effort"
    assert offers["/instruction"]["durability"] == "transient_local"
    assert offers["/late"]["reliability"] == "reliable"


@pytest.fixture
def ticking(peer: RosPeer) -> Iterator[Callable[[], int]]:
    """A topic ``tick`` at 100 Hz, each message its own time; gives the number published so far."""
    from std_msgs.msg import Float64

    publisher = peer.publisher("tick", Float64, 10)
    ended, count = threading.Event(), [0]

    def publish() -> None:
        while not ended.wait(0.01):
            publisher.publish(Float64(data=time.time()))
            count[0] += 1

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    yield lambda: count[0]
    ended.set()
    thread.join(5.0)


def test_a_killed_recorder_loses_at_most_the_last_second(peer, ticking, tmp_path):
    with recorder(tmp_path / "bag", "tick") as node:
        peer.wait_for_subscriber("tick", 15.0)
        begun = ticking()
        wait_until(lambda: ticking() > begun + 250, 15.0, "2.5 s of messages")
        os.kill(node.pid, signal.SIGKILL)
        killed = time.time()
        node.wait(5.0)
    with BagReader(tmp_path / "bag") as bag:
        sent = [message.message.data for message in bag.messages()]
        assert any("never closed" in sentence for sentence in bag.damage)
    assert killed - sent[-1] < LAST_SECOND + MARGIN
    assert len(sent) > 100
    assert sent == sorted(sent)


def test_a_disk_that_fills_ends_the_recording_with_the_count_and_nothing_else(listener, ticking, tmp_path):
    from std_msgs.msg import String

    with recorder(tmp_path / "bag", "tick", "big") as node:
        big = listener.publisher("big", String, 10)
        for topic in ("tick", "big"):
            listener.wait_for_subscriber(topic, 15.0)
        status(listener, lambda _, values: int(values.get("messages on disk", 0)) >= 20, "some messages on the disk")
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (200_000, 200_000))
        big.publish(String(data=os.urandom(400_000).hex()))
        entry, values = status(listener, lambda entry, _: level(entry) == 2, "the ERROR")
        after = ticking()
        wait_until(lambda: ticking() > after + 20, 5.0, "everything else going on")
        assert node.process.poll() is None
        node.wait_for_output("the recording has ended", LIMIT)
        assert node.stop(signal.SIGTERM) == 1
    on_disk = int(values["messages on disk"])
    assert f"{on_disk} of" in entry.message
    assert "are on the disk" in entry.message
    with BagReader(tmp_path / "bag") as bag:
        assert sum(topic.count for topic in bag.topics.values()) == on_disk


def test_a_folder_that_cannot_be_used_is_an_error_on_diagnostics_and_the_node_lives(listener, tmp_path):
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "mine").write_text("")
    with recorder(tmp_path / "bag") as node:
        entry, _ = status(listener, lambda entry, _: level(entry) == 2, "the ERROR")
        assert "not empty" in entry.message
        node.wait_for_output("not empty", 5.0)
        assert node.stop(signal.SIGINT) == 1


def test_a_topic_that_never_comes_is_named_and_the_rest_recorded(listener, ticking, tmp_path):
    with recorder(tmp_path / "bag", "tick", "nowhere") as node:
        entry, values = status(listener, lambda _, values: int(values.get("messages", 0)) > 5, "messages")
        assert values["topics recorded"] == "/tick"
        assert values["topics not there"] == "/nowhere"
        assert level(entry) == 0
        assert node.stop(signal.SIGTERM) == 0, node.output


def test_without_a_folder_it_ends_with_one_line_and_2(ros_domain):
    with NodeProcess("bag_recorder") as node:
        assert node.wait(20.0) == 2
        assert node.output.count("\n") == 1
        assert "folder:=DIR" in node.output
