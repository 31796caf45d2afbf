"""A bag's streams as moments: for each frame of the first camera, what the node would have seen, or why it would not.

The node's own judge (:class:`~dysl_vla_ros.control.input_judge.InputJudge`) decides, on the bag's clock: a source that
was silent for longer than ``safety.max_arrival_age``, a frozen or old picture, cameras too far apart in time, messages
of one instant whatever their order. A frame that the node would not have acted upon is counted with the reason, and
what would have stopped it ends the episode. An episode also ends at a new instruction, at a jump of time, and where the
recording itself shows a reset.

Bag time is the time of reception. Pictures are converted only for the frames that are used.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dysl_vla_ros.control.pairing import Verdict
from dysl_vla_ros.errors import BagError
from dysl_vla_ros.interfaces import Observation, PolicyDescription
from dysl_vla_ros.readings import instruction_fault
from dysl_vla_ros.replay.history import History, RecordedAction, nanoseconds
from dysl_vla_ros.replay.inputs import Frame, RecordedInputs
from dysl_vla_ros.replay.topics import BagTopics
from dysl_vla_ros.settings import SafetySettings

FIRST = "the recording begins"


@dataclass(frozen=True)
class Moment:
    """One frame of the first camera with everything else as it was then."""

    number: int
    frame: int  # number of the frame among all those of the first camera
    time: float  # s of bag time since the bag's first message
    stamp: int  # ns, of the first camera's frame
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


class Moments:
    """Iterate once; the counts are complete afterwards.

    Attributes:
        frames: of the first camera that came by.
        left_out: that ``every`` skipped.
        refused: why frames (or messages of another input) could not serve, and how many.
        unreadable: messages whose bytes are damaged.
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
            history: the recorded run; None: nothing is known of it.
        """
        assert every >= 1
        self.frames = self.left_out = self.unreadable = 0
        self.refused: dict[str, Refusal] = {}
        self._reader, self._roles = reader, topics.role_of()
        self._every, self._actions_between, self._chosen = every, actions_between, chosen
        self._tick, self._time_step = tick, description.action.time_step
        self._cameras = description.cameras
        names = {role: served.topic for role, served in topics.inputs.items()}
        self._inputs = RecordedInputs(description, names, safety, reader.start_ns * 1e-9, self._refuse)
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
            yield from self._judged(time)
            self._watch_inputs(time, before)
            before = time
            try:
                message = entry.message
            except BagError as error:
                self.unreadable += 1
                self._refuse(str(error))
                continue
            if role == "instruction":
                self._hear_instruction(entry.topic, message.data)
            elif role not in self._cameras:
                self._inputs.hear_values(role, time, message)
            else:
                self._hear_image(role, entry.time_ns, message)
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

    def _hear_instruction(self, topic: str, text: str) -> None:
        text = text.strip()
        if fault := instruction_fault(text):
            self._refuse(f"{topic}: {fault}; the one before stays")
        elif text != self._instruction:
            self._instruction = text
            self.end_episode(f"new instruction: {text or 'none'}")

    def _hear_image(self, camera: str, time_ns: int, message: Any) -> None:
        time = time_ns * 1e-9
        if camera == self._cameras[0]:
            self.frames += 1
            if jump := self._inputs.follow_clock(time, message):
                self.end_episode(jump)
        self._inputs.hear_image(camera, time, Frame(message, self.frames - 1, time_ns))

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
        message, frame, time_ns = verdict.image.item
        stamp, clock = nanoseconds(message.header.stamp), self._clock(verdict)
        self._follow_recorded_run(stamp)
        why = self._inputs.stop_reason(verdict.time)
        if not self._instruction:
            why = "no instruction was given by then: give one with --instruction"
        if why:
            self._refuse(why)
            return None
        observation = self._inputs.observe(verdict, self._instruction)
        if observation is None:
            return None
        moment = Moment(
            number=self._count,
            frame=frame,
            time=(time_ns - self._reader.start_ns) * 1e-9,
            stamp=stamp,
            clock=clock,
            observation=observation,
            begins=self._ends,
            recorded=self._history.action(stamp, time_ns),
            executed=self._history.executed(stamp),
        )
        self._count += 1
        if self._ends:
            self._episode_began = clock
        self._used_step = self._steps(clock)
        self._ends = ""
        return moment

    def _follow_recorded_run(self, stamp: int) -> None:
        """End the episode where the recorded run's, or its scene's, ended.

        Frames that the node did not answer belong to the episode before, so that nothing ends twice.
        """
        known = {"the node was reset or had stopped": self._history.episode(stamp)}
        known["the scene was reset"] = self._history.scene(stamp)
        for what, now in known.items():
            before = self._recorded.get(what)
            if now is not None and before is not None and now != before:
                self.end_episode(f"{what} when it was recorded")
        if self._ends:
            self._recorded.clear()
        self._recorded |= {what: now for what, now in known.items() if now is not None}

    def _refuse(self, reason: str) -> None:
        """Count a reason; those that differ in numbers alone are one."""
        refusal = self.refused.setdefault(re.sub(r"[-+]?\d[\d.e+-]*", "#", reason), Refusal(reason))
        refusal.count += 1
