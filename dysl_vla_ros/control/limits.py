"""What bounds every command: scale, ramp-in, speed, seams between chunks, acceleration, gripper. numpy only.

Order: ``action_scale`` and ramp-in make the motion smaller, then the speed limit shortens it, then a new chunk is
joined to the command before (``seam``), then the acceleration limit bounds the change from one tick to the next;
directions are kept by shortening vectors, not single axes. Last, the workspace box clips single axes (``workspace``).
A speed limit that is lowered during motion, and a wall of the box, hold at once, also where that brakes harder than the
other limits allow. Where nothing is there to play it shrinks to zero within the acceleration limit (``brake``); a
stop is a zero twist at once.

The gripper is not blended at a seam: its action is a position to go to, mostly open or closed, and a half-way one would
be a loosened grasp that no chunk asked for. ``safety.max_gripper_speed`` alone says how fast it gets there.
"""

from dataclasses import dataclass

import numpy as np

from dysl_vla_ros.control.seam import ROUNDING, SeamBlend, Vector, shortened
from dysl_vla_ros.control.workspace import Place, kept_inside
from dysl_vla_ros.errors import NonFiniteActionError
from dysl_vla_ros.interfaces import ActionSpec, FloatArray
from dysl_vla_ros.settings import ControlSettings, SafetySettings


@dataclass(frozen=True, eq=False)
class LimitedMotion:
    """An action as it may be commanded."""

    linear: Vector  # (3,) m/s
    angular: Vector  # (3,) rad/s
    gripper: float  # opening 0..1
    limits: tuple[str, ...]  # names of the settings that changed the action, in the order they acted


class Limiter:
    """Remembers the command before, so that the next one can be bounded against it. Starts at rest."""

    def __init__(self, action: ActionSpec) -> None:
        self._action = action
        self._gripper: float | None = None
        self._linear_part, self._angular_part = _Part("linear"), _Part("angular")
        self.rest()
        self.ramp_again()

    def rest(self) -> None:
        """The arm was told to stand still for this tick: the next motion starts from rest."""
        self._linear_part.rest()
        self._angular_part.rest()
        self._interrupted = True

    def ramp_again(self) -> None:
        """Ramp in from here. The last command stays known: only a zero twist (``rest``) brings the arm to rest."""
        self._moving_for = 0.0  # s of commanded motion since the ramp began

    def set_gripper(self, opening: float | None) -> None:
        """Say where the gripper is; None or not finite: unknown, the next command is not rate-limited."""
        self._gripper = float(np.clip(opening, 0.0, 1.0)) if opening is not None and np.isfinite(opening) else None

    def limit(
        self,
        action: FloatArray,
        control: ControlSettings,
        safety: SafetySettings,
        new_chunk: bool = False,
        place: Place | None = None,
    ) -> LimitedMotion:
        """Bound one tick of ``action`` (A,), physical units, and remember it as the command before the next.

        Args:
            action: as the policy gave it.
            control: scale, ramp-in, bounds at a seam.
            safety: limits of speed, acceleration, gripper, place.
            new_chunk: the command before came from another chunk.
            place: where the end effector is; only the workspace box asks.

        Raises:
            NonFiniteActionError: a value is NaN or infinite; nothing is remembered.
        """
        if not np.all(np.isfinite(action)):
            raise NonFiniteActionError(f"the action {np.asarray(action).tolist()} is not finite and is not played")
        tick = 1.0 / control.rate  # s
        acted: list[str] = []
        factor = self._factor(control, tick, acted)
        values = np.asarray(action, dtype=np.float64)
        velocity = factor * values[:-1] / self._action.time_step
        linear, angular = velocity[:3], velocity[3:] if self._action.has_rotation else np.zeros(3)
        joint = new_chunk or self._interrupted
        linear_bounds = (safety.max_linear_speed, control.max_linear_seam, safety.max_linear_acceleration * tick)
        linear = self._linear_part.limit(linear, *linear_bounds, joint, acted)
        linear, walls = kept_inside(linear, place, tick, safety)
        if walls:
            acted += walls
            self._linear_part.commanded(linear)
        angular_bounds = (safety.max_angular_speed, control.max_angular_seam, safety.max_angular_acceleration * tick)
        angular = self._angular_part.limit(angular, *angular_bounds, joint, acted)
        gripper = float(np.clip(values[-1], 0.0, 1.0))
        if self._gripper is not None:
            step = safety.max_gripper_speed * tick
            reachable = float(np.clip(gripper, self._gripper - step, self._gripper + step))
            if reachable != gripper:
                acted.append("safety.max_gripper_speed")
            gripper = reachable
        self._gripper = gripper
        self._interrupted = False
        self._moving_for += tick
        return LimitedMotion(linear.copy(), angular.copy(), gripper, tuple(acted))

    def brake(
        self, control: ControlSettings, safety: SafetySettings, place: Place | None
    ) -> tuple[Vector, Vector, tuple[str, ...]]:
        """Shrink the last command towards zero for one tick, and remember that.

        Returns:
            Linear (3,) m/s and angular velocity (3,) rad/s, and the names of the settings that kept them from zero or
            changed them.
        """
        tick = 1.0 / control.rate  # s
        acted: list[str] = []
        linear = self._linear_part.brake(safety.max_linear_speed, safety.max_linear_acceleration * tick, acted)
        linear, walls = kept_inside(linear, place, tick, safety)
        if walls:
            acted += walls
            self._linear_part.commanded(linear)
        angular = self._angular_part.brake(safety.max_angular_speed, safety.max_angular_acceleration * tick, acted)
        self._interrupted = True
        return linear.copy(), angular.copy(), tuple(acted)

    def _factor(self, control: ControlSettings, tick: float, acted: list[str]) -> float:
        """Return the factor on translation and rotation; the first tick of a ramp already moves a little."""
        factor = control.action_scale
        if control.action_scale != 1.0:
            acted.append("control.action_scale")
        grown = self._moving_for + tick
        if grown < control.ramp_in * (1.0 - ROUNDING):
            acted.append("control.ramp_in")
            factor *= grown / control.ramp_in
        return factor


class _Part:
    """Translation or rotation: the velocity commanded before, and what is left to join of a seam."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.rest()

    def rest(self) -> None:
        self._before: Vector = np.zeros(3)
        self._blend = SeamBlend()

    def limit(self, wanted: Vector, speed: float, seam: float, change: float, joint: bool, acted: list[str]) -> Vector:
        """Return ``wanted`` within ``speed``, joined to the command before, at most ``change`` away from it."""
        target = shortened(wanted, speed)
        if target is not wanted:
            acted.append(f"safety.max_{self._kind}_speed")
        velocity = self._blend.blend(target, self._before, seam, joint)
        if velocity is not target:
            acted.append(f"control.max_{self._kind}_seam")
        difference = velocity - self._before
        allowed = shortened(difference, change)
        if allowed is not difference:
            acted.append(f"safety.max_{self._kind}_acceleration")
            velocity = self._before + allowed
        # Between two velocities within the speed limit lies none above it, but an offset goes on beside a chunk that
        # moves on, and the limit may have been lowered since.
        self._before = shortened(velocity, speed)
        return self._before

    def brake(self, speed: float, change: float, acted: list[str]) -> Vector:
        """Return the velocity before, at most ``change`` nearer to zero and within ``speed``."""
        self._blend = SeamBlend()
        slowed = shortened(self._before, change)
        if slowed is not self._before:
            acted.append(f"safety.max_{self._kind}_acceleration")
        self._before = shortened(self._before - slowed, speed)
        return self._before

    def commanded(self, velocity: Vector) -> None:
        """Say what was commanded in place of what ``limit`` returned."""
        self._before = velocity
