"""What is asked of the policy worker, and what becomes of its answer. Under the control loop's lock; no rclpy in it.

*When* an inference starts is the control loop's business (:meth:`ControlLoop._request_if_due`); here is what goes out
with it and how the chunk that comes back is joined.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dysl_vla_ros.control.chunk_time import actions_begun
from dysl_vla_ros.control.commander import AnyCommand, ChunkPlayer
from dysl_vla_ros.interfaces import PolicyDescription
from dysl_vla_ros.nodes.inputs import Inputs, Moment
from dysl_vla_ros.nodes.outputs import InferenceRecord
from dysl_vla_ros.nodes.statistics import Statistics
from dysl_vla_ros.readings import seconds
from dysl_vla_ros.settings import RuntimeSettings
from dysl_vla_ros.worker.client import StepReply, StepRequest, WorkerClient


@dataclass(frozen=True)
class Beginning:
    """The moment at which the pictures of an observation were chosen: before they were converted."""

    episode: int
    actions_played: int  # since the episode began
    action_ticks: int  # ticks that wanted a new action so far
    time: float  # s, steady clock


@dataclass(frozen=True)
class InFlight:
    """The request that the worker is computing."""

    moment: Moment
    instruction: str
    begun: Beginning


class Inferences:
    """The inferences of an active node: numbers them, and knows which answer belongs to the present episode."""

    def __init__(
        self,
        description: PolicyDescription,
        commander: ChunkPlayer[Any],
        statistics: Statistics,
        ros_now: Callable[[], float],
    ) -> None:
        """Begin with nothing asked; :meth:`connect` and :meth:`begin_episode` come before :meth:`request`."""
        self._description = description
        self._commander = commander
        self._statistics = statistics
        self._ros_now = ros_now
        self._episode = 0
        self._sequence = 0  # of the last request within the episode
        self._in_flight: InFlight | None = None
        self._last_action_start = 0.0  # s, steady clock
        self._actions_left = 0

    def connect(self, client: WorkerClient, inputs: Inputs) -> None:
        """Give it whom it asks, and what it asks about."""
        self._client, self._inputs = client, inputs

    def begin_episode(self, episode: int) -> None:
        """Forget the request in flight; the worker resets guidance at the new number."""
        self._episode = episode
        self._sequence = 0
        self._in_flight = None
        self._actions_left = 0

    def played(self, command: AnyCommand) -> None:
        """Note the command of a tick that plays an action."""
        self._actions_left = command.chunk_length - command.index - 1
        if command.first_tick:
            self._last_action_start = time.monotonic()

    def ready(self) -> bool:
        """Whether an observation can be made now; if not, its pictures are being converted."""
        return self._inputs.prepare(self._beginning())

    def _beginning(self) -> Beginning:
        actions, ticks = self._commander.actions_played, self._statistics.action_ticks
        return Beginning(self._episode, actions, ticks, time.monotonic())

    def request(self, instruction: str, settings: RuntimeSettings, at_rest: bool) -> None:
        """Ask for an inference on the newest images.

        Args:
            instruction: in force.
            settings: the snapshot that goes with it.
            at_rest: nothing was commanded yet, so that the gripper is where it is heard to be.

        Raises:
            ObservationError: the inputs cannot serve.
            WorkerError: the worker takes no request.
        """
        begun = self._beginning()
        moment = self._inputs.observe(instruction)
        if moment.begun is not None and moment.begun.episode == self._episode:
            begun = moment.begun
        if at_rest and (opening := self._inputs.gripper_opening) is not None:
            self._commander.set_gripper(opening)
        played, gaps = self._commander.take_played()
        self._sequence += 1
        meanwhile = self._commander.actions_played - begun.actions_played
        self._client.submit(
            StepRequest(
                self._episode,
                self._sequence,
                moment.observation,
                played,
                gaps,
                min(meanwhile + self._expected_first_index(begun.time), self._description.action.horizon - 1),
                settings,
            )
        )
        self._in_flight = InFlight(moment, instruction, begun)

    def _expected_first_index(self, now: float) -> int:
        """Guess how many actions are played before the reply; used for verification only, joining counts them."""
        if self._actions_left <= 0:
            return 0
        step = self._description.action.time_step
        until_next = max(self._last_action_start + step - now, 0.0)
        starts = actions_begun(self._statistics.typical_latency(), until_next, step)
        return min(starts, self._actions_left, self._description.action.horizon - 1)

    @property
    def waiting(self) -> bool:
        """Whether the answer to a request of the present episode has not been taken, or counted as failed.

        The worker may be idle then: its answer is on the way to us. A request made now would be taken for the one that
        is answered.
        """
        return self._in_flight is not None

    def awaits(self, reply: StepReply) -> bool:
        """Whether the reply is the one to the request in flight: no other than the last of the present episode."""
        return self.waiting and (reply.episode, reply.sequence) == (self._episode, self._sequence)

    def drop(self) -> None:
        """Forget the request in flight: its answer has come, and is none to be played."""
        self._in_flight = None

    def take(self, reply: StepReply) -> InferenceRecord:
        """Hand an awaited result to the commander, and say what was taken.

        Raises:
            NonFiniteActionError: the chunk holds NaN or infinity; the chunk before stays.
        """
        waiting, result = self._in_flight, reply.result
        assert waiting is not None and result is not None
        self._in_flight = None
        begun = waiting.begun
        total_ms = (time.monotonic() - begun.time) * 1e3
        first_index = self._commander.actions_played - begun.actions_played
        stamp = waiting.moment.image_stamp
        seam = self._commander.offer(result.chunk, begun.actions_played, reply.sequence, stamp)
        return InferenceRecord(
            result=result,
            episode=reply.episode,
            inference=reply.sequence,
            instruction=waiting.instruction,
            image_stamp=stamp,
            first_index=first_index,
            convert_ms=waiting.moment.convert_ms,
            transfer_ms=reply.transfer_ms,
            total_ms=total_ms,
            image_age_ms=(self._ros_now() - seconds(stamp)) * 1e3,
            missed_deadline=self._statistics.action_ticks > begun.action_ticks,
            seam=seam,
        )
