"""Cameras of equal stamps at low rates, the second behind the first: over real DDS, and as recordings of it."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.readings import picture, seconds
from dysl_vla_ros.recordings.history import nanoseconds
from dysl_vla_ros.recordings.source import Choice, open_source
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import FULL_DEPTH, SafetySettings
from harness import wait_until
from recorded_bag import BagWriter
from vla_rig import ACTION, CHUNK, LIMIT, Rig, gentle, running_rig

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy")

JOINTS = {"elbow": "rad", "finger": "m"}
CAMERAS = ("image", "wrist_image")
STAMPED = (*CAMERAS, "ee_pose", "joint_states")
ORDERS = [STAMPED[place:] + STAMPED[:place] for place in range(len(STAMPED))] + [STAMPED[::-1]]
BEHIND = 0.02  # s
INSTANTS = 16
TEXT = "push the puck"
UNANSWERED = "no fresh action: the policy has not answered yet"  # a busy machine's, no input's

Instant = dict[str, Any]  # source -> its message


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_checkpoint import make_tiny_checkpoint

    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), joints=JOINTS)


@pytest.fixture(scope="module")
def runtime(checkpoint: Path) -> Runtime:
    return Runtime.load(str(checkpoint), "")


@pytest.fixture(scope="module")
def rig(ros_domain: int, checkpoint: Path) -> Iterator[Rig]:
    with running_rig(gentle(checkpoint) | {"safety.max_camera_skew": 0.1}) as rig:
        rig.robot.joints = [{"elbow": 0.2}, {"finger": 0.02}]
        rig.robot.order = ("gripper_state", *STAMPED)
        rig.robot.behind = {"wrist_image": BEHIND}
        rig.robot.one_stamp, rig.robot.drift = True, 0.01
        yield rig


@pytest.fixture(scope="module", params=[5.0, 10.0])
def run(rig: Rig, request: pytest.FixtureRequest) -> tuple[list[Instant], list[Any], list[Any]]:
    """Run at a rate; return the instants that were sent, and the actions and chunks meanwhile."""
    rig.robot.period = 1.0 / request.param - BEHIND
    rig.move()
    actions, chunks, sent = rig.heard(ACTION), rig.heard(CHUNK), []
    rig.robot.sent = sent
    wait_until(lambda: len(instants(sent)) >= INSTANTS, LIMIT, f"{INSTANTS} instants")
    rig.robot.sent = None
    return instants(sent), rig.peer.received(ACTION)[actions:], rig.peer.received(CHUNK)[chunks:]


def instants(sent: list[tuple[str, Any]]) -> list[Instant]:
    """Return what was sent by its stamps, joints put together; the first and last instant may lack something."""
    found: dict[float, Instant] = {}
    for source, message in list(sent):
        if source == "joint_states":
            known = found.setdefault(seconds(message.header.stamp), {})
            known.setdefault(source, []).append(message)
        elif source in STAMPED:
            found.setdefault(seconds(message.header.stamp), {})[source] = message
    whole = (instant for instant in found.values() if set(instant) == set(STAMPED))
    return [instant for instant in whole if set(JOINTS) <= set(proprioception(instant))]


def proprioception(instant: Instant) -> dict[str, float]:
    joints = {name: own for part in instant["joint_states"] for name, own in zip(part.name, part.position, strict=True)}
    position = instant["ee_pose"].pose.position
    return joints | {"ee.x": position.x, "ee.y": position.y, "ee.z": position.z, "gripper.opening": 0.5}


def record(folder: Path, found: list[Instant], order: tuple[str, ...]) -> Path:
    """Write instants as a bag in which the messages of each one stand in an order, 2 ms apart."""
    with BagWriter(folder) as writer:
        for number, instant in enumerate(found):
            stamp = nanoseconds(instant["image"].header.stamp)
            if not number:
                writer.write("/instruction", stamp, writer.text(TEXT))
            writer.write("/gripper_state", stamp, writer.number(0.5))
            for place, source in enumerate(order, start=1):
                for message in copied(writer, stamp, source, instant[source]):
                    writer.write(f"/{source}", stamp + place * 2_000_000, message)
    return folder


def copied(writer: BagWriter, stamp: int, source: str, sent: Any) -> list[Any]:
    if source == "joint_states":
        return [writer.joints(stamp, dict(zip(part.name, part.position, strict=True))) for part in sent]
    if source == "ee_pose":
        position = sent.pose.position
        return [writer.pose(stamp, np.array([position.x, position.y, position.z]))]
    return [writer.image(stamp, picture(sent))]


def replayed(bag: Path, runtime: Runtime) -> list[Any]:
    with BagReader(bag) as reader:
        source = open_source(reader, runtime.description, SafetySettings(max_arrival_age=1.0), Choice())
        moments = list(source.moments)
        assert not source.moments.refused
        return moments


def test_no_tick_stops_because_a_partner_is_still_on_its_way(run: tuple[list[Instant], list[Any], list[Any]]) -> None:
    _, actions, _ = run
    assert len(actions) > INSTANTS
    assert {action.stop_reason for action in actions} <= {"", UNANSWERED}


def test_the_node_sees_what_bears_one_stamp_and_so_does_replay_in_any_order(
    run: tuple[list[Instant], list[Any], list[Any]], runtime: Runtime, tmp_path: Path
) -> None:
    found, _, chunks = run
    names = runtime.description.proprioception.names
    expected: dict[float, np.ndarray] = {}  # stamp -> chunk of the policy for what bears it
    for number, order in enumerate(ORDERS):
        moments = replayed(record(tmp_path / str(number), found, order), runtime)
        assert len(moments) == len(found), f"in the order {order}"
        for moment, instant in zip(moments, found, strict=True):
            for camera in CAMERAS:
                np.testing.assert_array_equal(moment.observation.images[camera], picture(instant[camera]), str(order))
            known = proprioception(instant)
            wanted = np.array([known[name] for name in names], np.float32)
            np.testing.assert_array_equal(moment.observation.proprioception, wanted, str(order))
            if not number:
                runtime.reset()
                result = runtime.step(moment.observation, np.zeros((0, 4), np.float32), FULL_DEPTH)
                expected[seconds(instant["image"].header.stamp)] = result.chunk.actions
    answered = {seconds(chunk.image_stamp): chunk for chunk in chunks}
    answered = {stamp: chunk for stamp, chunk in answered.items() if stamp in expected}
    assert len(answered) >= INSTANTS // 2
    apart = [np.abs(of_message(chunk) - expected[stamp]).max() for stamp, chunk in answered.items()]
    others = [np.abs(a - b).max() for a, b in itertools.pairwise(expected.values())]
    assert min(others) > 1e-3, "other messages must give another chunk, or nothing is tested"
    # one that a busy machine hands over later than the longest wait may be missed
    assert np.mean(np.array(apart) < 1e-5) >= 0.8, f"chunks lie {apart} from those of what bears their stamp"


def of_message(chunk: Any) -> np.ndarray:
    translation = np.array(chunk.translation, np.float32).reshape(chunk.horizon, 3)
    return np.column_stack([translation, np.array(chunk.gripper, np.float32)])
