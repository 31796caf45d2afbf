"""What cameras and people send, over real DDS: equal scenes, equal actions; frozen images, fast cameras, any text."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dysl_vla_ros.readings import seconds
from faulty_worker import FaultyWorker
from harness import wait_until
from vla_rig import ACTION, CHUNK, LIMIT, SIZE, BadLink, Rig, gentle, running_rig, wait_steadily

pytestmark = pytest.mark.ros

PAD = 16  # bytes behind each row
FAST, SLOW_STEP = 120.0, 0.2  # Hz of the camera, s of an inference
SOAK, SETTLED = 60.0, 10.0  # s
GROWTH = 4.0  # MB that memory may differ by between the ends of a soak


@pytest.fixture(scope="module")
def module_rig(ros_domain: int, faulty: FaultyWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    from tiny_checkpoint import make_tiny_checkpoint

    parameters = gentle(make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))) | {"model.python": faulty.python}
    with running_rig(parameters) as rig:
        yield rig


@pytest.fixture
def rig(module_rig: Rig, faulty: FaultyWorker) -> Iterator[Rig]:
    faulty.set("none")
    yield module_rig
    module_rig.robot.spoil = {}
    module_rig.robot.picture = None
    module_rig.robot.period = 0.05
    module_rig.robot.link = None
    module_rig.robot.silent.clear()


def first_chunk(rig: Rig, fields: dict[str, Any]) -> np.ndarray:
    """Return the chunk of an episode's first inference on an image of these fields."""
    from std_srvs.srv import Trigger

    rig.robot.spoil = fields
    wait_steadily(4 * rig.robot.period)  # what is heard from now on has them
    before = rig.heard(CHUNK)
    assert rig.peer.call("dysl_vla/reset", Trigger.Request(), LIMIT).success
    chunk = rig.peer.wait_for(CHUNK, lambda chunk: chunk.inference == 1, LIMIT, "an episode's first chunk", before)
    return np.array([*chunk.translation, *chunk.gripper])


def test_rgb8_bgr8_and_padded_rows_of_one_scene_give_equal_actions(rig):
    picture = np.random.default_rng(5).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    rig.robot.picture = picture
    rig.move()
    padded = np.zeros((SIZE, 3 * SIZE + PAD), np.uint8)
    padded[:, : 3 * SIZE] = picture.reshape(SIZE, -1)
    padded[:, 3 * SIZE :] = 255
    plain = first_chunk(rig, {})
    bgr = first_chunk(rig, {"encoding": "bgr8", "data": picture[:, :, ::-1].tobytes()})
    rows = first_chunk(rig, {"step": 3 * SIZE + PAD, "data": padded.tobytes()})
    swapped = first_chunk(rig, {"data": picture[:, :, ::-1].tobytes()})  # rgb8 that is none: the law can fail
    assert np.array_equal(plain, bgr) and np.array_equal(plain, rows) and not np.array_equal(plain, swapped)


def test_identical_images_under_new_stamps_are_a_warning_with_their_count_and_no_stop(rig):
    rig.robot.picture = np.random.default_rng(6).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    rig.move()
    counts = []
    for _ in range(2):
        status = rig.wait_for_status(
            "inputs", lambda status: "frozen picture? /image: " in status.message, "a frozen picture"
        )
        assert status.level == b"\x01"  # WARN
        counts.append(int(status.message.partition("frozen picture? /image: ")[2].split()[0]))
        wait_steadily(0.5)
    assert counts[1] > counts[0] > 0
    assert rig.wait_for_motion()
    rig.robot.picture = None
    rig.wait_for_status("inputs", lambda status: status.message == "fresh", "another picture")


PROFILES = [
    (reliability, durability, depth, extra)
    for reliability in ("BEST_EFFORT", "RELIABLE")
    for durability in ("VOLATILE", "TRANSIENT_LOCAL")
    for depth in (1, 10)
    for extra in ("", "deadline", "liveliness")
]


def profile(reliability: str, durability: str, depth: int, extra: str) -> Any:
    from rclpy.duration import Duration
    from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

    options = {
        "deadline": {"deadline": Duration(seconds=0.1)},
        "liveliness": {
            "liveliness": LivelinessPolicy.MANUAL_BY_TOPIC,
            "liveliness_lease_duration": Duration(seconds=2.0),
        },
    }.get(extra, {})
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy[reliability],
        durability=DurabilityPolicy[durability],
        **options,
    )


def received(rig: Rig, topic: str) -> int:
    status = rig.wait_for_status("inputs", lambda status: True, "the inputs")
    return int(next(pair.value for pair in status.values if pair.key == f"{topic} received"))


@pytest.mark.slow
def test_a_camera_is_heard_whatever_it_offers_and_a_speaker_unless_best_effort(rig):
    """The whole matrix: of what a publisher may offer only a best-effort instruction finds no ear, and that is told."""
    from sensor_msgs.msg import Image
    from std_msgs.msg import String

    rig.bring_to("active")
    rig.robot.silent.add("image")
    for offered in PROFILES:
        camera = rig.peer.node.create_publisher(Image, "image", profile(*offered))
        wait_until(lambda camera=camera: camera.get_subscription_count() == 1, LIMIT, f"an ear for {offered}")
        before = received(rig, "/image")
        message = rig.robot._message("image")
        message.header.stamp = rig.peer.node.get_clock().now().to_msg()
        camera.publish(message)
        wait_until(lambda before=before: received(rig, "/image") > before, LIMIT, f"an image of {offered}")
        rig.peer.destroy(rig.peer.node.destroy_publisher, camera)
    for offered in PROFILES:
        speaker = rig.peer.node.create_publisher(String, "instruction", profile(*offered))
        ears = {"BEST_EFFORT": 0, "RELIABLE": 2 if offered[1] == "TRANSIENT_LOCAL" else 1}[offered[0]]
        if ears:
            wait_until(lambda speaker=speaker, ears=ears: speaker.get_subscription_count() == ears, LIMIT, f"{offered}")
        else:
            rig.wait_for_status("inputs", lambda status: "RELIAB" in status.message.upper(), f"a warning of {offered}")
            assert speaker.get_subscription_count() == 0
        rig.peer.destroy(rig.peer.node.destroy_publisher, speaker)


@pytest.mark.slow
def test_any_text_leaves_the_node_active_and_the_next_good_one_moves_the_arm(rig):
    from std_msgs.msg import String

    rig.move()
    child = [process.pid for process in rig.node.children()]
    anything = st.one_of(
        st.text(max_size=60),
        st.text(st.characters(categories=("Cc", "Cf", "Co", "Zs", "So", "Mn")), max_size=20),
        st.integers(1, 100_000).map("x".__mul__),
        st.lists(st.sampled_from(["push", "the", "puck", "stop", "open"]), max_size=300).map(" ".join),
    ).filter(lambda text: text.isascii() or text.encode(errors="replace").decode() == text)

    @given(anything)
    @hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    def any_text(text: str) -> None:
        rig.peer.publish("instruction", String(data=text))
        before = rig.heard(ACTION)
        rig.peer.publish("instruction", String(data="open the drawer"))
        rig.peer.publish("instruction", String(data="push the puck"))
        rig.peer.wait_for(ACTION, lambda action: not action.stop_reason, LIMIT, f"motion after {text[:80]!r}", before)

    any_text()
    assert rig.state() == "active" and [process.pid for process in rig.node.children()] == child


def megabytes(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_camera_of_120_hz_at_a_policy_of_5_hz_leaves_memory_flat_and_counts_what_no_step_used(rig, faulty):
    rig.robot.period = 1 / FAST
    faulty.set("delay", seconds=SLOW_STEP)
    rig.move()
    wait_steadily(SETTLED)
    before = megabytes(rig.node.pid)
    first = rig.wait_for_status("inputs", lambda status: True, "the inputs")
    wait_steadily(SOAK)
    last = rig.wait_for_status("inputs", lambda status: True, "the inputs")
    assert megabytes(rig.node.pid) - before < GROWTH
    counts = [{pair.key: pair.value for pair in status.values} for status in (first, last)]
    heard, dropped = (int(counts[1][key]) - int(counts[0][key]) for key in ("/image received", "/image dropped"))
    assert heard > 0.5 * FAST * SOAK and int(counts[1]["/image refused"]) == 0
    assert 0.8 * heard < dropped < heard
    for action in rig.peer.received(ACTION)[-20:]:  # of the newest image when the inference began
        if not action.stop_reason:
            assert seconds(action.header.stamp) - seconds(action.image_stamp) < 3 * SLOW_STEP


@pytest.mark.parametrize("lost", [0.1, 0.4])
def test_over_a_bad_link_the_arm_moves_on_by_newer_and_newer_images_and_the_rate_is_told(rig: Rig, lost: float) -> None:
    """Lost, doubled and late messages: none of an older moment is acted upon."""
    rig.move()
    rig.robot.link = BadLink(lost, doubled=0.1, delayed=0.1)
    rig.robot.sent = []
    before = rig.heard(ACTION)

    def sent() -> list[float]:
        return [seconds(message.header.stamp) for topic, message in rig.robot.sent if topic == "image"]

    wait_until(lambda: any(later < earlier for earlier, later in pairwise(sent())), LIMIT, "an image that comes late")
    wait_until(lambda: rig.heard(ACTION) >= before + 80, LIMIT, "four seconds of commands")
    actions = [action for action in rig.peer.received(ACTION)[before:] if not action.stop_reason]
    assert len(actions) > 40
    stamps = [seconds(action.image_stamp) for action in actions]
    assert stamps == sorted(stamps) and set(stamps[5:]) <= set(sent())
    status = rig.wait_for_status(
        "inputs", lambda status: read(status, "/image rate [Hz]") < 20.0 * (1.0 - lost / 2), "a rate"
    )
    assert read(status, "/image rate [Hz]") > 4.0
    rig.robot.sent = None


def read(status: Any, key: str) -> float:
    return float(next(pair.value for pair in status.values if pair.key == key))
