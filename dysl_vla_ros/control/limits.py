"""What bounds every command: scale, ramp-in, speed, acceleration, gripper. numpy only.

Order: ``action_scale`` and ramp-in make the motion smaller, then the speed limit shortens it, then the acceleration
limit bounds its change from one tick to the next; directions are kept by shortening vectors, not single axes. A speed
limit that is lowered during motion holds at once, also where that brakes harder than the acceleration limit allows. A
stop is a zero twist at once: braking is never limited.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.errors import NonFiniteActionError
from dysl_vla_ros.interfaces import ActionSpec, FloatArray
from dysl_vla_ros.settings import ControlSettings, SafetySettings

Vector = NDArray[np.float64]
ROUNDING = 1e-12  # relative; a vector that was shortened to its limit is not reported as above it


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
        self.restart()

    def rest(self) -> None:
        """The arm was told to stand still for this tick: the next motion accelerates from rest."""
        self._linear: Vector = np.zeros(3)
        self._angular: Vector = np.zeros(3)

    def restart(self) -> None:
        """Come to rest, and ramp in from here; the last gripper command is kept."""
        self.rest()
        self._moving_for = 0.0  # s of commanded motion since the start or stop

    def set_gripper(self, opening: float | None) -> None:
        """Say where the gripper is; None or not finite: unknown, the next command is not rate-limited."""
        self._gripper = float(np.clip(opening, 0.0, 1.0)) if opening is not None and np.isfinite(opening) else None

    def limit(self, action: FloatArray, control: ControlSettings, safety: SafetySettings) -> LimitedMotion:
        """Bound one tick of ``action`` (A,), physical units, and remember it as the command before the next.

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
        linear = _bounded(
            linear, self._linear, safety.max_linear_speed, safety.max_linear_acceleration * tick, "linear", acted
        )
        angular = _bounded(
            angular, self._angular, safety.max_angular_speed, safety.max_angular_acceleration * tick, "angular", acted
        )
        gripper = float(np.clip(values[-1], 0.0, 1.0))
        if self._gripper is not None:
            step = safety.max_gripper_speed * tick
            reachable = float(np.clip(gripper, self._gripper - step, self._gripper + step))
            if reachable != gripper:
                acted.append("safety.max_gripper_speed")
            gripper = reachable
        self._linear, self._angular, self._gripper = linear, angular, gripper
        self._moving_for += tick
        return LimitedMotion(linear.copy(), angular.copy(), gripper, tuple(acted))

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


def _bounded(wanted: Vector, before: Vector, speed: float, change: float, kind: str, acted: list[str]) -> Vector:
    """Return ``wanted`` with at most ``speed`` and, from ``before``, at most ``change`` of difference."""
    velocity = _shortened(wanted, speed)
    if velocity is not wanted:
        acted.append(f"safety.max_{kind}_speed")
    difference = velocity - before
    allowed = _shortened(difference, change)
    if allowed is difference:
        return velocity
    acted.append(f"safety.max_{kind}_acceleration")
    # Between two velocities within the limit lies none above it, but the limit may have been lowered since.
    return _shortened(before + allowed, speed)


def _shortened(vector: Vector, longest: float) -> Vector:
    """Return ``vector`` itself, or one of its direction and the length ``longest`` where it is longer."""
    largest = float(np.max(np.abs(vector), initial=0.0))
    if largest == 0.0:
        return vector
    length = largest * float(np.linalg.norm(vector / largest))  # this way it overflows for no finite action
    return vector if length <= longest * (1.0 + ROUNDING) else (vector / largest) * (longest / (length / largest))
