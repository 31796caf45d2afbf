"""The judge of what belongs together, alone: messages with stamps and times of arrival in, one verdict an image out."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dysl_vla_ros.control.input_judge import InputJudge
from dysl_vla_ros.control.pairing import IMAGES_KEPT, Heard, Pairing, Verdict, patience
from dysl_vla_ros.settings import SafetySettings

SAFETY = SafetySettings()  # arrival 0.3 s, stamp 0.5 s, camera skew 0.1 s
ROS = 1000.0  # s, the ROS clock at steady 0
RATES = [5.0, 9.0, 10.0, 15.0, 30.0]  # Hz
CAMERAS = ("image", "wrist_image")
VALUES = ("ee_pose", "elbow")
EXACT = 1e-9  # s
GENTLE = hypothesis_settings(deadline=None, max_examples=60)


class Message(NamedTuple):
    arrival: float  # s, steady clock
    source: str
    stamp: float  # s, ROS clock


def judged(
    messages: Sequence[Message],
    safety: SafetySettings = SAFETY,
    cameras: Sequence[str] = CAMERAS,
    values: Sequence[str] = VALUES,
    polls: Sequence[float] = (),
) -> list[Verdict]:
    """Hear messages as they arrive, ask at ``polls`` (s) besides, and return every verdict."""
    pairing = Pairing(cameras, values)
    verdicts = []
    times = sorted([(message.arrival, 0, message) for message in messages] + [(poll, 1, None) for poll in polls],
                   key=lambda event: event[:2])  # fmt: skip
    for time, _, message in times:
        if message is None:
            verdicts += pairing.verdicts(time, safety)
        else:
            pairing.hear(message.source, Heard(message.stamp, time, message), safety)
    return verdicts + pairing.verdicts(float("inf"), safety)


def stream(source: str, rate: float, count: int, *, shift: float = 0.0, late: float = 0.0) -> list[Message]:
    """Make messages of a source: ``shift`` of their stamps, ``late``: from the stamp to the arrival, both s."""
    stamps = [ROS + shift + number / rate for number in range(count)]
    return [Message(stamp - ROS + late, source, stamp) for stamp in stamps]


def served(verdicts: Sequence[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if not verdict.refusal]


def told(verdicts: Sequence[Verdict]) -> list[tuple]:
    """Return verdicts as values that can be compared."""
    return [(v.image, v.time, sorted((source, part.stamp) for source, part in v.parts.items()), v.refusal)
            for v in verdicts]  # fmt: skip


# -- messages of one instant -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("order", list(itertools.permutations((*CAMERAS, *VALUES))))
def test_messages_of_one_instant_are_taken_together_in_every_order(rate, order):
    lags = {source: place * 0.005 for place, source in enumerate(order)}
    messages = [message for source in order for message in stream(source, rate, 8, late=lags[source])]
    verdicts = judged(messages)
    assert len(verdicts) == 8
    for verdict in verdicts:
        assert not verdict.refusal and set(verdict.parts) == {*CAMERAS, *VALUES}
        assert {part.stamp for part in verdict.parts.values()} == {verdict.image.stamp}
        assert verdict.time == max(part.arrival for part in verdict.parts.values()), "served by what completes it"


@given(rate=st.sampled_from(RATES), data=st.data())
@GENTLE
def test_messages_of_one_instant_are_taken_together_however_their_arrivals_jitter(rate, data):
    spread = patience(SAFETY) - 0.005
    messages = []
    for source in (*CAMERAS, *VALUES):
        before = 0.0
        for message in stream(source, rate, 12):
            late = data.draw(st.floats(0.0, spread))
            before = max(before + 1e-6, message.arrival + late)  # a link keeps the order of one source
            messages.append(message._replace(arrival=before))
    verdicts = judged(messages)
    assert len(verdicts) == 12
    for verdict in verdicts:
        assert {part.stamp for part in verdict.parts.values()} == {verdict.image.stamp}, verdict.refusal
        assert set(verdict.parts) == {*CAMERAS, *VALUES}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("order", [CAMERAS, CAMERAS[::-1]])
def test_equal_stamps_stop_nothing_at_any_moment(rate, order):
    """Asked each millisecond, as a tick might, with limits that allow the rate itself."""
    safety = replace(SAFETY, max_arrival_age=1.5 / rate, max_stamp_age=2.0 / rate)
    judge = InputJudge(CAMERAS, (), (), {}, {})
    judge.start(0.0)
    messages = sorted(m for place, source in enumerate(order) for m in stream(source, rate, 10, late=0.02 * place))
    heard = 0
    first = messages[1].arrival
    for millisecond in range(round(1000 * 9 / rate)):
        now = millisecond * 1e-3
        while heard < len(messages) and messages[heard].arrival <= now:
            message = messages[heard]
            assert judge.hear(message.source, None, message.arrival, message.stamp, ROS + now, safety) == ""
            heard += 1
        judge.verdicts(now, safety)
        if now > first:
            assert judge.stop_reason(now, ROS + now, safety) == ""


# -- shifted stamps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("shift", [-0.04, -0.02, 0.0, 0.02, 0.04])
@pytest.mark.parametrize("late", [0.0, 0.03])
def test_shifted_cameras_are_paired_by_the_nearest_stamp_within_the_limit(rate, shift, late):
    messages = stream("image", rate, 12) + stream("wrist_image", rate, 12, shift=shift, late=late)
    verdicts = judged(messages, values=())
    assert len(served(verdicts)) >= 11  # before the first or behind the last there is none
    for verdict in served(verdicts):
        skew = abs(verdict.parts["wrist_image"].stamp - verdict.image.stamp)
        assert skew == verdict.skew <= SAFETY.max_camera_skew + EXACT
        known = [m.stamp for m in messages if m.source == "wrist_image" and m.arrival <= verdict.time + EXACT]
        assert skew == min(abs(stamp - verdict.image.stamp) for stamp in known)


@pytest.mark.parametrize("rate", [5.0, 9.0, 10.0])
def test_cameras_shifted_beyond_the_limit_are_refused_and_stop_the_arm_when_the_arrival_age_is_over(rate):
    safety = replace(SAFETY, max_camera_skew=0.02, max_arrival_age=0.6, max_stamp_age=2.0)
    judge = InputJudge(CAMERAS, (), (), {}, {"image": "/front"})
    judge.start(0.0)
    together = stream("image", rate, 3) + stream("wrist_image", rate, 3, late=0.001)
    apart = [m for m in stream("image", rate, 20) if m not in together]
    apart += stream("wrist_image", rate, 20, shift=-0.04)[3:]
    paired_at = together[-1].arrival
    for message in sorted(together + apart):
        now = message.arrival
        assert judge.hear(message.source, None, now, message.stamp, ROS + now, safety) == ""
        for verdict in judge.verdicts(now, safety):
            assert bool(verdict.refusal) == (verdict.image.arrival > paired_at)
        reason = judge.stop_reason(now, ROS + now, safety)
        if now > paired_at:
            assert bool(reason) == (now - paired_at > safety.max_arrival_age)
    assert reason == (
        "wrist_image: its nearest image is 0.04 s older than that of /front, limit 0.02 s (safety.max_camera_skew); "
        "synchronise the cameras or raise their rate"
    )


def test_of_two_cameras_apart_the_older_one_is_named():
    for shift, older in ((-0.2, "wrist_image"), (0.2, "image")):
        messages = [Message(0.0, "image", ROS), Message(0.01, "wrist_image", ROS + shift)]
        (verdict,) = judged(messages, values=())
        newer = next(camera for camera in CAMERAS if camera != older)
        assert verdict.refusal.startswith(f"{older}: its nearest image is 0.2 s older than that of {newer}, limit")


# -- how long an image waits -------------------------------------------------------------------------------------------


def test_a_complete_instant_waits_for_nothing():
    messages = [m for s in (*VALUES, "wrist_image") for m in stream(s, 30.0, 10)] + stream("image", 30.0, 10, late=1e-3)
    assert all(verdict.time == verdict.image.arrival for verdict in judged(messages))


@pytest.mark.parametrize("shift", [-0.005, -0.012, 0.012])
def test_free_running_cameras_at_a_high_rate_wait_for_nothing_once_their_rhythm_is_known(shift):
    """Also where the next image of the other one would be a little nearer: that would cost its way to come."""
    messages = stream("image", 30.0, 20) + stream("wrist_image", 30.0, 20, shift=shift)
    assert all(verdict.time == verdict.image.arrival for verdict in judged(messages, values=())[3:])


@pytest.mark.parametrize("rate", [100.0, 1000.0])
def test_free_running_proprioception_is_not_waited_for(rate):
    messages = stream("image", 30.0, 20, late=0.01) + stream("ee_pose", rate, int(rate), shift=0.00037, late=0.02)
    verdicts = judged(messages, cameras=("image",), values=("ee_pose",))
    assert all(set(verdict.parts) == {"image"} for verdict in verdicts)
    assert all(verdict.time == verdict.image.arrival for verdict in verdicts[2:])


def test_proprioception_of_a_clock_far_behind_costs_two_waits_at_the_beginning_and_none_after():
    messages = stream("image", 10.0, 20) + stream("ee_pose", 10.0, 20, shift=-0.5, late=0.5)
    verdicts = judged(messages, cameras=("image",), values=("ee_pose",))
    waits = [verdict.time - verdict.image.arrival for verdict in verdicts]
    assert max(waits) <= patience(SAFETY) + EXACT and not any(waits[2:])


def test_a_lost_partner_costs_its_own_image_only():
    lost = ROS + 3 / 5.0
    messages = stream("image", 5.0, 8) + stream("wrist_image", 5.0, 8, late=0.01)
    messages = [message for message in messages if (message.source, message.stamp) != ("wrist_image", lost)]
    verdicts = judged(messages, values=())
    assert [verdict.image.stamp for verdict in verdicts if verdict.refusal] == [lost]
    (refused,) = (verdict for verdict in verdicts if verdict.refusal)
    assert refused.time == refused.image.arrival + patience(SAFETY)


def test_the_wait_leaves_half_of_what_an_image_may_be_old():
    assert patience(SAFETY) == 0.1
    assert patience(replace(SAFETY, max_camera_skew=10.0)) == 0.15
    assert patience(replace(SAFETY, max_camera_skew=10.0, max_stamp_age=0.2)) == 0.1


# -- any messages ------------------------------------------------------------------------------------------------------


@st.composite
def any_messages(draw) -> list[Message]:
    """Rates, shifts, latencies and losses of every source; a source's messages arrive in their order."""
    messages = []
    for source in (*CAMERAS, *VALUES):
        rate = draw(st.sampled_from([*RATES, 3.0, 60.0]))
        shift, late = draw(st.floats(-0.1, 0.1)), draw(st.floats(0.1, 0.2))
        before = 0.0
        for message in stream(source, rate, draw(st.integers(0, 15)), shift=shift, late=late):
            before = max(before + 1e-6, message.arrival + draw(st.floats(0.0, 0.05)))
            if draw(st.integers(0, 9)):
                messages.append(message._replace(arrival=before))
    return messages


@given(messages=any_messages(), limit=st.sampled_from([0.01, 0.05, 0.1, 0.5]))
@GENTLE
def test_every_image_gets_one_verdict_in_order_in_time_and_with_the_nearest(messages, limit):
    safety = replace(SAFETY, max_camera_skew=limit)
    verdicts = judged(messages, safety)
    images = sorted(message for message in messages if message.source == "image")
    assert [verdict.image.item for verdict in verdicts] == images
    wrist = [message for message in messages if message.source == "wrist_image"]
    for verdict in verdicts:
        assert -EXACT <= verdict.time - verdict.image.arrival <= patience(safety) + EXACT
        heard = sorted((m for m in wrist if m.arrival <= verdict.time), key=lambda m: m.arrival)
        before = [m for m in heard if m.arrival <= verdict.image.arrival]
        kept = before[-IMAGES_KEPT:] + heard[len(before) :]
        skews = [abs(m.stamp - verdict.image.stamp) for m in kept]
        if verdict.refusal:
            assert min(skews, default=1.0) > limit
        else:
            assert abs(verdict.parts["wrist_image"].stamp - verdict.image.stamp) == min(skews) <= limit + 1e-6
        for source in VALUES:
            same = [m for m in messages if m.source == source and m.stamp == verdict.image.stamp]
            if not verdict.refusal and same and same[0].arrival <= verdict.time:
                assert verdict.parts[source].item == same[0]
    assert [verdict.time for verdict in verdicts] == sorted(verdict.time for verdict in verdicts)


@given(messages=any_messages(), polls=st.lists(st.floats(0.0, 6.0), max_size=40))
@GENTLE
def test_when_it_is_asked_changes_no_verdict(messages, polls):
    assert told(judged(messages, polls=polls)) == told(judged(messages))


@given(messages=any_messages())
@GENTLE
def test_few_images_are_kept_whatever_comes(messages):
    pairing = Pairing(CAMERAS, VALUES)
    generous = replace(SAFETY, max_camera_skew=10.0, max_arrival_age=10.0, max_stamp_age=60.0)
    for message in sorted(messages):
        pairing.hear(message.source, Heard(message.stamp, message.arrival, message), generous)
        kept = [len(pairing._waiting), len(pairing._streams["wrist_image"].messages)]
        assert max(kept) <= IMAGES_KEPT


# -- the judge ---------------------------------------------------------------------------------------------------------


AT_REST = {"ee.x": 0.0, "ee.y": 0.0, "ee.z": 0.0, "ee.qx": 0.0, "ee.qy": 0.0, "ee.qz": 0.0, "ee.qw": 1.0}


def joint_message(stamp: float, **positions: float) -> SimpleNamespace:
    header = SimpleNamespace(stamp=SimpleNamespace(sec=int(stamp), nanosec=round((stamp - int(stamp)) * 1e9)))
    return SimpleNamespace(header=header, name=list(positions), position=list(positions.values()))


@pytest.mark.parametrize("order", list(itertools.permutations(("image", "ee_pose", "arm", "finger"))))
def test_values_of_the_images_instant_are_given_also_when_they_came_in_parts_and_newer_ones_are_there(order):
    judge = InputJudge(("image",), ("ee_pose",), ("gripper_state",), {"elbow": "rad", "finger": "m"}, {})
    judge.start(0.0)
    verdicts = []
    for number in range(4):
        stamp = ROS + 0.25 * number
        for place, source in enumerate(order):
            now = 0.25 * number + 0.01 * place
            if source == "image":
                assert judge.hear("image", number, now, stamp, None, SAFETY) == ""
            elif source == "ee_pose":
                assert judge.hear("ee_pose", AT_REST | {"ee.x": float(number)}, now, stamp, None, SAFETY) == ""
            else:
                name = "elbow" if source == "arm" else "finger"
                assert judge.hear_joints(joint_message(stamp, **{name: float(number)}), now, None, SAFETY) == ""
            assert judge.hear("gripper_state", {"gripper.opening": now}, now, None, None, SAFETY) == ""
            verdicts += judge.verdicts(now, SAFETY)
    assert [verdict.image.item for verdict in verdicts] == [0, 1, 2, 3]
    for number, verdict in enumerate(verdicts):
        own = float(number)
        assert judge.values(verdict) == AT_REST | {"ee.x": own, "elbow": own, "finger": own, "gripper.opening": 0.78}


def test_a_lowered_limit_holds_for_what_was_put_together_before():
    judge = InputJudge(CAMERAS, (), (), {}, {})
    for source, stamp in (("wrist_image", ROS - 0.08), ("image", ROS)):
        assert judge.hear(source, None, 0.0, stamp, ROS, SAFETY) == ""
    (verdict,) = judge.verdicts(0.2, SAFETY)
    assert judge.may_serve(verdict, SAFETY) and not judge.may_serve(verdict, replace(SAFETY, max_camera_skew=0.05))


def test_after_a_jump_of_the_clock_nothing_from_before_is_paired_and_what_waited_is_counted():
    judge = InputJudge(CAMERAS, (), (), {}, {})
    judge.start(0.0)
    assert judge.hear("image", "old", 0.0, ROS, ROS, SAFETY) == ""
    judge.clock_jumped()
    (verdict,) = judge.verdicts(0.0, SAFETY)
    assert verdict.refusal and judge.freshness.statistics("image", 0.0).refused == 1
    back = ROS - 50.0
    assert judge.hear("wrist_image", "new", 0.1, back, back, SAFETY) == ""
    assert judge.verdicts(0.1, SAFETY) == []
    assert judge.hear("image", "new", 0.1, back, back, SAFETY) == ""
    (verdict,) = judge.verdicts(0.1, SAFETY)
    assert {part.item for part in verdict.parts.values()} == {"new"}


def test_a_jump_that_nobody_told_pairs_nothing_across_it():
    judge = InputJudge(CAMERAS, (), (), {}, {})
    judge.start(0.0)
    for source in CAMERAS:
        assert judge.hear(source, "old", 0.0, ROS, ROS, SAFETY) == ""
    judge.verdicts(0.0, SAFETY)
    back = ROS - 50.0
    for source in CAMERAS:
        assert judge.hear(source, "new", 0.1, back, back, SAFETY) == ""
    (verdict,) = judge.verdicts(0.1, SAFETY)
    assert {part.item for part in verdict.parts.values()} == {"new"}
