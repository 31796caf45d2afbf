"""Decides at every control tick what the arm is told, and when the next inference starts. No rclpy in it.

One lock covers it all: the tick (a steady timer), images (executor threads), replies (the worker client's thread),
``~/reset``, instructions, and leaving active. So no tick can follow the zero twist of a deactivation, and a reply
that belongs to an earlier episode is recognised for certain. The file is as long as what that lock covers.

An *episode* is what guidance and the policy's memory span: a stop, a new instruction or ``~/reset`` begins another
one. An underrun with fresh inputs does not: the arm slows down, and guidance observes a gap.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from dysl_vla_ros.control.commander import AnyCommand, ChunkPlayer, Commander
from dysl_vla_ros.control.joint_commander import JointCommander
from dysl_vla_ros.control.pose_commander import PoseCommander
from dysl_vla_ros.errors import NonFiniteActionError, ObservationError, WorkerError, WorkerLostError
from dysl_vla_ros.interfaces import THE_INSTRUCTION, THE_OBSERVATION, PolicyDescription
from dysl_vla_ros.nodes.inference import Inferences
from dysl_vla_ros.nodes.inputs import Inputs
from dysl_vla_ros.nodes.instruction import Instruction
from dysl_vla_ros.nodes.outputs import Outputs
from dysl_vla_ros.nodes.parameters import INSTRUCTION, Settings
from dysl_vla_ros.nodes.ros_clock import RosClock
from dysl_vla_ros.nodes.statistics import Statistics
from dysl_vla_ros.nodes.stop_log import StopLog
from dysl_vla_ros.readings import nanoseconds
from dysl_vla_ros.worker.client import StepReply, WorkerClient

HELD = "held by ~/hold"
WAITING_FOR_POLICY = "no fresh action: the policy has not answered yet"

START_PATIENCE = 2.0  # s after activation in which an input that never appeared is a WARN, then an ERROR


class ControlLoop:
    """The brain of an active node.

    Args:
        description: the loaded policy's.
        commander: plays its chunks.
        settings: gives the snapshot in force; read once a tick.
        statistics: counts for ``/diagnostics``.
        ros_nanoseconds: the ROS clock.
        fail: takes the error path to unconfigured with a cause; returns at once.
        warn: logs a text, throttled by its key.
        simulated: whether the ROS clock is ``/clock``.
        advise: logs what the user may want to put right: no fault of the node or the model.
        log_stop: logs that the arm stops, or moves again.
    """

    def __init__(
        self,
        description: PolicyDescription,
        commander: ChunkPlayer[Any],
        settings: Callable[[], Settings],
        statistics: Statistics,
        ros_nanoseconds: Callable[[], int],
        fail: Callable[[str], None],
        warn: Callable[[str, str], None],
        simulated: Callable[[], bool] = lambda: False,
        advise: Callable[[str], None] = lambda text: None,
        log_stop: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Begin inactive; :meth:`connect` comes before :meth:`enter`."""
        self.lock = threading.RLock()
        self._commander = commander
        self.clock = RosClock(ros_nanoseconds, simulated)
        self._inferences = Inferences(description, commander, statistics, self.clock.now)
        self._settings = settings
        self._applied = settings()
        self._statistics = statistics
        self._fail = fail
        self._warn = warn
        self._advise = advise
        self._log_stop = log_stop
        self._stop_log = StopLog()
        self._active = False
        self._owes_stop = False  # it was active, and its last zero twist is not out yet
        self._episode = 0
        self._instruction = Instruction()
        self.last_refusal = ""  # the newest stop because the policy could not read what it was given
        self._moved = False  # something was commanded since activation: from then on silence is a zero twist
        self._stopped = True  # the last tick stopped: no second episode for the same stop
        self._hold_wanted = False  # ~/hold: until it is released, also across activations
        self._held = ""  # the stop after which safety.auto_resume = false waits for ~/reset
        self._fault = ""  # failed inference, refused observation, fault in a callback: until a chunk is taken
        self._fatal = ""  # the error path was taken: nothing moves until it arrives
        self._failures: dict[str, int] = {}
        self._used_stamp: Any = None
        self._entered = 0.0  # s, steady clock
        self.stop_reason = ""  # as of the last tick

    def connect(self, client: WorkerClient, inputs: Inputs, outputs: Outputs) -> None:
        """Give the loop its surroundings, which need its lock or callbacks themselves."""
        self._client, self._inputs, self._outputs = client, inputs, outputs
        self._inferences.connect(client, inputs)
        self.clock.doubled = inputs.publishers.clock_fault

    # -- entering and leaving ------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Become active: a new episode with nothing heard and nothing played.

        ``control.instruction`` is in force where it is given, else what was heard last.
        """
        with self.lock:
            self._inputs.start(time.monotonic())
            self.clock.enter()
            self._statistics.entered()
            self._moved, self._held, self._fault, self._fatal = False, "", "", ""
            self._failures.clear()
            self._stop_log = StopLog()
            self._used_stamp = None
            if given := self._settings().control.instruction.strip():
                self._instruction.hear(given, INSTRUCTION)
            if self._instruction.in_force:
                self._outputs.instruction(self._instruction.in_force)
            self._begin_episode()
            self._commander.enter()
            self._entered = time.monotonic()
            self._active = True

    def leave(self, reason: str) -> bool:
        """Stop being active: one zero twist goes out, and no tick or reply publishes after it.

        Idempotent; where the zero twist could not be published, which raises, the next call tries again.

        Returns:
            whether it went out now.
        """
        with self.lock:
            self._owes_stop = self._owes_stop or self._active
            self._active = False
            if not self._owes_stop:
                return False
            self.stop_reason = ""
            self._locate()
            self._publish(self._commander.stop(reason), self.clock.nanoseconds())
            self._owes_stop = False
            self.clock.leave()
            return True

    def abandon(self) -> None:
        """Stop being active before the first tick: nothing is published."""
        with self.lock:
            self._active = self._owes_stop = False
            self.clock.leave()

    @property
    def active(self) -> bool:
        """Whether ticks publish."""
        return self._active

    @property
    def settings(self) -> Settings:
        """The snapshot that the last tick applied."""
        return self._applied

    @property
    def episode(self) -> int:
        """Number of the present episode."""
        return self._episode

    # -- events ------------------------------------------------------------------------------------------------------

    def reset(self) -> str:
        """Begin a new episode at the user's wish (``~/reset``); returns why it cannot, or ""."""
        with self.lock:
            if not self._active:
                return "the node is not active: there is no episode to reset"
            self._held, self._fault = "", ""
            self._used_stamp = None  # the newest picture serves again: the first action comes a camera period sooner
            self._begin_episode()
            self._request_if_due()
            return ""

    def hold(self, on: bool) -> None:
        """Keep the arm still while inferences go on (``~/hold``), or release it. Either begins an episode.

        Guidance observes what is played, which is nothing. Released, the arm goes on with a chunk of a picture taken
        from then on, and ramps in.
        """
        with self.lock:
            if on == self._hold_wanted:
                return
            self._hold_wanted = on
            if self._active:
                self._used_stamp = None
                self._begin_episode()
                if on:
                    self._publish_stop(HELD)
                self._request_if_due()

    @property
    def held(self) -> bool:
        """Whether ``~/hold`` keeps the arm still."""
        return self._hold_wanted

    def hear_instruction(self, text: str, source: str = "") -> None:
        """Take an instruction; another text than the last one begins an episode, a blank one waits.

        Args:
            text: what was said.
            source: the parameter that it came by; "": the topic.
        """
        with self.lock:
            if not self._instruction.hear(text.strip(), source or self._inputs.instruction_topic):
                return
            if self._active:
                self._outputs.instruction(self._instruction.in_force)
            self._used_stamp = None
            if self._instruction.refusal:
                self._stop_for_instruction()
            else:
                self._begin_episode()
                self._request_if_due()

    def hear_image(self) -> None:
        """Start an inference upon an image of the first camera and what belongs to it, when one is due."""
        with self.lock:
            self._watch_clock(self.clock.now())
            self._request_if_due()

    def hear_loss(self, cause: str) -> None:
        """Stop for good: the worker is gone."""
        with self.lock:
            self._give_up(cause)

    def hear_fault(self, where: str, error: BaseException) -> None:
        """Stop after an exception in a callback; many of one kind in a row take the error path."""
        with self.lock:
            if self._active:
                self._count_failure(where, f"{where} failed: {error}")

    @property
    def instruction(self) -> Instruction:
        """What was heard last; to be looked at only."""
        return self._instruction

    @property
    def observation_refusal(self) -> str:
        """Why the policy cannot use what it sees, "" where it can: no fault of the model."""
        return self._fault if self._fault == self.last_refusal else ""

    @property
    def merely_waiting(self) -> bool:
        """Whether the present stop is no fault: wanted, refused by the policy, or waiting for somebody else."""
        waits = self.stop_reason in (WAITING_FOR_POLICY, HELD, self.last_refusal)
        return waits or not self._instruction.in_force or bool(self.clock.fault(self._applied.safety))

    @property
    def merely_starting(self) -> bool:
        """Whether inputs may still be absent without a fault: just activated, and nothing has moved."""
        just_entered = not self._moved and time.monotonic() - self._entered < START_PATIENCE
        return just_entered and not self._inputs.publishers.doubled

    # -- clock -------------------------------------------------------------------------------------------------------

    def _watch_clock(self, now: float) -> None:
        """Begin anew after a jump of the ROS clock, which shows ``now``: nothing from before it is acted upon."""
        if jump := self.clock.jumped(now):
            self._warn("clock", f"{jump}: everything from before is forgotten, a new episode begins")
            self._inputs.clock_jumped()
            self._used_stamp = None
            self._halt(jump)

    def inputs_fault(self, now: float | None = None) -> str:
        """Return why nothing that is heard may be acted upon now, or "" when clock and inputs are in order."""
        clock, safety = self.clock, self._applied.safety
        now = clock.now() if now is None else now
        return clock.doubled() or clock.fault(safety, now) or self._inputs.stop_reason(now, safety, clock.rate)

    # -- tick ----------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Play one control tick and publish it: judged and stamped by one moment of the ROS clock."""
        with self.lock:
            if not self._active:
                return
            now = self.clock.nanoseconds()
            self._statistics.ticked(time.monotonic(), 1.0 / self._applied.control.rate)
            self._apply_settings()
            self._watch_clock(now * 1e-9)
            self._check_worker()
            self._locate()
            command = self._play(now)
            self.stop_reason = command.reason
            if not command.reason:
                self._moved = True
                self._failures.pop("tick", None)
            if self._moved:
                self._publish(command, now)
                self._statistics.commanded(command)
                if said := self._stop_log.tick(
                    command.reason, time.monotonic(), waits=command.reason == WAITING_FOR_POLICY
                ):
                    self._log_stop(said)
            self._request_if_due()

    def _apply_settings(self) -> None:
        settings = self._settings()
        if settings is not self._applied:
            self._commander.configure(settings.control, settings.safety)
            self._applied = settings

    def _check_worker(self) -> None:
        waited, limit = self._client.busy_for(), self._applied.model.step_timeout
        if waited > limit:
            self._give_up(f"the policy worker has not answered for {waited:.1f} s (model.step_timeout is {limit:g} s)")

    def _play(self, now: int) -> AnyCommand:
        reason = self._reason_to_stop(now * 1e-9)
        coming = self._commander.next_image_stamp
        if not reason and coming is not None:
            age = (now - nanoseconds(coming)) * 1e-9
            reason = self._inputs.freshness.action_stop_reason(age, self._applied.safety)
        if reason:
            return self._stop(reason)
        command = self._commander.tick()
        if command is None:  # an underrun: inputs are fresh, so guidance goes on after the gap
            self._statistics.action_ticks += 1
            return self._commander.brake(WAITING_FOR_POLICY)
        if command.reason:  # it cannot be played from where the arm is
            return self._stop(command.reason)
        self._stopped = False
        self._held = ""  # it moves again: a stop before is none to wait for, whatever safety.auto_resume becomes
        self._inferences.played(command)
        self._statistics.action_ticks += command.first_tick
        return command

    def _locate(self) -> None:
        """Tell the commander where the arm is."""
        if isinstance(self._commander, JointCommander):
            self._commander.measured = self._inputs.measured
        elif isinstance(self._commander, PoseCommander):
            self._commander.measured = self._inputs.measured_pose
        elif isinstance(self._commander, Commander) and self._applied.safety.workspace_box:
            self._commander.place = self._inputs.place

    def _reason_to_stop(self, now: float) -> str:
        if self._fatal:
            return self._fatal
        if self._hold_wanted:
            return HELD
        if self._held and not self._applied.safety.auto_resume:
            return f"held until ~/reset (safety.auto_resume is false) after: {self._held}"
        if not self._instruction.in_force:
            return self._instruction.refusal or f"waiting for instruction on {self._inputs.instruction_topic}"
        return self.inputs_fault(now) or self._fault

    def _stop(self, reason: str) -> AnyCommand:
        if not self._stopped:
            self._end_episode(reason)
        return self._commander.stop(reason)

    def _end_episode(self, reason: str) -> None:
        self._statistics.stopped(reason)
        if self._moved:
            self._held = reason
        self._begin_episode()

    def _begin_episode(self) -> None:
        """Forget chunk, history and the request in flight; the worker resets guidance at the new number."""
        self._episode += 1
        self._stopped = True
        self._inferences.begin_episode(self._episode)
        self._commander.reset()

    def _publish(self, command: AnyCommand, now: int) -> None:
        stamp = None if command.reason else self._commander.image_stamp
        self._outputs.command(command, now, self._episode, stamp, self._applied.control)

    # -- inference -----------------------------------------------------------------------------------------------------

    def _request_if_due(self) -> None:
        """Start an inference: worker idle, a newer image than the last request's, and one is due."""
        if not self._active or self._fatal or self._client.busy or self._inferences.waiting:
            return
        if not self._commander.due:
            return
        stamp = self._inputs.newest_stamp()
        if stamp is None or stamp == self._used_stamp:
            return
        if self._held and not self._applied.safety.auto_resume or not self._instruction.in_force:
            return
        if self.inputs_fault():
            return
        if not self._inferences.ready():  # pictures are being converted; hear_image comes when they are there
            return
        self._used_stamp = stamp
        if change := self._inputs.picture_change():
            self._warn("picture", f"{change}; guidance begins afresh")
            self._begin_episode()
        try:
            self._inferences.request(self._instruction.in_force, self._settings().runtime, at_rest=not self._moved)
        except ObservationError as error:
            self._refuse_observation(str(error))
        except WorkerLostError:  # the client itself tells, with the cause
            return
        except WorkerError as error:
            self._warn("worker", f"no inference: {error}")

    def hear_reply(self, reply: StepReply) -> None:
        """Take the worker's answer, unless it belongs to an earlier episode, and start the next inference if due."""
        with self.lock:
            self._watch_clock(self.clock.now())
            if not self._active or not self._inferences.awaits(reply):
                self._statistics.outdated_replies += 1
            elif reply.result is not None:
                self._take(reply)
            else:
                self._inferences.drop()
                self._take_fault(reply)
            self._request_if_due()

    def _take_fault(self, reply: StepReply) -> None:
        if reply.at_fault == THE_INSTRUCTION:
            self._instruction.refuse(reply.error)
            self._outputs.instruction("")
            self._stop_for_instruction()
        elif reply.at_fault == THE_OBSERVATION:
            self._refuse_observation(f"{reply.error}; look after {', '.join(self._inputs.topics)}")
        else:
            self._count_failure("inference", f"inference failed: {reply.error}")

    def _stop_for_instruction(self) -> None:
        """Stop because the instruction is refused; it stays refused until another one comes. No failure is counted."""
        self._advise(self._instruction.refusal)
        if self._active:
            self.last_refusal = self._instruction.refusal
            self._end_episode(self.last_refusal)
            self._publish_stop(self.last_refusal)

    def _refuse_observation(self, why: str) -> None:
        """Stop because the policy cannot use what it sees: told once, until a chunk is taken. No failure is counted."""
        text, lasts = f"observation refused: {why}", bool(self.observation_refusal)
        self.last_refusal = text
        if lasts:
            self._fault = text
        else:
            self._advise(text)
            self._halt(text)

    def _take(self, reply: StepReply) -> None:
        if self._instruction.warn(reply.warnings):
            self._advise(self._instruction.warning)
        try:
            record = self._inferences.take(reply)
        except NonFiniteActionError as error:
            self._count_failure("inference", f"inference failed: {error}")
            return
        self._fault = ""
        self._failures = {kind: count for kind, count in self._failures.items() if kind == "tick"}
        self._statistics.inferred(record)
        self._commander.latency = self._statistics.long_latency()
        self._outputs.inference(record)

    def _count_failure(self, kind: str, text: str) -> None:
        """Stop for a failure; ``safety.max_consecutive_failures`` of a kind in a row end in unconfigured."""
        self._failures[kind] = self._failures.get(kind, 0) + 1
        self._statistics.failed(text)
        self._warn(kind, text)
        self._halt(text)
        limit = self._applied.safety.max_consecutive_failures
        if self._failures[kind] >= limit:
            self._give_up(f"{text} ({limit} in a row: safety.max_consecutive_failures)")

    def _halt(self, text: str) -> None:
        """Stop at once, not at the next tick: a good answer may come before it, and the stop must be seen.

        The picture counts as used, so that the next attempt waits for a newer one.
        """
        self._end_episode(text)
        self._fault = text
        self._publish_stop(text)

    def _publish_stop(self, reason: str) -> None:
        self.stop_reason = reason
        command = self._commander.stop(reason)
        if self._moved:
            self._publish(command, self.clock.nanoseconds())
            self._statistics.commanded(command)

    def _give_up(self, cause: str) -> None:
        if not self._fatal:
            self._fatal = cause
            self._fail(cause)
