"""The node over real DDS: compressed and damaged pictures, bayer, another size, joints; others on its topics."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness import RosPeer
from test_namesake import answer_get_state
from vla_rig import ACTION, CHUNK, LIMIT, NODE, REPORT, SIZE, TWIST, Rig, gentle, running_rig

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy")
pytest.importorskip("cv2")

JOINTS = {"shoulder": "rad", "elbow": "rad", "finger": "m"}
ARM, FINGER = {"elbow": 0.2, "shoulder": -0.1}, {"finger": 0.02, "head": 1.0}


def smooth(height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """A picture that JPEG keeps well."""
    down, across = np.mgrid[0:height, 0:width].astype(float)
    channels = [down / height, across / width, 1.0 - (down + across) / (height + width)]
    return (np.stack(channels, axis=-1) * 200 + 20).astype(np.uint8)


@pytest.fixture(scope="module")
def rig(ros_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    from tiny_checkpoint import make_tiny_checkpoint

    checkpoint: Path = make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), joints=JOINTS)
    with running_rig(gentle(checkpoint) | {"safety.max_arrival_age": 0.5}) as rig:
        rig.robot.picture = smooth()
        rig.robot.joints = [ARM, FINGER]
        yield rig


@pytest.fixture(autouse=True)
def as_it_was(rig: Rig) -> Iterator[None]:
    yield
    rig.robot.picture, rig.robot.damage, rig.robot.joints = smooth(), bytes, [ARM, FINGER]
    rig.robot.spoil.clear()


def use(rig: Rig, codec: str) -> None:
    """Configure the node for a transport, and move."""
    rig.bring_to("unconfigured")
    assert rig.set(model__image_transport="compressed" if codec else "raw") == (True, "")
    rig.robot.codec = codec
    rig.move()


def next_chunk(rig: Rig) -> np.ndarray:
    """Return the chunk after the next, which answers what is published now for certain."""
    before = rig.heard(CHUNK)
    rig.peer.wait_for(CHUNK, None, LIMIT, "two chunks", before + 1)
    chunk = rig.peer.received(CHUNK)[before + 1]
    return np.concatenate([chunk.translation, chunk.gripper])


@pytest.fixture(scope="module")
def raw_chunk(rig: Rig) -> np.ndarray:
    use(rig, "")
    return next_chunk(rig)


# -- raw ---------------------------------------------------------------------------------------------------------------


def test_joints_split_over_two_messages_and_in_any_order_reach_the_policy_by_name(rig, raw_chunk):
    np.testing.assert_array_equal(next_chunk(rig), raw_chunk)
    rig.robot.joints = [{"finger": 0.02}, {"shoulder": -0.1}, {"wheel": 3.0, "elbow": 0.2}]
    rig.wait_for_motion()
    np.testing.assert_array_equal(next_chunk(rig), raw_chunk)
    rig.robot.joints = [ARM | {"elbow": 0.9}, FINGER]
    rig.wait_for_motion()
    assert np.abs(next_chunk(rig) - raw_chunk).max() > 0.0


def test_a_joint_that_is_not_sent_any_more_stops_the_arm_and_is_named(rig, raw_chunk):
    before = rig.heard(ACTION)
    rig.robot.joints = [ARM]
    stop = rig.wait_for_stop("positions have stopped: finger", before)
    assert "elbow" not in stop.stop_reason
    rig.robot.joints = [ARM, FINGER]
    rig.wait_for_motion()


def test_a_position_that_is_not_finite_is_refused_by_name(rig, raw_chunk):
    before = rig.heard(ACTION)
    rig.robot.joints = [ARM | {"elbow": float("nan")} | FINGER]
    rig.wait_for_stop("position of joint elbow is nan", before)
    rig.robot.joints = [ARM, FINGER]
    rig.wait_for_motion()


def test_a_joint_that_was_never_sent_is_told_with_the_names_there_are(rig, raw_chunk):
    before = rig.heard(ACTION)
    rig.robot.joints = [{"shoulder": 0.0, "head": 1.0}]
    rig.wait_for_stop("positions have stopped: elbow", before)  # none of their messages is still on its way
    rig.bring_to("inactive")
    rig.bring_to("active")
    told = rig.wait_for_status("inputs", lambda status: "no joint elbow, finger" in status.message, "the joints")
    assert "there are: shoulder, head" in told.message
    rig.robot.joints = [ARM, FINGER]
    rig.move()


def test_another_size_in_between_is_taken_and_guidance_begins_afresh(rig, raw_chunk):
    episode = rig.wait_for_motion().episode
    rig.robot.picture = smooth(60, 80)
    action = rig.peer.wait_for(
        ACTION, lambda action: action.episode > episode and not action.stop_reason, LIMIT, "motion", rig.heard(ACTION)
    )
    assert action.episode == episode + 1
    assert rig.state() == "active"
    rig.node.wait_for_output("pictures are 80x60 rgb8 now, they were 48x48 rgb8", LIMIT)


def test_a_bayer_picture_is_interpolated_beside_the_loop(rig, raw_chunk):
    mosaic = smooth()[:, :, 1].copy()
    mosaic[::2, ::2], mosaic[1::2, 1::2] = smooth()[::2, ::2, 0], smooth()[1::2, 1::2, 2]  # rggb
    rig.robot.spoil.update(encoding="bayer_rggb8", step=SIZE, data=mosaic.tobytes())
    rig.wait_for_motion()
    assert np.abs(next_chunk(rig) - raw_chunk).max() < 0.01
    assert np.abs(next_chunk(rig) - raw_chunk).max() > 0.0


def test_a_picture_without_contrast_is_a_warning_and_no_stop(rig, raw_chunk):
    rig.robot.picture = np.full((SIZE, SIZE, 3), 3, np.uint8)
    rig.wait_for_status("inputs", lambda status: "no contrast: /image" in status.message, "no contrast")
    rig.wait_for_motion()


# -- others on the graph -----------------------------------------------------------------------------------------------


def test_another_type_on_a_camera_topic_is_named_with_its_node_and_both_types(rig, raw_chunk):
    from sensor_msgs.msg import CompressedImage

    told = (
        "publishes sensor_msgs/msg/CompressedImage there, sensor_msgs/msg/Image is wanted: remap one of the two, or "
        "set model.image_transport to 'compressed'"
    )
    with RosPeer("wrong_camera") as other:
        other.publisher("image", CompressedImage)
        rig.wait_for_status("inputs", lambda status: f"/image: /wrong_camera {told}" in status.message, "both types")
        rig.wait_for_motion()
    rig.robot.silent.add("image")
    try:
        rig.wait_for_error("inputs", "/image has stopped")
    finally:
        rig.robot.silent.clear()
    rig.wait_for_motion()
    rig.node.wait_for_output("wrong_camera", LIMIT)


def test_an_instruction_that_qos_keeps_from_us_is_named_with_policy_and_both_values(rig, raw_chunk):
    from rclpy.qos import qos_profile_sensor_data
    from std_msgs.msg import String

    with RosPeer("mumbler") as other:
        other.publisher("instruction", String, qos_profile_sensor_data)
        told = (
            "/instruction: nothing is heard of /mumbler: reliability BEST_EFFORT is offered, RELIABLE is asked for; "
            "change its publisher's QoS"
        )
        rig.wait_for_status("inputs", lambda status: told in status.message, "the policy")
        rig.wait_for_motion()


def test_another_commander_of_the_arm_is_a_warning_with_its_name(rig, raw_chunk):
    from geometry_msgs.msg import TwistStamped

    with RosPeer("joystick") as other:
        other.publisher(TWIST, TwistStamped)
        told = f"{TWIST}: /joystick publishes there as well"
        rig.wait_for_status("commands", lambda status: told in status.message, "the other commander")


@pytest.mark.slow
def test_a_living_namesake_is_refused_at_configure_and_nothing_is_started(rig, raw_chunk):
    from geometry_msgs.msg import TwistStamped

    with RosPeer(NODE) as namesake:
        namesake.publisher(TWIST, TwistStamped)
        known = f"another /{NODE} publishes there as well"
        rig.wait_for_status("commands", lambda status: known in status.message, "that the node knows the namesake")
        rig.bring_to("unconfigured")
        answer_get_state(namesake, "active")  # not before: it would answer our own questions too
        assert not rig.change("configure")
        rig.wait_for_error("worker", "another node /dysl_vla is on the graph, in the state active")
        assert rig.node.children() == []
    rig.move()  # one that left, or died and is still on the graph, does not answer: it hinders nobody


# -- compressed --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_png_gives_the_same_actions_as_raw_bit_for_bit(rig, raw_chunk):
    use(rig, "png")
    np.testing.assert_array_equal(next_chunk(rig), raw_chunk)


def test_jpeg_gives_actions_close_to_raw_and_decoding_is_in_the_report(rig, raw_chunk):
    use(rig, "jpeg")
    chunk = next_chunk(rig)
    assert 0.0 < np.abs(chunk - raw_chunk).max() < 0.01
    report = rig.peer.received(REPORT)[-1]
    assert 0.0 < report.convert_ms <= report.total_ms


def cut_off(data: bytes) -> bytes:
    return data[: len(data) // 2]


def spoilt_inside(data: bytes) -> bytes:
    """Keep beginning and end; what is between tells no decoder anything."""
    table = data.index(b"\xff\xc4")
    return data[:table] + b"\xff\xc4\x00\x05\xff\xff\xff" + data[-2:]


@pytest.mark.parametrize(("damage", "told"), [(cut_off, "was cut off"), (spoilt_inside, "cannot decode")])
def test_damaged_jpegs_are_counted_and_stop_the_arm_by_age_and_one_is_only_dropped(rig, raw_chunk, damage, told):
    if rig.robot.codec != "jpeg":
        use(rig, "jpeg")
    rig.wait_for_motion()
    before = rig.heard(ACTION)
    once = iter([damage])
    rig.robot.damage = lambda data: next(once, bytes)(data)
    rig.wait_for_status("inputs", lambda status: refused(status) > 0, "a refused picture")
    rig.wait_for_motion()
    assert not any("refused" in action.stop_reason for action in rig.peer.received(ACTION)[before:])
    before = rig.heard(ACTION)
    rig.robot.damage = damage
    stop = rig.wait_for_stop(told, before)
    assert stop.stop_reason.startswith("/image/compressed: messages are refused")
    rig.robot.damage = bytes
    rig.wait_for_motion()
    assert rig.state() == "active" and not rig.node.output.count("Traceback")


def refused(status) -> int:
    values = {pair.key: pair.value for pair in status.values}
    return int(values["/image/compressed refused"])
