"""Plays the chunks of a policy that gives absolute poses: a pose of the end effector a tick, and a gripper's opening.

A stop holds the last pose that was commanded, the measured one where none was. A pose is never taken for a motion, and
no pose is made up: where neither is known nothing goes out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.control.commander import AnyCommand, ChunkPlayer, unplayed
from dysl_vla_ros.control.pose_limits import Pose, PoseLimiter, PoseMotion, require_poses
from dysl_vla_ros.interfaces import END_EFFECTOR_POSE, ActionSpec, FloatArray
from dysl_vla_ros.settings import ControlSettings, SafetySettings

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PoseCommand(AnyCommand):
    """Where the end effector is told to be in one control period."""

    pose: Pose | None  # the target; None where none is known to hold
    linear: Vector  # (3,) m/s that the command moves with
    angular: Vector  # (3,) rad/s, rotation vector

    @property
    def moving(self) -> bool:
        """Whether the target is another one than that of the tick before."""
        return bool(self.linear.any() or self.angular.any())


class PoseCommander(ChunkPlayer[PoseCommand]):
    """Plays the chunks of a policy that gives absolute poses.

    Attributes:
        measured: where the end effector is, as known for the next call; None: unknown.
    """

    _limiter: PoseLimiter

    def __init__(
        self, action: ActionSpec, control: ControlSettings, safety: SafetySettings, max_first_step: float
    ) -> None:
        """Make a commander whose first target lies at most ``max_first_step`` (m and rad) from the measured pose.

        Raises:
            SettingError: see ``configure``.
        """
        assert action.kind == END_EFFECTOR_POSE, "another kind of action has a commander of its own"
        self._first_step = max_first_step
        self._limiter = PoseLimiter(action)
        self.measured: Pose | None = None
        super().__init__(action, control, safety)

    def enter(self) -> None:
        """Begin after an activation: the first target starts from the measured pose."""
        super().enter()
        self.measured = None
        self._limiter.forget()

    def tick(self) -> PoseCommand | None:
        """Return this tick's command; None: nothing to play.

        Where no target was commanded and the pose is not known, the command is a stop that says so.
        """
        if not self._limiter.started and self.measured is None:
            return self.stop("the pose of the end effector is not known")
        return super().tick()

    def brake(self, reason: str) -> PoseCommand:
        """Slow down for a tick with nothing to play; nothing is dropped, the gripper holds.

        The change of speed is within ``safety.max_linear_acceleration`` and ``max_angular_acceleration``.
        """
        motion = self._limiter.brake(self._control, self._safety, self.measured)
        return self._command(motion, unplayed(motion.limits, reason))

    def _require(self, actions: FloatArray, what: str) -> None:
        require_poses(actions, self._action, what)

    def _limited(self, action: FloatArray, new_chunk: bool, ticks_left: int, fields: dict[str, Any]) -> PoseCommand:
        given = (action, self._control, self._safety, self._first_step, self.measured, ticks_left)
        motion = self._limiter.limit(*given)
        return self._command(motion, fields | {"gripper": motion.gripper, "limits": motion.limits})

    def _standing(self, reason: str) -> PoseCommand:
        standing = PoseMotion(self._limiter.held(self.measured), np.zeros(3), np.zeros(3), None, ())
        return self._command(standing, unplayed((), reason))

    def _command(self, motion: PoseMotion, fields: dict[str, Any]) -> PoseCommand:
        return PoseCommand(pose=motion.pose, linear=motion.linear, angular=motion.angular, **fields)
