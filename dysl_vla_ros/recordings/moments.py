"""A bag's streams as moments: for each frame of the first camera, what the node would have seen, or why it would not.

The node's own judge (:class:`~dysl_vla_ros.control.input_judge.InputJudge`) decides, on the bag's clock: a source that
was silent for longer than ``safety.max_arrival_age``, a frozen or old picture, cameras too far apart in time, messages
of one instant whatever their order. A frame that the node would not have acted upon is counted with the reason, and
what would have stopped it ends the episode. An episode also ends at a new instruction, at a jump of time, where the
recorder's clock was set back, and where the recording itself shows a reset. From an instruction that the policy cannot
read to the next one, no frame serves.

Bag time is the time of reception, from the first frame that serves. Pictures are converted only for the frames that
are used.
"""

import functools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dysl_vla_ros.control.pairing import Verdict
from dysl_vla_ros.errors import BagError
from dysl_vla_ros.interfaces import Observation, PolicyDescription
from dysl_vla_ros.readings import instruction_fault, nanoseconds
from dysl_vla_ros.recordings.corrections import Corrections, Corrector
from dysl_vla_ros.recordings.history import FrameKey, History, RecordedAction
from dysl_vla_ros.recordings.inputs import Frame, RecordedInputs
from dysl_vla_ros.recordings.topics import BagTopics
from dysl_vla_ros.settings import SafetySettings

FIRST = "the recording begins"
UNREADABLE = "an instruction was left out"


@dataclass(frozen=True)
class Moment:
    """One frame of the first camera with everything else as it was then."""

    number: int
    frame: int  # number of the frame among all those of the first camera
    time: float  # s of bag time since the first moment; a clock that was set back does not set it back
    stamp: int  # ns, of the first camera's frame; as received, where the user said so
    clock: float  # s that actions are counted by: bag time, or the stamps' where another clock made them (simulation)
    observation: Observation
    begins: str  # why an episode begins with this moment; "" where one goes on
    recorded: RecordedAction | None
    executed: tuple[bool, ...] | None  # layers that the recorded run executed on this frame


@dataclass
class Refusal:
    """Frames that could not serve, for one reason."""

    example: str
    count: int = 0


@dataclass
class LeftOut:
    """An instruction that the policy cannot read."""

    topic: str
    text: str
    why: str  # in the policy's words
    frames: int = 0  # that could not serve because of it

    def __str__(self) -> str:
        return f"the instruction {self.text!r:.60} on {self.topic} is left out: {self.why}"


class Moments:
    """Iterate once; the counts are complete afterwards.

    Attributes:
        frames: of the first camera that came by.
        left_out: that ``every`` skipped.
        refused: why frames (or messages of another input) could not serve, and how many.
        unreadable: messages whose bytes are damaged.
        left_out_instructions: text -> what the policy says of it.
        corrector: what of the messages was changed, and what could be.
        start_ns: when the first moment's frame was received, ns; 0: there was none.
        seconds: from the first moment to the last.
    """

    def __init__(
        self,
        reader: Any,
        topics: BagTopics,
        description: PolicyDescription,
        safety: SafetySettings,
        *,
        tick: float = 0.05,
        every: int = 1,
        actions_between: int = 0,
        chosen: Callable[[int], bool] = lambda frame: True,
        instruction: str = "",
        corrections: Corrections | None = None,
        unreadable: Callable[[str], str] = instruction_fault,
        history: History | None = None,
    ) -> None:
        """Prepare to read; see :class:`Moment` for what comes.

        Args:
            reader: an open bag.
            topics: which topic serves what.
            description: the policy's.
            safety: the ages after which the node stops.
            tick: s of a control tick of the node: how long an input must be at fault for the node to notice.
            every: use each n-th frame of the first camera.
            actions_between: action time steps between two frames that are used, within an episode; 0: any number.
            chosen: further choice among the frames, by their number.
            instruction: in place of the bag's; "": the bag's.
            corrections: what the user says of stamps and frames; None: nothing.
            unreadable: says why the policy cannot read an instruction, "" where it can.
            history: the recorded run; None: nothing is known of it.
        """
        assert every >= 1
        self.frames = self.left_out = self.unreadable = 0
        self.refused: dict[str, Refusal] = {}
        self.left_out_instructions: dict[str, LeftOut] = {}
        self.corrector = Corrector(corrections or Corrections(), description.proprioception.frame)
        self.start_ns, self.seconds = 0, 0.0
        self._began: int | None = None  # ns since the bag's first message, of the first moment
        self._segment = 0
        self._reader, self._roles = reader, topics.role_of()
        self._every, self._actions_between, self._chosen = every, actions_between, chosen
        self._tick, self._time_step = tick, description.action.time_step
        self._cameras = description.cameras
        names = {role: served.topic for role, served in topics.inputs.items()}
        self._new_inputs = functools.partial(RecordedInputs, description, names, safety, refuse=self._refuse)
        self._inputs = self._new_inputs(began=reader.start_ns * 1e-9)
        self._unreadable_text = unreadable
        self._left_out: LeftOut | None = None  # the instruction that was said last, where it cannot be read
        self._history = history or History()
        self._instruction = instruction
        self._ends = FIRST  # why the next moment begins an episode; "": it goes on
        self._faulty_since: float | None = None  # s
        self._recorded: dict[str, int] = {}  # the recorded run's and its scene's episode, of this episode's last frame
        self._episode_began = 0.0  # s, on the clock that actions are counted by
        self._used_step = 0
        self._count = 0

    @property
    def own_clock(self) -> bool:
        """Whether the cameras are stamped by another clock than the bag's, as in simulation."""
        return bool(self._inputs.own_clock)

    def __iter__(self) -> Iterator[Moment]:
        """Yield the moments in the order of bag time."""
        before = self._reader.start_ns * 1e-9
        for entry in self._reader.messages(list(self._roles)):
            time = entry.time_ns * 1e-9
            role = self._roles[entry.topic]
            if entry.segment != self._segment:
                yield from self._judged(math.inf)
                self._begin_segment(entry.segment, time)
                before = time
            yield from self._judged(time)
            self._watch_inputs(time, before)
            before = time
            try:
                message = entry.message
            except BagError as error:
                self.unreadable += 1
                self._refuse(str(error))
                continue
            key = FrameKey(entry.segment, _recorded_stamp(message))
            message = self.corrector.correct(role, entry.topic, message, entry.time_ns)
            if role == "instruction":
                self._hear_instruction(entry.topic, message.data)
            elif role not in self._cameras:
                self._inputs.hear_values(role, time, message)
            else:
                self._hear_image(role, time, Frame(message, self.frames, entry.time_ns, entry.elapsed_ns, key))
            yield from self._judged(time)
            self._watch_inputs(time, before)
        yield from self._judged(math.inf)

    def end_episode(self, reason: str) -> None:
        """Let the next moment begin an episode: what became of the last one would have stopped the node."""
        self._ends = self._ends or reason

    def refuse(self, reason: str) -> None:
        """Count a moment that turned out not to serve, as the node would count a failed inference."""
        self._refuse(reason)
        self.end_episode(reason)

    # -- hearing -----------------------------------------------------------------------------------------------------

    def _watch_inputs(self, time: float, before: float) -> None:
        """End the episode where a fault of the inputs lasted for a control tick: the node would have stopped.

        Args:
            time: s, now; called before and after a message is taken.
            before: s, of the last call: nothing came since.
        """
        if self._ends:
            return
        reason = self._inputs.stop_reason(time)
        earlier = self._inputs.stop_reason(time - self._tick) if reason and time - before > self._tick else ""
        if not reason:
            self._faulty_since = None
        elif earlier or (self._faulty_since is not None and time - self._faulty_since >= self._tick):
            self._ends = (earlier or reason).partition(";")[0]  # the first input at fault, without the mend
            self._faulty_since = None
        elif self._faulty_since is None:
            self._faulty_since = time

    def _begin_segment(self, segment: int, time: float) -> None:
        """Begin anew where the clock was set back: of what was heard before, nobody knows how old it is."""
        seconds = self._reader.set_backs[segment - 1]
        self._segment, self._inputs, self._faulty_since = segment, self._new_inputs(began=time), None
        self.end_episode(f"the clock was set back by {seconds:.3f} s when it was recorded")

    def _hear_instruction(self, topic: str, text: str) -> None:
        """Take an instruction; one that cannot be read makes the node stand still until the next one."""
        text = text.strip()
        if text == (self._left_out.text if self._left_out else self._instruction):
            return
        if text and (fault := self._unreadable_text(text)):
            self._left_out = self.left_out_instructions.setdefault(text, LeftOut(topic, text, fault))
            self._instruction = ""
            self.end_episode(UNREADABLE)
            return
        self._instruction, self._left_out = text, None
        self._ends = "" if self._ends == UNREADABLE else self._ends
        self.end_episode(f"new instruction: {text or 'none'}")

    def _hear_image(self, camera: str, time: float, frame: Frame) -> None:
        if camera == self._cameras[0]:
            self.frames += 1
            if jump := self._inputs.follow_clock(time, frame.message):
                self.end_episode(jump)
        self._inputs.hear_image(camera, time, frame)

    # -- giving ------------------------------------------------------------------------------------------------------

    def _judged(self, time: float) -> Iterator[Moment]:
        """Yield the frames on which there is a verdict by that time, s; count those that do not serve."""
        for verdict in self._inputs.verdicts(time):
            if not self._wanted(verdict):
                self.left_out += 1
            elif verdict.refusal:
                self._refuse(verdict.refusal)
            elif (moment := self._moment(verdict)) is not None:
                yield moment

    def _wanted(self, verdict: Verdict) -> bool:
        number = verdict.image.item.number
        if number % self._every or not self._chosen(number):
            return False
        return bool(self._ends) or self._steps(self._clock(verdict)) >= self._used_step + self._actions_between

    def _clock(self, verdict: Verdict) -> float:
        """Return a frame's time on the clock that actions are counted by, s."""
        return verdict.image.stamp if self.own_clock else verdict.image.arrival

    def _steps(self, clock: float) -> int:
        """Return how many action time steps of this episode lie behind."""
        return round((clock - self._episode_began) / self._time_step)

    def _moment(self, verdict: Verdict) -> Moment | None:
        frame: Frame = verdict.image.item
        clock = self._clock(verdict)
        self._follow_recorded_run(frame.key)
        if self._left_out:
            self._left_out.frames += 1
            self._refuse(str(self._left_out), f"instruction: {self._left_out.text}")
            return None
        why = self._inputs.stop_reason(verdict.time)
        if not self._instruction:
            why = "no instruction was given by then: give one with --instruction"
        if why:
            self._refuse(why)
            return None
        observation = self._inputs.observe(verdict, self._instruction)
        if observation is None:
            return None
        if self._began is None:
            self._began, self.start_ns = frame.elapsed_ns, frame.time_ns
        self.seconds = (frame.elapsed_ns - self._began) * 1e-9
        moment = Moment(
            number=self._count,
            frame=frame.number,
            time=self.seconds,
            stamp=nanoseconds(frame.message.header.stamp),
            clock=clock,
            observation=observation,
            begins=self._ends,
            recorded=self._history.action(frame.key, frame.elapsed_ns),
            executed=self._history.executed(frame.key),
        )
        self._count += 1
        if self._ends:
            self._episode_began = clock
        self._used_step = self._steps(clock)
        self._ends = ""
        return moment

    def _follow_recorded_run(self, frame: FrameKey) -> None:
        """End the episode where the recorded run's, or its scene's, ended.

        Frames that the node did not answer belong to the episode before, so that nothing ends twice.
        """
        known = {"the node was reset or had stopped": self._history.episode(frame)}
        known["the scene was reset"] = self._history.scene(frame)
        for what, now in known.items():
            before = self._recorded.get(what)
            if now is not None and before is not None and now != before:
                self.end_episode(f"{what} when it was recorded")
        if self._ends:
            self._recorded.clear()
        self._recorded |= {what: now for what, now in known.items() if now is not None}

    def _refuse(self, reason: str, kind: str = "") -> None:
        """Count a reason; those of no kind that differ in numbers alone are one."""
        refusal = self.refused.setdefault(kind or re.sub(r"[-+]?\d[\d.e+-]*", "#", reason), Refusal(reason))
        refusal.count += 1


def _recorded_stamp(message: Any) -> int:
    """Return a message's own stamp, ns; 0 where it has none."""
    header = getattr(message, "header", None)
    return 0 if header is None else nanoseconds(header.stamp)
