"""The control loop asks for an inference when one is due, hands over each played action once, and knows old replies."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time  # noqa: E402

from dysl_vla_ros.control.commander import Commander  # noqa: E402
from dysl_vla_ros.errors import ObservationError  # noqa: E402
from dysl_vla_ros.interfaces import (  # noqa: E402
    THE_INSTRUCTION,
    THE_MODEL,
    THE_OBSERVATION,
    ActionChunk,
    ActionSpec,
    Observation,
    SkipTrace,
    StepResult,
    Timings,
)
from dysl_vla_ros.nodes.control_loop import ControlLoop  # noqa: E402
from dysl_vla_ros.nodes.inputs import Moment  # noqa: E402
from dysl_vla_ros.nodes.parameters import Settings  # noqa: E402
from dysl_vla_ros.nodes.statistics import Statistics  # noqa: E402
from dysl_vla_ros.settings import AUTOMATIC, ControlSettings, SafetySettings  # noqa: E402
from dysl_vla_ros.worker.client import StepReply  # noqa: E402

H = 4
ACTION = ActionSpec(H, 0.05, False, (0.0,) * 4, (0.01, 0.01, 0.01, 1.0))
TRACE = SkipTrace((True,), 1, (), (), (), 0.0, 0.0, 0.0, False, "", "no DySL folder")


class Surroundings:
    """A worker, inputs and outputs that a test moves by hand, around a real loop and a real commander."""

    def __init__(self, actions_per_inference: int = 1) -> None:
        self.settings = Settings(control=ControlSettings(actions_per_inference=actions_per_inference))
        self.statistics = Statistics()
        self.requests, self.commands, self.records, self.failures, self.advice = [], [], [], [], []
        self.waiting = None  # the request that the worker computes
        self.waited = 0.0
        self.fault = ""
        self.refuse_observation = False
        self.image = 0
        self.images = {}  # (episode, sequence) of a request -> its image
        self.on_its_way = []  # answers that the client has, and the loop not yet
        self.now = 0  # ns
        self.passing = 0  # ns that pass between two looks at the clock
        self.ages, self.command_stamps = [], []
        self.actions_to_play = 1  # what every chunk says
        self.made = 0  # actions made so far; each carries its number
        description = SimpleNamespace(action=ACTION)
        commander = Commander(ACTION, self.settings.control, self.settings.safety)
        self.loop = ControlLoop(
            description,
            commander,
            lambda: self.settings,
            self.statistics,
            self.clock,
            self.failures.append,
            lambda *_: None,
            advise=self.advice.append,
        )
        self.loop.connect(self, self, self)
        self.loop.enter()
        self.loop.hear_instruction("push")

    # the worker client
    @property
    def busy(self) -> bool:
        return self.waiting is not None

    def busy_for(self) -> float:
        return self.waited

    def submit(self, request) -> None:
        assert not self.busy
        self.waiting = request
        self.requests.append(request)
        self.images[request.episode, request.sequence] = self.image

    # the inputs
    instruction_topic = "/instruction"
    topics = ("/image",)
    gripper_opening = None
    publishers = SimpleNamespace(clock_fault=lambda: "", doubled=False)

    @property
    def freshness(self):
        return SimpleNamespace(action_stop_reason=lambda age, safety: self.ages.append(age) or "")

    def start(self, now: float) -> None:
        pass

    def stop_reason(self, *_) -> str:
        return self.fault

    def newest_stamp(self):
        return Time(sec=self.image) if self.image else None

    def prepare(self, begun) -> bool:
        return True

    def picture_change(self) -> str:
        return ""

    def observe(self, instruction: str) -> Moment:
        if self.refuse_observation:
            raise ObservationError("no")
        return Moment(Observation({}, np.zeros(0, np.float32), instruction), self.newest_stamp(), 0.0)

    # the outputs
    def command(self, command, now, episode, image_stamp, frame) -> None:
        self.commands.append(command)
        self.command_stamps.append((now, image_stamp))

    def inference(self, record) -> None:
        self.records.append(record)

    def instruction(self, text) -> None:
        self.spoken = text

    # what a test does
    def clock(self) -> int:
        self.now += self.passing
        return self.now

    def see(self) -> None:
        self.image += 1
        self.loop.hear_image()

    def answer(self, error: str = "", at_fault: str = THE_MODEL, warnings: tuple[str, ...] = ()) -> None:
        self.finish(error, at_fault, warnings)
        self.deliver()

    def finish(self, error: str = "", at_fault: str = THE_MODEL, warnings: tuple[str, ...] = ()) -> None:
        """Let the worker be idle again, as it is before its answer is delivered."""
        request, self.waiting = self.waiting, None
        result = None
        if not error:
            numbers = np.arange(self.made, self.made + H, dtype=np.float32) + 1.0
            self.made += H
            actions = np.zeros((H, 4), np.float32)
            actions[:, 0] = numbers * 1e-5
            result = StepResult(ActionChunk(actions, 0.05, actions_to_play=self.actions_to_play), TRACE, Timings())
        reply = StepReply(request.episode, request.sequence, result, error, 0.0, at_fault, warnings)
        self.on_its_way.append(reply)

    def deliver(self) -> None:
        self.loop.hear_reply(self.on_its_way.pop(0))


def test_an_inference_starts_upon_an_image_and_one_runs_at_a_time():
    world = Surroundings()
    assert world.requests == []
    world.see()
    world.see()
    assert len(world.requests) == 1


def test_an_image_serves_one_inference_only():
    world = Surroundings()
    world.see()
    world.answer()
    world.loop.tick()
    world.loop.tick()
    assert len(world.requests) == 1
    world.see()
    assert len(world.requests) == 2


def test_the_newest_image_waits_for_the_worker_and_for_the_action_before():
    world = Surroundings()
    world.see()
    world.see()  # while the worker computes
    world.answer()
    assert len(world.requests) == 1  # the chunk has not been played from yet
    world.loop.tick()
    assert len(world.requests) == 2 and world.waiting.observation.instruction == "push"


@pytest.mark.parametrize("m", [1, 2, 3])
def test_m_actions_are_played_between_two_inferences(m):
    world = Surroundings(actions_per_inference=m)
    for _ in range(4):
        world.see()
        while not world.busy:
            world.loop.tick()
            world.see()
        world.answer()
    assert [len(request.played) for request in world.requests[1:]] == [m] * 3


def test_where_m_is_automatic_as_many_actions_are_played_as_each_chunk_says():
    world = Surroundings(actions_per_inference=AUTOMATIC)
    for said in [1, H, 2, 3]:
        world.see()
        while not world.busy:
            world.loop.tick()
            world.see()
        world.actions_to_play = said
        world.answer()
    assert [len(request.played) for request in world.requests[1:]] == [1, H, 2]


@given(st.lists(st.sampled_from(["tick", "see", "finish", "fail", "deliver", "reset"]), max_size=60))
@hypothesis_settings(deadline=None, max_examples=150)
def test_whatever_happens_while_an_answer_is_on_its_way_it_is_taken_for_the_image_that_it_answers(events):
    """The client is idle before its answer is delivered: a request in between was taken for the answered one."""
    world = Surroundings()
    world.settings = Settings(safety=SafetySettings(max_consecutive_failures=1000))
    failed = 0
    for event in [*events, *["deliver"] * len(events)]:
        if event == "tick":
            world.loop.tick()
        elif event == "see":
            world.see()
        elif event == "reset":
            world.loop.reset()
        elif event == "deliver" and world.on_its_way:
            reply = world.on_its_way[0]
            failed += reply.result is None and reply.episode == world.loop.episode
            world.deliver()
        elif event in ("finish", "fail") and world.busy:
            world.finish("no" if event == "fail" else "")
    assert world.statistics.failures == failed
    for record in world.records:
        assert record.image_stamp.sec == world.images[record.episode, record.inference]


@given(st.lists(st.sampled_from(["tick", "see", "answer"]), max_size=60), st.integers(1, 3))
@hypothesis_settings(deadline=None, max_examples=150)
def test_every_played_action_goes_to_the_worker_once_and_in_order(events, m):
    world = Surroundings(actions_per_inference=m)
    for event in events:
        if event == "tick":
            world.loop.tick()
        elif event == "see":
            world.see()
        elif world.busy:
            world.answer()
    played = [command.action[0] for command in world.commands if command.action is not None and command.first_tick]
    handed = [action[0] for request in world.requests for action in request.played]
    assert handed == played[: len(handed)]
    sequences = [request.sequence for request in world.requests]
    assert sequences == list(range(1, len(sequences) + 1))


def test_nothing_is_commanded_before_the_first_action_and_zeros_after_it():
    world = Surroundings()
    world.loop.tick()
    assert world.commands == []
    world.see()
    world.answer()
    for _ in range(H + 2):
        world.loop.tick()
    assert [bool(command.reason) for command in world.commands] == [False] * H + [True] * 2


def test_an_underrun_stays_in_the_episode_and_is_told_as_a_gap():
    world = Surroundings()
    world.see()
    world.answer()
    for _ in range(H + 1):
        world.loop.tick()
    world.see()
    world.answer()
    world.loop.tick()
    world.see()
    assert {request.episode for request in world.requests} == {world.requests[0].episode}
    assert [request.gaps for request in world.requests] == [(), (), (0,)]
    assert [len(request.played) for request in world.requests] == [0, H, 1]


@pytest.mark.parametrize("event", ["reset", "instruction", "stop", "deactivation"])
def test_a_reply_of_an_earlier_episode_is_dropped(event):
    world = Surroundings()
    world.see()
    world.answer()
    world.loop.tick()
    world.see()
    if event == "reset":
        assert world.loop.reset() == ""
    elif event == "instruction":
        world.loop.hear_instruction("pull")
    elif event == "stop":
        world.fault = "camera"
        world.loop.tick()
        world.fault = ""
    else:
        world.loop.leave("deactivated")
    records = len(world.records)
    world.answer()
    assert len(world.records) == records and world.statistics.outdated_replies == 1


def test_a_new_episode_begins_with_nothing_played_and_may_use_the_newest_image_again():
    world = Surroundings()
    world.see()
    world.answer()
    world.loop.tick()
    world.loop.hear_instruction("pull")
    request = world.requests[-1]
    assert (request.sequence, len(request.played), request.gaps) == (1, 0, ())
    assert request.observation.instruction == "pull" and request.episode > world.requests[0].episode


def test_a_failed_inference_waits_for_a_newer_image():
    world = Surroundings()
    world.see()
    world.answer(error="broken")
    world.loop.tick()
    assert len(world.requests) == 1
    world.see()
    assert len(world.requests) == 2 and world.requests[1].episode > world.requests[0].episode


def test_failures_in_a_row_give_up_and_a_good_one_between_starts_the_count_again():
    world = Surroundings()
    for error in ("a", "b", "", "c", "d"):
        world.see()
        world.answer(error)
        world.loop.tick()
    assert world.failures == []
    world.see()
    world.answer("e")
    assert len(world.failures) == 1 and "e (3 in a row" in world.failures[0]
    world.see()
    world.loop.tick()
    assert not world.busy and world.commands[-1].reason.startswith("inference failed: e")


def test_a_refused_observation_stops_and_begins_an_episode():
    world = Surroundings()
    world.see()
    world.answer()
    world.loop.tick()
    episode = world.loop.episode
    world.refuse_observation = True
    world.see()
    world.loop.tick()
    assert world.loop.episode == episode + 1 and world.commands[-1].reason == "observation refused: no"
    world.refuse_observation = False
    world.see()
    world.answer()
    world.loop.tick()
    assert world.commands[-1].reason == ""


def moving() -> Surroundings:
    world = Surroundings()
    world.see()
    world.answer()
    world.loop.tick()
    return world


def test_a_refused_instruction_stops_at_once_is_asked_about_once_and_no_failure_is_counted():
    world = moving()
    for text in ("stop", "halt", "wait", "stay"):  # more than safety.max_consecutive_failures
        world.loop.hear_instruction(text)
        world.see()
        assert world.requests[-1].observation.instruction == text
        world.answer("no such word", THE_INSTRUCTION)
        stop = world.commands[-1]
        assert stop.reason.startswith(f"/instruction: {text!r}: instruction refused: no such word; the arm stands")
        assert not np.any(stop.linear) and world.advice[-1] == stop.reason and world.spoken == ""
        asked = len(world.requests)
        for _ in range(5):
            world.see()
            world.loop.tick()
            world.loop.hear_instruction(f" {text} ")
        assert len(world.requests) == asked and world.commands[-1].reason == stop.reason
    assert len(world.advice) == 4 and world.failures == [] and world.statistics.failures == 0
    world.loop.hear_instruction("push")
    assert world.requests[-1].observation.instruction == "push"
    world.answer()
    world.loop.tick()
    assert world.commands[-1].reason == ""


@pytest.mark.parametrize("text", ["x" * 501, "push\0", "push \ufffd"])
def test_what_no_policy_could_read_stops_before_anybody_is_asked(text):
    world = moving()
    world.loop.hear_instruction(text)
    assert "instruction refused" in world.commands[-1].reason and len(world.advice) == 1
    world.see()
    world.loop.tick()
    assert len(world.requests) == 1
    world.loop.hear_instruction("push")  # what was said before it
    assert len(world.requests) == 2


def test_a_refusal_that_comes_after_another_instruction_is_not_its_own():
    world = moving()
    world.loop.hear_instruction("stop")
    world.see()
    world.loop.hear_instruction("pull")
    world.answer("no such word", THE_INSTRUCTION)
    assert world.advice == [] and world.requests[-1].observation.instruction == "pull"
    world.answer()
    world.loop.tick()
    assert world.commands[-1].reason == ""


def test_refused_observations_are_told_once_until_a_chunk_is_taken_and_never_give_up():
    world = moving()
    for turn in range(2):
        episode = world.loop.episode
        for value in range(5):
            world.see()
            world.answer(f"{value} m", THE_OBSERVATION)
            world.loop.tick()
            assert world.commands[-1].reason == f"observation refused: {value} m; look after /image"
        assert world.loop.episode == episode + 1 and len(world.advice) == turn + 1
        world.see()
        world.answer()
        world.loop.tick()
        assert world.commands[-1].reason == ""
    assert world.failures == [] and world.statistics.failures == 0


def test_a_warning_is_told_once_an_instruction():
    world = moving()
    world.loop.hear_instruction("push the sausage")
    for _ in range(3):
        world.see()
        world.answer(warnings=("it does not know sausage",))
        assert world.loop.reset() == ""
    assert world.advice == ["/instruction: 'push the sausage': it does not know sausage"]
    world.loop.hear_instruction("push")
    assert world.loop.instruction.warning == ""


def test_a_worker_that_does_not_answer_is_given_up():
    world = Surroundings()
    world.see()
    world.waited = world.settings.model.step_timeout + 0.1
    world.loop.tick()
    world.loop.tick()
    assert len(world.failures) == 1 and "model.step_timeout" in world.failures[0]


def test_leaving_active_says_one_zero_and_nothing_after():
    world = Surroundings()
    world.see()
    world.answer()
    world.loop.tick()
    world.loop.leave("deactivated")
    world.loop.leave("again")
    world.loop.tick()
    world.see()
    assert [command.reason for command in world.commands] == ["", "deactivated"]
    assert not np.any(world.commands[-1].linear) and world.commands[-1].gripper is None


def test_where_the_chunk_will_start_is_expected_from_latency_and_never_beyond_it():
    world = Surroundings()
    world.see()
    assert world.requests[0].first_index == 0  # nothing plays
    world.answer()
    world.loop.tick()
    world.statistics.typical_latency = lambda: 10.0
    world.see()
    assert world.requests[1].first_index == H - 1
    assert math.isnan(world.records[0].seam)


def test_a_command_is_judged_and_stamped_by_one_moment():
    around = Surroundings()
    around.passing = 7_000_001
    around.see()
    around.answer()
    for _ in range(H):
        around.loop.tick()
    played = [(now, stamp) for now, stamp in around.command_stamps if stamp is not None]
    assert len(played) == H
    assert around.ages == [(now - stamp.sec * 10**9) * 1e-9 for now, stamp in played]
