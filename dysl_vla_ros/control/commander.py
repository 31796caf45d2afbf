"""Plays action chunks, one command a tick: which action, how long, joined to the chunk before, within the limits.

Time is counted, never guessed: an action lasts ``control.rate * time_step`` ticks, and a new chunk is joined by the
number of actions played since its observation was taken; those before that place are dropped. An action counts as
played at its first tick. Where a chunk is used up before the next one comes, the arm slows down. No clock, no ROS, no
threads: node, demonstration and evaluation use this same class.

:class:`ChunkPlayer` is what all kinds of action share, :class:`Commander` plays motions of an end effector,
:class:`~dysl_vla_ros.control.pose_commander.PoseCommander` its absolute poses and
:class:`~dysl_vla_ros.control.joint_commander.JointCommander` what joints are to do. What was played and guidance has
not seen yet waits in :class:`PlayedActions`: each action once, and where the arm stood still between them.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.control.chunk_time import actions_during, require_playable, ticks_per_action
from dysl_vla_ros.control.gripper import GripperLimiter
from dysl_vla_ros.control.kinds import require_end_effector
from dysl_vla_ros.control.limits import Limiter, Place
from dysl_vla_ros.errors import NonFiniteActionError
from dysl_vla_ros.interfaces import ActionChunk, ActionSpec, FloatArray
from dysl_vla_ros.settings import AUTOMATIC, ControlSettings, SafetySettings

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AnyCommand:
    """What the arm is told for one tick, whatever moves it."""

    gripper: float | None  # opening 0..1, None: hold
    action: FloatArray | None  # (A,) physical units as the policy gave it; None where nothing is played
    index: int  # place of the action in its chunk
    chunk_length: int  # 0 where nothing is played
    inference: int
    first_tick: bool  # false where control.rate repeats an action
    verified: bool
    limits: tuple[str, ...]  # names of the settings that changed the action
    reason: str  # why nothing is played; "" while playing

    @property
    def moving(self) -> bool:
        """Whether the command moves the arm."""
        raise NotImplementedError

    @property
    def still(self) -> bool:
        """Whether the arm is told to stand still because nothing is played."""
        return bool(self.reason) and not self.moving


CommandOfKind = TypeVar("CommandOfKind", bound=AnyCommand)


def unplayed(limits: tuple[str, ...], reason: str) -> dict[str, Any]:
    """Return what a command says that plays no action, in the fields of :class:`AnyCommand`."""
    nothing = {"gripper": None, "action": None, "index": 0, "chunk_length": 0, "inference": 0}
    return nothing | {"first_tick": False, "verified": False, "limits": limits, "reason": reason}


@dataclass(frozen=True, eq=False)
class _Chunk:
    actions: FloatArray  # (H, A) a copy of our own
    observed_at: int
    inference: int
    image_stamp: Any
    verified: bool
    actions_to_play: int


class AnyLimiter(Protocol):
    """What bounds the commands of one kind of action, as far as all kinds are alike."""

    gripper: GripperLimiter

    def ramp_again(self) -> None:
        """Ramp in from here. The last command stays known."""

    def rest(self) -> None:
        """The arm was told to stand still: the next motion starts from rest."""


class ChunkPlayer(ABC, Generic[CommandOfKind]):
    """Plays the current chunk. Not thread-safe: its owner calls every method under one lock.

    Once a control tick: ``tick``; where it gives None, ``brake`` (nothing fresh to play) or ``stop`` (something is
    wrong). For an inference: note ``actions_played`` with the observation, hand ``take_played`` to the runtime, and
    ``offer`` its chunk.

    Attributes:
        latency: s from picture to chunk that the next inference is expected to take at most; 0.0: unknown.
        late_chunks: chunks offered too late to play any of their actions, since construction.
        image_stamp: as given to ``offer``, of the action being played; None while nothing plays.
    """

    _limiter: AnyLimiter  # made by each kind, before this class begins its first episode

    def __init__(self, action: ActionSpec, control: ControlSettings, safety: SafetySettings) -> None:
        """Make a commander for actions of this kind.

        Raises:
            SettingError: see ``configure``.
        """
        self._action = action
        self._played = PlayedActions(action.dimensions)
        self.latency = 0.0
        self.late_chunks = 0
        self.configure(control, safety)
        self.reset()

    def configure(self, control: ControlSettings, safety: SafetySettings) -> None:
        """Take settings over from the next tick on.

        Raises:
            SettingError: control.rate is no whole multiple of the policy's action rate, or
                control.actions_per_inference is more than its chunks have; nothing is changed.
        """
        require_playable(control, self._action)
        self._ticks_per_action = ticks_per_action(control.rate, self._action.time_step)
        self._control = control
        self._safety = safety

    def reset(self) -> None:
        """Begin an episode: forget everything, ``actions_played`` included, but the last command to arm and gripper.

        The arm goes on at its last speed until ``tick``, ``brake`` or ``stop`` say otherwise; motion ramps in again.
        """
        self._chunk: _Chunk | None = None  # where the next action comes from
        self._playing: tuple[_Chunk, int] | None = None  # the action at hand
        self._ticks_done = 0  # of the action at hand
        self._chunk_played = 0  # actions of the chunk played since it was offered
        self._last: tuple[_Chunk, FloatArray] | None = None  # last action (A,) played since the arm stood still
        self._played.clear()
        self.image_stamp: Any = None
        self._limiter.ramp_again()

    def enter(self) -> None:
        """Begin after an activation: what was commanded before it says nothing of where the arm is."""
        self.reset()

    def set_gripper(self, opening: float) -> None:
        """Say where the gripper is before the first command, so that this one is rate-limited too."""
        self._limiter.gripper.set(opening)

    def _require(self, actions: FloatArray, what: str) -> None:
        """Refuse actions (n, A) that cannot be played.

        Raises:
            NonFiniteActionError: one of them holds NaN or infinity; begins with ``what``.
        """
        if not np.all(np.isfinite(actions)):
            raise NonFiniteActionError(f"{what} holds NaN or infinity and is not played")

    @abstractmethod
    def _limited(self, action: FloatArray, new_chunk: bool, ticks_left: int, fields: dict[str, Any]) -> CommandOfKind:
        """Return the command for one tick of an action (A,), within the limits.

        Args:
            action: as the policy gave it.
            new_chunk: the action before came from another chunk.
            ticks_left: of the action, this one included.
            fields: of :class:`AnyCommand`, but for gripper and limits.
        """

    @abstractmethod
    def brake(self, reason: str) -> CommandOfKind:
        """Slow down for a tick with nothing to play, to standing still in the end; nothing is dropped.

        The gripper holds, and the change of velocity is within the limits of acceleration.
        """

    @abstractmethod
    def _standing(self, reason: str) -> CommandOfKind:
        """Return the command that makes the arm stand still at once."""

    def offer(self, chunk: ActionChunk, observed_at: int, inference: int, image_stamp: Any) -> float:
        """Take a new chunk over from the next action on; an action at hand is played to its end.

        Args:
            chunk: actions in physical units.
            observed_at: ``actions_played`` when the observation was taken, of the same episode.
            inference: number of the inference, for the commands.
            image_stamp: of the observation's first image; handed back as it is.

        Returns:
            The seam: length of the difference between the chunk's first playable action and the last played one, in
            normalised units, before ``control.max_linear_seam`` and ``control.max_angular_seam``. NaN where the arm
            stands still, by a stop or an underrun, or where the chunk comes too late to play any of it; then it is not
            taken and ``late_chunks`` counts it.

        Raises:
            NonFiniteActionError: the chunk holds what cannot be played; the chunk before stays.
        """
        actions = np.array(chunk.actions, dtype=np.float32)  # a copy: what is played cannot change any more
        assert actions.ndim == 2 and actions.shape[1] == self._action.dimensions, f"chunk of shape {actions.shape}"
        assert math.isclose(chunk.time_step, self._action.time_step), f"chunk with a time step of {chunk.time_step}"
        assert 0 <= observed_at <= self.actions_played, f"observed at {observed_at} of {self.actions_played}"
        self._require(actions, f"the chunk of inference {inference}")
        first = self.actions_played - observed_at
        if first >= len(actions):
            self.late_chunks += 1
            return math.nan
        self._chunk = _Chunk(actions, observed_at, inference, image_stamp, chunk.verified, chunk.actions_to_play)
        self._chunk_played = 0
        if self._last is None:
            return math.nan
        pair = self._action.normalise(np.stack([self._last[1], actions[first]])).astype(np.float64)
        return float(np.linalg.norm(pair[1] - pair[0]))

    def tick(self) -> CommandOfKind | None:
        """Return this tick's command; None: nothing to play, which is an underrun once anything was played."""
        if self._repeating is None:
            self._playing = self._next_action()
            self._ticks_done = 0
        if self._playing is None:
            self._interrupted()
            return None
        chunk, index = self._playing
        action = chunk.actions[index]
        new_chunk = self._last is None or self._last[0] is not chunk
        first_tick = self._ticks_done == 0
        fields = {
            "action": action.copy(),
            "index": index,
            "chunk_length": len(chunk.actions),
            "inference": chunk.inference,
            "first_tick": first_tick,
            "verified": chunk.verified,
            "reason": "",
        }
        command = self._limited(action, new_chunk, max(self._ticks_per_action - self._ticks_done, 1), fields)
        self._ticks_done += 1
        if first_tick:
            self._last = (chunk, action)
            self._played.add(action)
            self._chunk_played += 1
        self.image_stamp = chunk.image_stamp
        return command

    def stop(self, reason: str) -> CommandOfKind:
        """Drop chunk and action at hand, ramp in at the next motion, and stand still: at once, no braking ramp.

        What was played and not yet taken stays; ``reset`` as well where guidance is reset.
        """
        self._chunk = self._playing = None
        self._chunk_played = 0
        self._interrupted()
        self._limiter.ramp_again()
        self._limiter.rest()
        return self._standing(reason)

    def take_played(self) -> tuple[FloatArray, tuple[int, ...]]:
        """Hand over, once, the actions played since the last call, as the policy gave them.

        Returns:
            Actions (n, A), n may be 0, and the places i, ascending in 0 .. n - 1, of those before which an underrun or
            a stop lay: no difference is to be taken across them.
        """
        return self._played.take()

    @property
    def actions_played(self) -> int:
        """Actions begun since ``reset``; what ``observed_at`` refers to."""
        return self._played.count

    @property
    def next_image_stamp(self) -> Any:
        """The image stamp of the action that the next ``tick`` would play, to judge its age before; None: nothing."""
        coming = self._repeating or self._next_action()
        return coming[0].image_stamp if coming else None

    @property
    def due(self) -> bool:
        """Whether the next inference is due.

        It is where m actions of the chunk were played (m automatic: as many as it says), or it is exhausted or absent;
        earlier where no more are left than begin within ``latency``: the answer then comes before they are used up.
        """
        if self._chunk is None:
            return True
        left = self._chunk.observed_at + len(self._chunk.actions) - self.actions_played
        needed = actions_during(self.latency, self._action.time_step)
        wanted = self._control.actions_per_inference
        return left <= needed or self._chunk_played >= (wanted if wanted != AUTOMATIC else self._chunk.actions_to_play)

    @property
    def _repeating(self) -> tuple[_Chunk, int] | None:
        """The action at hand where it has ticks left."""
        return self._playing if self._ticks_done < self._ticks_per_action else None

    def _next_action(self) -> tuple[_Chunk, int] | None:
        if self._chunk is None:
            return None
        index = self.actions_played - self._chunk.observed_at
        return (self._chunk, index) if index < len(self._chunk.actions) else None

    def _interrupted(self) -> None:
        self._played.interrupt()
        self._last = None
        self.image_stamp = None


@dataclass(frozen=True, eq=False)
class Command(AnyCommand):
    """What the end effector is told for one tick."""

    linear: Vector  # (3,) m/s
    angular: Vector  # (3,) rad/s, rotation vector
    translation: Vector  # (3,) m over the policy's time step, after scale, ramp and limits
    rotation: Vector  # (3,) rad over the policy's time step, after scale, ramp and limits

    @property
    def moving(self) -> bool:
        """Whether the twist is not zero."""
        return bool(self.linear.any() or self.angular.any())


class Commander(ChunkPlayer[Command]):
    """Plays the chunks of a policy that moves an end effector. A stop is a zero twist.

    Attributes:
        place: where the end effector is, as known for the next ``tick``; only ``safety.workspace_box`` asks.
    """

    _limiter: Limiter

    def __init__(self, action: ActionSpec, control: ControlSettings, safety: SafetySettings) -> None:
        """Make a commander for motions of an end effector.

        Raises:
            SettingError: the actions are of another kind; or see ``configure``.
        """
        require_end_effector(action, "a twist")
        self._limiter = Limiter(action)
        self.place: Place | None = None
        super().__init__(action, control, safety)

    def brake(self, reason: str) -> Command:
        """Slow down for a tick with nothing to play, to a zero twist in the end; nothing is dropped, the gripper holds.

        The change of speed is within ``safety.max_linear_acceleration`` and ``max_angular_acceleration``.
        """
        linear, angular, limits = self._limiter.brake(self._control, self._safety, self.place)
        return self._command(linear, angular, unplayed(limits, reason))

    def _limited(self, action: FloatArray, new_chunk: bool, ticks_left: int, fields: dict[str, Any]) -> Command:
        motion = self._limiter.limit(action, self._control, self._safety, new_chunk, self.place)
        own = {"gripper": motion.gripper, "limits": motion.limits}
        return self._command(motion.linear, motion.angular, fields | own)

    def _standing(self, reason: str) -> Command:
        return self._command(np.zeros(3), np.zeros(3), unplayed((), reason))

    def _command(self, linear: Vector, angular: Vector, fields: dict[str, Any]) -> Command:
        step = self._action.time_step
        return Command(linear=linear, angular=angular, translation=linear * step, rotation=angular * step, **fields)


class PlayedActions:
    """Collects actions until they are taken.

    Attributes:
        count: actions since ``clear``, those taken included.
    """

    def __init__(self, dimensions: int) -> None:
        """Collect actions of ``dimensions`` values."""
        self._dimensions = dimensions
        self.clear()

    def clear(self) -> None:
        """Forget everything: a new episode."""
        self._actions: list[FloatArray] = []
        self._gaps: list[int] = []
        self._gap_before_next = False
        self.count = 0

    def add(self, action: FloatArray) -> None:
        """Note that ``action`` (A,) is played, as the policy gave it."""
        if self._gap_before_next:
            self._gaps.append(len(self._actions))
        self._gap_before_next = False
        self._actions.append(action.copy())
        self.count += 1

    def interrupt(self) -> None:
        """Note that the arm stood still, by an underrun or a stop; before the first action of all it is no gap."""
        self._gap_before_next = self.count > 0

    def take(self) -> tuple[FloatArray, tuple[int, ...]]:
        """Hand over, once, the actions since the last call.

        Returns:
            Actions (n, A), n may be 0, and the places i, ascending in 0 .. n - 1, of those before which the arm stood
            still: no difference is to be taken across them.
        """
        actions, gaps = self._actions, tuple(self._gaps)
        self._actions, self._gaps = [], []
        if not actions:
            return np.zeros((0, self._dimensions), np.float32), ()
        return np.stack(actions), gaps
