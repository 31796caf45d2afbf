"""Images of a common camera arrive whole between two processes, under the transport that launch and demo set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dysl_vla_ros.transport import (
    BEFORE_KILTED,
    CHOICES_OF_THE_USER,
    VARIABLE,
    VARIABLE_BEFORE_KILTED,
    environment_for_images,
    profile,
)
from harness import RosPeer

FRAMES, RATE = 60, 30.0


@pytest.mark.ros
def test_no_image_of_640x480_at_30_hz_is_lost_between_two_processes(peer: RosPeer) -> None:
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    from image_publisher import SEARCHING

    variable = VARIABLE_BEFORE_KILTED if os.environ.get("ROS_DISTRO") in BEFORE_KILTED else VARIABLE
    assert os.environ[variable] == str(profile()), "the tests must run under the transport that launch and demo set"
    peer.listen("/transport_test/image", Image, qos_profile_sensor_data)
    camera = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("image_publisher.py")), "/transport_test/image"]
        + [str(FRAMES), str(RATE)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        peer.wait_for("/transport_test/image", lambda image: image.header.frame_id == SEARCHING, 40.0, "the camera")
        assert camera.stdin is not None
        camera.stdin.write(b"found\n")
        camera.stdin.flush()
        last = str(FRAMES - 1)
        peer.wait_for("/transport_test/image", lambda image: image.header.frame_id == last, 40.0, "the last frame")
        _, fault = camera.communicate(timeout=10.0)
        assert camera.returncode == 0, fault.decode()
    finally:
        camera.kill()
        camera.wait(10.0)
    images = [own for own in peer.received("/transport_test/image") if own.header.frame_id != SEARCHING]
    assert [image.header.frame_id for image in images] == [str(frame) for frame in range(FRAMES)]
    for frame, image in enumerate(images):
        assert len(image.data) == image.step * image.height
        assert image.data[0] == image.data[-1] == frame


@pytest.mark.parametrize("variable", CHOICES_OF_THE_USER)
def test_a_transport_that_the_user_chose_is_left_alone(variable: str) -> None:
    assert environment_for_images({variable: "chosen"}) == {variable: "chosen"}


@pytest.mark.ros
@pytest.mark.parametrize(
    ("distribution", "variable"), [("jazzy", VARIABLE_BEFORE_KILTED), ("kilted", VARIABLE), ("", VARIABLE)]
)
def test_the_profile_is_named_where_nothing_was_chosen(distribution: str, variable: str) -> None:
    given = {"ROS_DISTRO": distribution, "FASTDDS_BUILTIN_TRANSPORTS": ""}
    assert environment_for_images(given) == {**given, variable: str(profile())}
    assert given == {"ROS_DISTRO": distribution, "FASTDDS_BUILTIN_TRANSPORTS": ""}, "the argument was changed"
    assert profile().is_file()
