"""Pictures are converted beside the loop, only when one is due; damaged ones renew nothing until another is decoded."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

from dysl_vla_ros.control.input_judge import InputJudge  # noqa: E402
from dysl_vla_ros.nodes.pictures import Pictures  # noqa: E402
from dysl_vla_ros.readings import picture  # noqa: E402
from dysl_vla_ros.settings import SafetySettings  # noqa: E402
from waiting import wait_until  # noqa: E402

CAMERAS = ("image", "wrist_image")
LIMIT = 20.0  # s
SAFETY = SafetySettings(max_arrival_age=0.3, max_stamp_age=10.0)


def raw(stamp: float, height: int = 4, width: int = 6, value: int | None = None):
    pixels = np.random.default_rng(int(stamp * 100)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if value is not None:
        pixels[:] = value
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp), height=height, width=width, encoding="rgb8", step=3 * width,
        is_bigendian=0, data=pixels.tobytes(),
    )  # fmt: skip


def png(stamp: float, height: int = 4, width: int = 6):
    pixels = np.random.default_rng(int(stamp * 100)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = cv2.imencode(".png", pixels)[1].tobytes()
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), format="rgb8; png compressed bgr8", data=data)


def damaged(stamp: float):
    message = png(stamp)
    message.data = message.data[:40] + b"\0\0\0\0" + message.data[44:]
    return message


class World:
    """Real pictures and freshness; ``take_when_asked``: what the loop does when it is asked again."""

    def __init__(self, take_when_asked: bool = True) -> None:
        self.lock = threading.RLock()
        self.judge = InputJudge(CAMERAS, (), (), {}, {})
        self.judge.start(0.0)
        self.freshness = self.judge.freshness
        self.taken, self.asked, self.refusals = [], 0, []
        self.take_when_asked = take_when_asked
        self.pictures = Pictures(
            CAMERAS, self.lock, self.freshness, self.ask, lambda camera, why: self.refusals.append(camera)
        )
        self.pictures.start()

    def ask(self) -> None:
        self.asked += 1
        if self.take_when_asked and self.pictures.prepare("again"):
            self.taken.append(self.pictures.take())

    def hear(self, message, now: float, cameras=CAMERAS) -> None:
        with self.lock:
            for camera in cameras:
                assert self.judge.hear(camera, message, now, message.header.stamp, None, SAFETY) == ""
                self.pictures.hear(camera, message)
            for verdict in self.judge.verdicts(now, SAFETY):
                self.pictures.offer(verdict, self.judge.in_doubt(verdict))

    def wait(self, asked: int) -> None:
        wait_until(lambda: self.asked >= asked, LIMIT, f"{asked} conversions")

    def stop_reason(self, now: float) -> str:
        return self.freshness.stop_reason(now, now, SAFETY)


@pytest.fixture
def world():
    world = World()
    yield world
    world.pictures.close()


def test_views_are_taken_at_once(world):
    world.hear(raw(1.0), 1.0)
    assert world.pictures.prepare("now")
    taken = world.pictures.take()
    assert taken.begun is None and taken.pictures["image"].shape == (4, 6, 3) and world.asked == 0


def test_compressed_pictures_are_converted_when_one_is_due_and_the_loop_is_asked_again(world):
    for stamp in (1.0, 1.1, 1.2):
        world.hear(png(stamp), stamp)
    assert world.asked == 0, "nothing is due: nothing is decoded"
    assert not world.pictures.prepare("first")
    world.wait(1)
    (taken,) = world.taken
    assert taken.begun == "first" and taken.convert_ms > 0.0
    assert taken.messages["image"].header.stamp == 1.2
    assert world.freshness.statistics("image", 1.2).dropped == 2


def test_pictures_that_the_loop_had_no_use_for_are_not_kept(world):
    world.take_when_asked = False
    world.hear(png(1.0), 1.0)
    assert not world.pictures.prepare("first")
    world.wait(1)
    world.take_when_asked = True
    world.hear(png(1.1), 1.1)
    with world.lock:
        assert not world.pictures.prepare("second")
    world.wait(2)
    assert [taken.begun for taken in world.taken] == ["second"]
    assert world.taken[0].messages["image"].header.stamp == 1.1


def test_no_tick_waits_while_a_large_picture_is_decoded(world):
    """The lock, which every tick takes, is free during all of it."""
    large = png(1.0, 3000, 4000)
    world.hear(large, 1.0)
    began = time.monotonic()
    assert not world.pictures.prepare("first")
    longest, ticks = 0.0, 0
    while not world.asked:
        tick = time.monotonic()
        with world.lock:
            assert not world.pictures.prepare("tick") or world.asked
        longest, ticks = max(longest, time.monotonic() - tick), ticks + 1
        threading.Event().wait(0.001)
        assert tick - began < LIMIT
    took = time.monotonic() - began
    assert took > 0.05 and ticks > 10, "the picture was too small: nothing is tested"
    assert longest < took / 2, f"the lock was held for {longest:.3f} of {took:.3f} s"


def test_a_damaged_picture_is_never_taken_and_the_next_ones_are(world):
    world.hear(raw(0.95), 0.95)
    world.hear(damaged(1.0), 1.0, ("wrist_image",))
    world.hear(raw(1.0), 1.0, ("image",))
    assert not world.pictures.prepare("first")
    world.wait(1)
    assert world.taken == [] and world.refusals == ["wrist_image"]
    with world.lock:
        assert not world.pictures.prepare("second"), "one of the newest that belong together is the damaged one"
    world.hear(png(1.05), 1.05, ("wrist_image",))
    world.hear(raw(1.05), 1.05, ("image",))
    world.wait(2)
    assert len(world.taken) == 1 and world.taken[0].messages["wrist_image"].header.stamp == 1.05
    assert world.freshness.statistics("wrist_image", 1.05).refused == 1
    assert world.stop_reason(1.05) == ""


@pytest.mark.parametrize("make", [raw, png])
def test_the_pictures_taken_are_those_that_belong_together_while_a_newer_one_waits_for_its_partner(world, make):
    for stamp in (1.0, 1.2):
        world.hear(make(stamp), stamp, ("wrist_image",))
        world.hear(make(stamp), stamp, ("image",))
    world.hear(make(1.4), 1.4, ("image",))
    with world.lock:
        if world.pictures.prepare("now"):
            world.taken.append(world.pictures.take())
    wait_until(lambda: world.taken, LIMIT, "pictures")
    (taken,) = world.taken
    assert {message.header.stamp for message in taken.messages.values()} == {1.2}
    for camera, message in taken.messages.items():
        np.testing.assert_array_equal(taken.pictures[camera], picture(message))
    counts = {camera: world.freshness.statistics(camera, 1.4).dropped for camera in CAMERAS}
    assert counts == {"image": 1, "wrist_image": 1}, "the newer image waits still, and the one before it was used"


def test_damage_in_every_picture_stops_the_arm_by_age_and_a_good_one_ends_it(world):
    world.hear(png(1.0), 1.0)
    assert not world.pictures.prepare("first")
    world.wait(1)
    assert world.stop_reason(1.0) == ""
    for count, stamp in enumerate((1.1, 1.2, 1.3, 1.4), start=2):
        world.hear(raw(stamp), stamp, ("wrist_image",))
        world.hear(damaged(stamp), stamp, ("image",))
        with world.lock:
            world.pictures.prepare("next")
        world.wait(count)
    assert "image: messages are refused: OpenCV cannot decode" in world.stop_reason(1.4)
    assert "wrist" not in world.stop_reason(1.4)
    world.hear(png(1.5), 1.5)
    wait_until(lambda: not world.stop_reason(1.5), LIMIT, "the end of the stop")
    assert world.freshness.statistics("image", 1.5).refused == 4


def test_a_start_drops_what_is_being_converted(world):
    world.hear(png(1.0, 1500, 2000), 1.0)
    with world.lock:
        assert not world.pictures.prepare("first")
        world.pictures.start()
    world.freshness.start(2.0)
    world.hear(png(2.0), 2.0)
    with world.lock:
        assert not world.pictures.prepare("second")
    wait_until(lambda: world.taken, LIMIT, "a conversion")
    assert [taken.begun for taken in world.taken] == ["second"] and world.asked == 1


def test_another_size_or_encoding_is_told_once(world):
    for stamp, message, told in (
        (1.0, raw(1.0), ""),
        (1.1, raw(1.1), ""),
        (1.2, raw(1.2, 8, 12), "image: pictures are 12x8 rgb8 now, they were 6x4 rgb8"),
        (1.3, raw(1.3, 8, 12), ""),
    ):
        world.hear(message, stamp)
        assert world.pictures.prepare("now")
        change = world.pictures.change()
        assert change.startswith(told) and bool(change) == bool(told)
        world.pictures.take()


def test_a_picture_of_one_colour_is_a_warning_until_there_is_contrast(world):
    for stamp, value in ((1.0, 0), (1.1, 255), (1.2, None)):
        world.hear(raw(stamp, 60, 80, value=value), stamp)
        assert world.pictures.prepare("now")
        world.pictures.take()
        told = world.pictures.warnings()
        assert len(told) == (0 if value is None else 2)
        assert all("no contrast: " in text for text in told)
