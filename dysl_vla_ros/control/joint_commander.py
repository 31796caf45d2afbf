"""Plays the chunks of a policy that moves joints: targets or velocities of each joint a tick, and a gripper's opening.

A stop of a position arm holds the last target that was commanded, the measured position where none was; that of a
velocity arm is zero velocity. Zeros are never the stop of a position arm: they are a place to go to.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.control.commander import AnyCommand, ChunkPlayer, unplayed
from dysl_vla_ros.control.joint_limits import JointLimiter, JointMotion, Measured, joint_limit_faults
from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.interfaces import JOINT_POSITION, ActionSpec, FloatArray
from dysl_vla_ros.robot_contract import JointLimits
from dysl_vla_ros.settings import ControlSettings, SafetySettings

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class JointCommand(AnyCommand):
    """What the joints are told for one tick, in the order of ``ActionSpec.joints``."""

    positions: Vector | None  # (J,) rad or m: targets; None of a velocity arm, and where no position is known to hold
    velocities: Vector  # (J,) rad/s or m/s that the command moves with

    @property
    def moving(self) -> bool:
        """Whether a joint is to move."""
        return bool(self.velocities.any())


class JointCommander(ChunkPlayer[JointCommand]):
    """Plays the chunks of a policy that moves joints.

    Attributes:
        measured: where the joints are, as known for the next call; None: unknown.
    """

    _limiter: JointLimiter

    def __init__(
        self, action: ActionSpec, control: ControlSettings, safety: SafetySettings, limits: JointLimits
    ) -> None:
        """Make a commander for actions of joints within ``limits``.

        Raises:
            SettingError: the limits are not those of the policy's joints; or see ``configure``.
        """
        assert action.moves_joints, "an end effector has a Commander"
        if faults := joint_limit_faults(limits, action):
            raise SettingError("; ".join(faults))
        self._limits = limits
        self._limiter = JointLimiter(action)
        self._targets = action.kind == JOINT_POSITION
        self.measured: Measured | None = None
        super().__init__(action, control, safety)

    def enter(self) -> None:
        """Begin after an activation: the first target starts from the measured position."""
        super().enter()
        self.measured = None
        self._limiter.forget()

    def tick(self) -> JointCommand | None:
        """Return this tick's command; None: nothing to play.

        Where no target was commanded and the joints' positions are not known, the command is a stop that says so.
        """
        if self._targets and not self._limiter.started and self.measured is None:
            return self.stop(f"the positions of {', '.join(self._action.joints)} are not known")
        return super().tick()

    def brake(self, reason: str) -> JointCommand:
        """Slow down for a tick with nothing to play; nothing is dropped, the gripper holds.

        The change of velocity is within ``safety.joint.max_acceleration``.
        """
        motion = self._limiter.brake(self._control, self._limits, self.measured)
        return self._command(motion, unplayed(motion.limits, reason))

    def _limited(self, action: FloatArray, new_chunk: bool, ticks_left: int, fields: dict[str, Any]) -> JointCommand:
        motion = self._limiter.limit(action, self._control, self._safety, self._limits, self.measured, ticks_left)
        return self._command(motion, fields | {"gripper": motion.gripper, "limits": motion.limits})

    def _standing(self, reason: str) -> JointCommand:
        held = self._limiter.held(self.measured)
        standing = JointMotion(held, np.zeros(len(self._action.joints)), None, ())
        return self._command(standing, unplayed((), reason))

    def _command(self, motion: JointMotion, fields: dict[str, Any]) -> JointCommand:
        return JointCommand(positions=motion.positions, velocities=motion.velocities, **fields)
