"""Plays the chunks of a policy that moves an end effector: a twist and a gripper's opening a tick.

Node, demonstration and evaluation use this same class; how chunks are played is
:mod:`~dysl_vla_ros.control.chunk_player`'s.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.control.chunk_player import AnyCommand, ChunkPlayer, unplayed
from dysl_vla_ros.control.kinds import require_end_effector
from dysl_vla_ros.control.limits import Limiter, Place
from dysl_vla_ros.interfaces import ActionSpec, FloatArray
from dysl_vla_ros.settings import ControlSettings, SafetySettings

Vector = NDArray[np.float64]


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
    """See :class:`~dysl_vla_ros.control.chunk_player.ChunkPlayer`. A stop is a zero twist.

    Attributes:
        place: where the end effector is, as known for the next ``tick``; only ``safety.workspace_box`` asks.
    """

    def __init__(self, action: ActionSpec, control: ControlSettings, safety: SafetySettings) -> None:
        """Make a commander for actions of an end effector.

        Raises:
            SettingError: the actions are of joints; or see ``configure``.
        """
        require_end_effector(action, "a twist")
        self._limiter = Limiter(action)
        self.place: Place | None = None
        super().__init__(action, control, safety)

    def set_gripper(self, opening: float) -> None:
        """Say where the gripper is before the first command, so that this one is rate-limited too."""
        self._limiter.set_gripper(opening)

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

    def _ramp_again(self) -> None:
        self._limiter.ramp_again()

    def _rest(self) -> None:
        self._limiter.rest()
