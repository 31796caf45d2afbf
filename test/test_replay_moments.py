"""A bag's streams as moments: what serves, what does not and why, where an episode ends. Pictures are made up."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.errors import BagError
from dysl_vla_ros.interfaces import ActionSpec, PolicyDescription, ProprioceptionSpec
from dysl_vla_ros.recordings.corrections import RECEIVED, Corrections
from dysl_vla_ros.recordings.source import Choice, open_source, reading_notes, require_moments
from dysl_vla_ros.settings import SafetySettings
from recorded_bag import BEGIN, PERIOD, BagWriter

TEXT = "push the puck"
DESCRIPTION = PolicyDescription(
    family="test",
    model_hash="0",
    weights_hash="0",
    cameras=("image", "wrist_image"),
    proprioception=ProprioceptionSpec(("ee.x", "ee.y", "ee.z", "gripper.opening"), ("m", "m", "m", "")),
    action=ActionSpec(8, 0.05, False, (0.0,) * 4, (1.0,) * 4),
    layers_total=6,
    static_layers=(),
    blocks=(),
)


class Robot:
    """Writes ticks of a robot, each picture with its own number in it."""

    def __init__(self, path):
        self.path, self.now, self.number = path, BEGIN, 0
        self.writer = BagWriter(path)
        self.lag = 0  # ns that stamps lie behind the bag's clock
        self.stamped, self.frame = True, "base"

    def say(self, text=TEXT):
        self.writer.write("/instruction", self.now, self.writer.text(text))

    def tick(
        self,
        count=1,
        *,
        image=True,
        wrist=True,
        state=True,
        encoding="rgb8",
        scene=None,
        compressed=False,
        damaged=False,
    ):
        for _ in range(count):
            writer, stamp = self.writer, (self.now - self.lag) * self.stamped
            if state:
                writer.write("/ee_pose", self.now, writer.pose(stamp, np.array([0.0, 0.6, 0.2]), self.frame))
                writer.write("/gripper_state", self.now, writer.number(0.5))
            picture = np.full((4, 6, 3), self.number % 256, np.uint8)
            if wrist:
                writer.write("/wrist_image", self.now, writer.image(stamp, picture))
            if compressed:
                writer.write("/image/compressed", self.now + 1000, writer.png(stamp, self.number, damaged))
            else:
                writer.write("/image", self.now + 1000, writer.image(stamp, picture, encoding))
            if scene is not None:
                values = {"version": 1, "task": "t", "instruction": TEXT, "seed": 0, "ticks": 0, "success": False}
                values |= {"header": writer.header(stamp), "episode": scene, "commanded": False, "object_moved": False}
                state_message = writer.make("dysl_vla_ros/msg/SceneState", **values)
                writer.write("/sim/state", self.now + 2000, state_message)
            self.number += 1
            self.now += PERIOD

    def wait(self, seconds):
        self.now += round(seconds * 1e9)


@pytest.fixture
def robot(tmp_path):
    return Robot(tmp_path / "bag")


def moments_of(robot, safety=None, description=DESCRIPTION, **choice):
    with BagReader(robot.path) as reader:
        source = open_source(reader, description, safety or SafetySettings(), Choice(**choice))
        return list(source.moments), source.moments


def numbers(moments):
    return [int(moment.observation.images["image"][0, 0, 0]) for moment in moments]


def wrist_numbers(moments):
    return [int(moment.observation.images["wrist_image"][0, 0, 0]) for moment in moments]


def begins(moments):
    return {place: moment.begins for place, moment in enumerate(moments) if moment.begins}


def test_each_frame_of_the_first_camera_is_a_moment_with_the_newest_of_everything_else(robot):
    with robot.writer:
        robot.say()
        robot.tick(6)
        robot.tick(wrist=False)
    moments, source = moments_of(robot)
    assert numbers(moments) == [0, 1, 2, 3, 4, 5, 6]
    assert wrist_numbers(moments) == [0, 1, 2, 3, 4, 5, 5]
    assert begins(moments) == {0: "the recording begins"}
    np.testing.assert_allclose(moments[0].observation.proprioception, [0.0, 0.6, 0.2, 0.5], rtol=1e-6)
    assert moments[0].observation.instruction == TEXT and not source.refused


def test_every_nth_frame_gives_the_inputs_of_the_nth_frames(robot):
    with robot.writer:
        robot.say()
        robot.tick(10)
    all_of_them, _ = moments_of(robot)
    third, source = moments_of(robot, every=3)
    assert numbers(third) == numbers(all_of_them)[::3] and source.left_out == 6
    assert [moment.stamp for moment in third] == [moment.stamp for moment in all_of_them[::3]]
    assert [moment.time for moment in third] == [moment.time for moment in all_of_them[::3]]


def test_pictures_that_are_not_used_are_not_converted(robot):
    with robot.writer:
        robot.say()
        robot.tick(compressed=True)
        robot.tick(compressed=True, damaged=True)
        robot.tick(compressed=True)
    moments, source = moments_of(robot, every=2)
    assert [moment.number for moment in moments] == [0, 1] and not source.refused
    assert moments[1].observation.images["image"].shape == (64, 64, 3)
    moments, source = moments_of(robot)
    (refusal,) = source.refused.values()
    assert len(moments) == 2 and refusal.example.startswith("/image/compressed: ")
    assert list(begins(moments)) == [0], "one damaged picture does not stop the node"


def test_a_picture_of_an_unknown_encoding_is_refused_by_its_name(robot):
    with robot.writer:
        robot.say()
        robot.tick()
        robot.tick(encoding="nonsense")
        robot.tick()
    moments, source = moments_of(robot)
    (refusal,) = source.refused.values()
    assert numbers(moments) == [0, 2] and "nonsense" in refusal.example


def test_joints_are_read_by_name_from_messages_that_carry_a_part_of_them(robot):
    wanted = replace(DESCRIPTION, proprioception=ProprioceptionSpec(("elbow", "shoulder"), ("rad", "rad")))
    with robot.writer as writer:
        robot.say()
        for number in range(4):
            for name in ("shoulder", "finger", "elbow"):
                joint = writer.joints(robot.now, {name: number + len(name) / 10})
                writer.write("/joint_states", robot.now, joint)
            robot.tick()
    moments, source = moments_of(robot, description=wanted)
    assert len(moments) == 4 and not source.refused
    np.testing.assert_allclose(moments[2].observation.proprioception, [2.5, 2.8], rtol=1e-6)
    absent = replace(DESCRIPTION, proprioception=ProprioceptionSpec(("wrist",), ("rad",)))
    moments, source = moments_of(robot, description=absent)
    (refusal,) = source.refused.values()
    assert not moments and "no joint wrist; there are: shoulder" in refusal.example


def test_a_new_instruction_begins_an_episode_and_the_same_one_again_does_not(robot):
    with robot.writer:
        robot.say()
        robot.tick(3)
        robot.say()
        robot.tick(2)
        robot.say("open the drawer")
        robot.tick(2)
    moments, _ = moments_of(robot)
    assert begins(moments) == {0: "the recording begins", 5: "new instruction: open the drawer"}
    assert moments[5].observation.instruction == "open the drawer"


def test_frames_before_the_first_instruction_are_counted_with_the_fix(robot):
    with robot.writer:
        robot.tick(4)
        robot.say()
        robot.tick(2)
    moments, source = moments_of(robot)
    (refusal,) = source.refused.values()
    assert numbers(moments) == [4, 5] and refusal.count == 4 and "--instruction" in refusal.example
    moments, _ = moments_of(robot, instruction="open the drawer")
    assert numbers(moments) == [0, 1, 2, 3, 4, 5]
    assert {moment.observation.instruction for moment in moments} == {"open the drawer"}


@pytest.mark.parametrize(("gap", "ends"), [(0.2, False), (0.6, True)])
def test_an_episode_ends_where_the_node_would_have_stopped_for_silence(robot, gap, ends):
    with robot.writer:
        robot.say()
        robot.tick(3)
        robot.wait(gap)
        robot.tick(3)
    moments, _ = moments_of(robot)
    assert len(moments) == 6 and (3 in begins(moments)) is ends
    if ends:
        assert "has stopped: newest message" in moments[3].begins and "safety.max_arrival_age" in moments[3].begins
    patient, _ = moments_of(robot, safety=SafetySettings(max_arrival_age=5.0, max_stamp_age=5.0))
    assert list(begins(patient)) == [0]


def test_a_silent_input_refuses_the_frames_until_it_is_back(robot):
    with robot.writer:
        robot.say()
        robot.tick(3)
        robot.tick(12, state=False)
        robot.tick(3)
    moments, source = moments_of(robot)
    assert numbers(moments) == [0, 1, 2, *range(3, 8), 15, 16, 17]
    assert moments[8].begins.startswith("/ee_pose has stopped")
    assert any("/ee_pose has stopped" in refusal.example for refusal in source.refused.values())


def test_a_frozen_camera_serves_nothing(robot):
    with robot.writer:
        robot.say()
        robot.tick(2)
        frozen = robot.writer.image(robot.now - PERIOD, np.zeros((4, 6, 3), np.uint8))
        for _ in range(3):
            robot.writer.write("/image", robot.now, frozen)
            robot.now += PERIOD // 5
    moments, source = moments_of(robot)
    (refusal,) = source.refused.values()
    assert len(moments) == 2 and refusal.count == 3 and "does not advance" in refusal.example


def test_a_reset_of_the_scene_in_the_recording_begins_an_episode_with_its_first_frame(robot):
    with robot.writer:
        robot.say()
        robot.tick(3, scene=1)
        robot.tick(3, scene=2)
    moments, _ = moments_of(robot)
    assert begins(moments) == {0: "the recording begins", 3: "the scene was reset when it was recorded"}


def test_a_reset_of_the_node_in_the_recording_begins_an_episode_once(robot):
    with robot.writer:
        robot.say()
        for episode in (1, 1, 2, 2):
            robot.tick()
            stamp = robot.now - PERIOD
            chunk = robot.writer.chunk(stamp + 10**7, stamp, episode, 1, np.zeros((8, 4)))
            robot.writer.write("/dysl_vla/action_chunk", stamp + 10**7, chunk)
    moments, _ = moments_of(robot)
    assert begins(moments) == {0: "the recording begins", 2: "the node was reset or had stopped when it was recorded"}
    assert [moment.recorded.index for moment in moments] == [0, 0, 0, 0]


def test_stamps_of_a_simulation_count_time_and_their_jump_back_ends_the_episode(robot):
    with robot.writer:
        robot.say()
        robot.lag = BEGIN - 10**9  # simulated time begins at 1 s
        robot.tick(5)
        robot.lag += 200_000_000  # the recording was of a bag played in a loop
        robot.tick(3)
    moments, source = moments_of(robot)
    assert source.own_clock
    assert numbers(moments) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert wrist_numbers(moments)[5] == 6, "of the wrist nothing had come since the jump at frame 5: it waited"
    assert list(begins(moments)) == [0, 5] and "jumped back by 0.150 s" in moments[5].begins
    assert moments[1].clock - moments[0].clock == pytest.approx(0.05)


def test_a_camera_whose_clock_is_a_few_seconds_off_is_refused_as_the_node_would(robot):
    with robot.writer:
        robot.say()
        robot.lag = -3 * 10**9
        robot.tick(3)
    moments, source = moments_of(robot)
    assert not moments
    assert any("s ahead of the node's clock" in refusal.example for refusal in source.refused.values())


def test_actions_between_keep_their_number_on_average(robot):
    with robot.writer:
        robot.say()
        robot.tick(20)
    moments, _ = moments_of(robot, actions_between=4)
    assert numbers(moments) == [0, 4, 8, 12, 16]


# -- a clock that was set back ---------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(backs=st.lists(st.integers(4, 1200), max_size=3), ticks=st.lists(st.integers(2, 12), min_size=4, max_size=4))
def test_each_set_back_of_the_clock_begins_one_episode_and_no_frame_is_lost(tmp_path, backs, ticks):
    shutil.rmtree(tmp_path / "bag", ignore_errors=True)
    robot = Robot(tmp_path / "bag")
    with robot.writer:
        robot.say()
        robot.tick(ticks[0])
        for back, count in zip(backs, ticks[1:], strict=False):
            robot.now -= (back + 1) * PERIOD  # the picture before lies one period ahead of the next one's time
            robot.tick(count)
    moments, source = moments_of(robot)
    counts = ticks[: len(backs) + 1]
    assert numbers(moments) == list(range(sum(counts))) and not source.refused
    begun = begins(moments)
    assert list(begun) == [sum(counts[:place]) for place in range(len(counts))]
    for place, back in zip(list(begun)[1:], backs, strict=True):
        assert f"the clock was set back by {back * 0.05:.2f}" in begun[place]
    times = [moment.time for moment in moments]
    assert times == sorted(times) and times[0] == 0.0
    steps = np.diff([moment.clock for moment in moments])
    within = np.delete(steps, [place - 1 for place in list(begun)[1:]])
    np.testing.assert_allclose(within, 0.05, atol=1e-5)


def test_what_was_recorded_before_the_clock_was_set_back_answers_no_frame_behind_it(robot):
    with robot.writer:
        robot.say()
        for episode in (1, 2):  # the same stamps twice
            for number in range(4):
                robot.tick()
                stamp = robot.now - PERIOD
                chunk = robot.writer.chunk(stamp + 10**7, stamp, 5, 1, np.full((8, 4), episode + number / 10))
                robot.writer.write("/dysl_vla/action_chunk", stamp + 10**7, chunk)
            robot.now -= 4 * PERIOD * (episode == 1)
    moments, _ = moments_of(robot)
    given_then = [float(moment.recorded.action[0]) for moment in moments]
    assert given_then == pytest.approx([1.0, 1.1, 1.2, 1.3, 2.0, 2.1, 2.2, 2.3])
    assert list(begins(moments)) == [0, 4]


# -- stamps and frames, as the user says -----------------------------------------------------------------------------


def refusal_of(robot, description=DESCRIPTION, **choice):
    """What is said of a bag of which nothing serves."""
    with BagReader(robot.path) as reader:
        source = open_source(reader, description, SafetySettings(), Choice(**choice))
        served = len(list(source.moments))
        with pytest.raises(BagError) as caught:
            require_moments(served, source.moments, robot.path)
        return str(caught.value)


def test_frames_without_stamps_are_refused_with_the_option_and_served_as_received_with_it(robot):
    robot.stamped = False
    with robot.writer:
        robot.say()
        robot.tick(6)
    text = refusal_of(robot)
    assert "6 times: /image: its stamp is 0" in text
    assert (
        "messages with the stamp 0: 6 of /ee_pose, 6 of /image, 6 of /wrist_image; have the drivers stamp them, or "
        "give --stamps received to take when each was received"
    ) in text
    moments, source = moments_of(robot, corrections=Corrections(stamps=RECEIVED))
    assert numbers(moments) == list(range(6)) and not source.refused and not source.own_clock
    assert [moment.stamp for moment in moments] == [BEGIN + number * PERIOD + 1000 for number in range(6)]


def test_stamps_that_are_good_serve_alike_as_received(robot):
    with robot.writer:
        robot.say()
        robot.tick(6)
    recorded, _ = moments_of(robot)
    received, _ = moments_of(robot, corrections=Corrections(stamps=RECEIVED))
    assert numbers(recorded) == numbers(received) and begins(recorded) == begins(received)
    assert [moment.time for moment in recorded] == [moment.time for moment in received]


def test_poses_in_a_frame_of_another_name_are_refused_with_the_option_and_served_with_it(robot):
    robot.frame = "base_link"
    with robot.writer:
        robot.say()
        robot.tick(6)
    assert (
        "6 messages of /ee_pose are in frame 'base_link', the policy wants 'base': if that is the same frame by "
        "another name, give --frame base_link:=base"
    ) in refusal_of(robot)
    moments, source = moments_of(robot, corrections=Corrections(frames={"base_link": "base"}))
    assert numbers(moments) == list(range(6)) and not source.refused
    assert "frame 'base_link' is read as 'base' in 6 poses (--frame)" in source.corrector.notes()
    assert "give --frame base_link:=base" in refusal_of(robot, corrections=Corrections(frames={"world": "base"}))
    with pytest.raises(BagError, match="--frame base_link:=bas: the policy names no frame 'bas'; its frame is base"):
        moments_of(robot, corrections=Corrections(frames={"base_link": "bas"}))


def test_recorded_twists_are_renamed_as_poses_are(robot):
    robot.frame = "base_link"
    with robot.writer as writer:
        robot.say()
        for _ in range(3):
            robot.tick()
            twist = writer.twist(robot.now, np.array([0.1, 0.0, 0.0]), "base_link")
            writer.write("/dysl_vla/twist", robot.now - PERIOD // 2, twist)
    moments, _ = moments_of(robot, corrections=Corrections(frames={"base_link": "base"}))
    assert [round(float(moment.recorded.action[0]), 6) for moment in moments] == [0.005] * 3


# -- instructions that the policy cannot read ------------------------------------------------------------------------

GOOD, BAD = (TEXT, "open the drawer"), ("fetch me a coffee", "push\x00the puck", "push " * 9, "x" * 600)


def reads(text):
    return "" if text in GOOD else f"cannot read {text[:9]!r}"


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(st.sampled_from((*GOOD, *BAD)), min_size=1, max_size=7))
def test_from_a_bad_instruction_to_the_next_one_no_frame_serves_and_each_is_named_with_its_frames(tmp_path, said):
    shutil.rmtree(tmp_path / "bag", ignore_errors=True)
    robot = Robot(tmp_path / "bag")
    with robot.writer:
        for text in said:
            robot.say(text)
            robot.tick(3)
            robot.say(text)  # some say it again and again
    moments, source = moments_of(robot, unreadable=reads)
    texts = [text.strip() for text in said for _ in range(3)]
    served = [number for number, text in enumerate(texts) if text in GOOD]
    assert numbers(moments) == served
    assert [moment.observation.instruction for moment in moments] == [texts[number] for number in served]
    changes = [place for place, text in enumerate(said) if place == 0 or text != said[place - 1]]
    assert len(begins(moments)) == sum(said[place] in GOOD for place in changes)
    bad = {text.strip() for text in said if text not in GOOD}
    assert {text: own.frames for text, own in source.left_out_instructions.items()} == {
        text: texts.count(text) for text in bad
    }
    with BagReader(robot.path) as reader:
        choice = Choice(unreadable=reads)
        opened = open_source(reader, DESCRIPTION, SafetySettings(), choice)
        _ = list(opened.moments)
        notes = reading_notes(reader, opened)
    assert len(notes) == len(bad)
    for text, own in opened.moments.left_out_instructions.items():
        assert any(f"{text!r:.60} on /instruction is left out: {own.why} ({own.frames} frames)." in n for n in notes)


def test_an_instruction_of_the_user_that_cannot_be_read_is_refused_at_once(robot):
    with robot.writer:
        robot.tick(2)
    with pytest.raises(BagError, match="--instruction 'fetch me a coffee': cannot read"):
        moments_of(robot, unreadable=reads, instruction="fetch me a coffee")


# -- times ------------------------------------------------------------------------------------------------------------


def test_times_start_at_the_first_frame_that_serves(robot):
    with robot.writer:
        robot.tick(20)  # nothing was said yet
        robot.wait(30.0)
        robot.tick(10, wrist=False)
        robot.wait(1.0)
        robot.say()
        robot.tick(5)
        robot.wait(7.0)
        robot.tick(3)
    moments, source = moments_of(robot)
    assert (moments[0].time, len(moments)) == (0.0, 8)
    assert source.seconds == moments[-1].time == pytest.approx(7 * 0.05 + 7.0)
    assert source.start_ns == BEGIN + 30 * PERIOD + 31 * 10**9 + 1000


# -- messages of one instant -------------------------------------------------------------------------------------------

STAMPED = ("image", "wrist_image", "ee_pose", "joint_states")
WITH_JOINTS = replace(
    DESCRIPTION, proprioception=ProprioceptionSpec(("ee.x", "elbow", "gripper.opening"), ("m", "rad", ""))
)


STEP = 0.125  # m and rad between two instants; exact in float32


def write_instants(path, rate, order, apart, count=10, lost=None):
    """Write instants of one stamp, each with its number in every message, ``apart`` ns between two messages."""
    with BagWriter(path) as writer:
        writer.write("/instruction", BEGIN, writer.text(TEXT))
        for number in range(count):
            stamp = BEGIN + round(number * 1e9 / rate)
            writer.write("/gripper_state", stamp, writer.number(0.5))
            messages = {
                "ee_pose": writer.pose(stamp, np.array([STEP * number, 0.0, 0.0])),
                "joint_states": writer.joints(stamp, {"elbow": STEP * number}),
            }
            messages |= {camera: writer.image(stamp, np.full((4, 6, 3), number, np.uint8)) for camera in STAMPED[:2]}
            for place, source in enumerate(order):
                if (source, number) != lost:
                    writer.write(f"/{source}", stamp + place * apart, messages[source])


@pytest.mark.parametrize(("rate", "apart"), [(5.0, 10_000_000), (10.0, 0), (30.0, 10_000_000)])
@pytest.mark.parametrize("order", [STAMPED, STAMPED[1:] + STAMPED[:1], STAMPED[::-1], STAMPED[2:] + STAMPED[:2]])
def test_every_frame_serves_with_what_bears_its_stamp_in_whatever_order_it_was_recorded(tmp_path, rate, order, apart):
    write_instants(tmp_path / "bag", rate, order, apart)
    with BagReader(tmp_path / "bag") as reader:
        source = open_source(reader, WITH_JOINTS, SafetySettings(), Choice())
        moments = list(source.moments)
    assert not source.moments.refused
    assert numbers(moments) == wrist_numbers(moments) == [moment.frame for moment in moments] == list(range(10))
    assert [moment.observation.proprioception.tolist() for moment in moments] == [
        [STEP * number, STEP * number, 0.5] for number in range(10)
    ]
    assert begins(moments) == {0: "the recording begins"}


def test_a_frame_whose_partner_was_lost_is_refused_with_both_topics_and_the_others_serve(tmp_path):
    write_instants(tmp_path / "bag", 5.0, STAMPED, 10_000_000, lost=("wrist_image", 3))
    with BagReader(tmp_path / "bag") as reader:
        source = open_source(reader, WITH_JOINTS, SafetySettings(), Choice())
        moments = list(source.moments)
    assert numbers(moments) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    (refusal,) = source.moments.refused.values()
    assert refusal.example.startswith("/wrist_image: its nearest image is 0.2 s older than that of /image, limit 0.1 s")
