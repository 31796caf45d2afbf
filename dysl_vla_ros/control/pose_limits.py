"""What bounds every command to an end effector that takes absolute poses: speed, acceleration, box, the first step.

Translation and rotation by themselves, each as a vector that keeps its direction; a rotation is the rotation vector
from one orientation to the next. Within all limits a target goes out as the policy gave it. Otherwise:

- The speed towards a target is at most ``safety.max_linear_speed`` and ``max_angular_speed``, and differs from that of
  the tick before by at most ``max_linear_acceleration`` and ``max_angular_acceleration`` times the tick. A pose that
  lags behind catches up no faster than it can be slowed to the targets' own velocity in time.
- Where ``control.rate`` repeats an action its target is gone to in even steps and reached at the last.
- Targets and commands are clipped to ``safety.workspace_box``, each axis by itself; a wall holds at once, also where
  that brakes harder than the other limits allow. A pose that is measured outside only moves back inside.
- The first target after activation lies at most ``safety.max_first_step`` from the measured pose, in m and in rad, and
  the motion begins there, at rest.
- ``control.action_scale`` and ramp-in make the largest speed smaller: a target is never scaled, since a half of it is
  another place.

Limits that are lowered during motion hold at once. A stop holds the last target, at once. numpy only. Not a
safety-rated function.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.control.gripper import GripperLimiter
from dysl_vla_ros.control.limits import box, shortened
from dysl_vla_ros.control.ramp import Ramp
from dysl_vla_ros.errors import NonFiniteActionError
from dysl_vla_ros.interfaces import ActionSpec, FloatArray
from dysl_vla_ros.joint_units import UnitScale
from dysl_vla_ros.poses import are_rotations, poses, turn, turned
from dysl_vla_ros.settings import ControlSettings, SafetySettings

Vector = NDArray[np.float64]
ROUNDING = 1e-9  # relative; what was limited is not reported as above its limit


@dataclass(frozen=True, eq=False)
class Pose:
    """A pose in the frame of the actions."""

    position: Vector  # (3,) m
    orientation: Vector  # (4,) x, y, z, w, of length 1


@dataclass(frozen=True, eq=False)
class PoseMotion:
    """An action as it may be commanded."""

    pose: Pose | None  # None: none was commanded, and none is measured
    linear: Vector  # (3,) m/s that the command moves with
    angular: Vector  # (3,) rad/s
    gripper: float | None  # opening 0..1; None: the policy has none
    limits: tuple[str, ...]  # names of the settings that changed the action, in the order they acted


class PoseLimiter:
    """Remembers the command before, so that the next one can be bounded against it."""

    def __init__(self, action: ActionSpec) -> None:
        """Begin with nothing commanded and nothing measured."""
        self._action = action
        self._scale = UnitScale(action.units, (), (), action.gripper_index)
        self._ramp = Ramp()
        self._translation = _Part("linear", lambda here, there: there - here, lambda here, way: here + way)
        self._rotation = _Part("angular", turn, turned)
        self.gripper = GripperLimiter()
        self.forget()

    def forget(self) -> None:
        """Begin anew, after an activation: the next target starts from the measured pose, at rest."""
        self._held: Pose | None = None  # the last target that was commanded
        self.rest()
        self._ramp.again()

    def rest(self) -> None:
        """The end effector was told to stand still: the next motion starts from rest."""
        self._translation.rest()
        self._rotation.rest()

    def ramp_again(self) -> None:
        """Ramp in from here. The last command stays known."""
        self._ramp.again()

    @property
    def started(self) -> bool:
        """Whether a target was commanded since :meth:`forget`."""
        return self._held is not None

    def held(self, measured: Pose | None) -> Pose | None:
        """Return what a stop holds: the last target, the measured pose where there was none; None: neither."""
        return measured if self._held is None else self._held

    def limit(
        self,
        action: FloatArray,
        control: ControlSettings,
        safety: SafetySettings,
        first_step: float,
        measured: Pose | None,
        ticks: int = 1,
    ) -> PoseMotion:
        """Bound one tick of ``action`` (A,), physical units, and remember it as the command before the next.

        Args:
            action: as the policy gave it.
            control: rate, scale, ramp-in.
            safety: speeds, accelerations, the box, the gripper.
            first_step: m and rad that the first target may lie from the measured pose.
            measured: where the end effector is; needed by the first target of all.
            ticks: that the action has left, this one included: a target is reached at its last.

        Raises:
            NonFiniteActionError: a value is NaN or infinite, or there is no rotation; nothing is remembered.
        """
        require_poses(action[None], self._action, "the action")
        acted: list[str] = []
        tick = 1.0 / control.rate  # s
        position, orientation = poses(action, self._action.names)
        before = self.held(measured)
        assert before is not None, "the first target starts from a measurement"
        factor = self._ramp.factor(control, acted)
        step = math.inf if self.started else first_step
        linear = (factor, safety.max_linear_speed, safety.max_linear_acceleration)
        target = _clipped(position, None, safety, acted)
        here = self._translation.approach(target, before.position, tick, *linear, ticks, step, acted)
        here = self._walled(here, before.position, tick, safety, acted)
        angular = (factor, safety.max_angular_speed, safety.max_angular_acceleration)
        facing = self._rotation.approach(orientation, before.orientation, tick, *angular, ticks, step, acted)
        self._held = Pose(here, _nearest_sign(facing, before.orientation))
        self._ramp.moved(control)
        gripper = None
        if (place := self._action.gripper_index) is not None:
            opening = float(self._scale.to_si(action)[place])
            gripper = self.gripper.limit(opening, safety.max_gripper_speed * tick, acted)
        return self._motion(self._held, gripper, acted)

    def brake(self, control: ControlSettings, safety: SafetySettings, measured: Pose | None) -> PoseMotion:
        """Shrink the last motion towards standing still for one tick, and remember that."""
        if self._held is None:
            self.rest()
            return self._motion(measured, None, [])
        acted: list[str] = []
        tick, before = 1.0 / control.rate, self._held
        linear = (safety.max_linear_speed, safety.max_linear_acceleration)
        here = self._translation.brake(before.position, tick, *linear, acted)
        here = self._walled(here, before.position, tick, safety, acted)
        angular = (safety.max_angular_speed, safety.max_angular_acceleration)
        facing = self._rotation.brake(before.orientation, tick, *angular, acted)
        self._held = Pose(here, _nearest_sign(facing, before.orientation))
        return self._motion(self._held, None, acted)

    def _walled(self, here: Vector, before: Vector, tick: float, safety: SafetySettings, acted: list[str]) -> Vector:
        """Return the position to command where ``here`` (3,) may lie outside the box."""
        clipped = _clipped(here, before, safety, acted)
        if clipped is not here:
            self._translation.velocity = (clipped - before) / tick
        return clipped

    def _motion(self, pose: Pose | None, gripper: float | None, acted: list[str]) -> PoseMotion:
        limits = tuple(dict.fromkeys(acted))  # a wall may clip both target and command
        return PoseMotion(pose, self._translation.velocity, self._rotation.velocity, gripper, limits)


class _Part:
    """Translation or rotation of the commands: how fast they move, and where the last target should have been.

    Args:
        kind: ``linear`` or ``angular``, as the settings are called.
        way: (here, there) -> vector (3,) between two places of this part.
        moved: (here, way) -> there.
    """

    def __init__(
        self, kind: str, way: Callable[[Vector, Vector], Vector], moved: Callable[[Vector, Vector], Vector]
    ) -> None:
        self._kind, self._way, self._moved = kind, way, moved
        self.rest()

    def rest(self) -> None:
        self._aim: Vector | None = None  # None: where the command is
        self.velocity: Vector = np.zeros(3)  # a second

    def approach(
        self,
        target: Vector,
        before: Vector,
        tick: float,
        factor: float,
        speed: float,
        acceleration: float,
        ticks: int,
        step: float,
        acted: list[str],
    ) -> Vector:
        """Return the place for one tick from ``before`` nearer to ``target``, at most ``step`` away."""
        aimed = before if self._aim is None else self._aim
        aim = target if ticks == 1 else self._moved(aimed, self._way(aimed, target) / ticks)
        exact, lag = self._way(before, aim) / tick, self._way(before, aimed)  # of the lag: what earlier ticks left
        length = float(np.linalg.norm(lag))
        change = acceleration * tick
        caught_up = max(_brakable(length, acceleration, change), min(length / tick, change))
        wanted = exact
        if caught_up * tick < length * (1.0 - ROUNDING):
            wanted = self._way(aimed, aim) / tick + lag * (caught_up / length)
        velocity = self._bounded(wanted, speed, factor * speed, change, acted)
        reached = float(np.linalg.norm(velocity - exact)) <= ROUNDING * float(np.linalg.norm(exact))
        if not reached and not any(name.startswith(f"safety.max_{self._kind}") for name in acted):
            acted.append(f"safety.max_{self._kind}_acceleration")  # it catches up as fast as it can be braked
        self._aim = aim
        if float(np.linalg.norm(velocity)) * tick > step * (1.0 + ROUNDING):
            acted.append("safety.max_first_step")
            velocity, reached = shortened(velocity, step / tick), False
        self.velocity = velocity
        return aim if reached else self._moved(before, velocity * tick)

    def brake(self, before: Vector, tick: float, speed: float, acceleration: float, acted: list[str]) -> Vector:
        """Return the place for one tick of a motion that slows down."""
        self._aim = None
        self.velocity = self._bounded(np.zeros(3), speed, speed, acceleration * tick, acted)
        return self._moved(before, self.velocity * tick) if self.velocity.any() else before

    def _bounded(self, wanted: Vector, speed: float, most: float, change: float, acted: list[str]) -> Vector:
        """Return a velocity (3,) of at most ``most``, no further than ``change`` from the one before."""
        target = shortened(wanted, most)
        if float(np.linalg.norm(wanted)) > most * (1.0 + ROUNDING):
            acted.append(f"safety.max_{self._kind}_speed")
        difference = target - self.velocity
        if float(np.linalg.norm(difference)) > change * (1.0 + ROUNDING):
            acted.append(f"safety.max_{self._kind}_acceleration")
            target = self.velocity + shortened(difference, change)
        return shortened(target, speed)  # the limit may have been lowered since


def require_poses(actions: FloatArray, spec: ActionSpec, what: str) -> None:
    """Refuse actions (n, A) of which one is no pose.

    Raises:
        NonFiniteActionError: a value is NaN or infinite, or the columns of one say no rotation; begins with ``what``.
    """
    if not np.all(np.isfinite(actions)):
        raise NonFiniteActionError(f"{what} holds NaN or infinity and is not played")
    if not (whole := are_rotations(actions, spec.names)).all():
        raise NonFiniteActionError(
            f"{what} is not played: the columns of its rotation matrix are too short, or parallel, in action "
            f"{int(np.argmin(whole))}"
        )


def _brakable(room: float, acceleration: float, change: float) -> float:
    """Return the largest speed from which ``room`` suffices to stop in, ``change`` slower from tick to tick."""
    return 2.0 * acceleration * room / (change + math.sqrt(change**2 + 2.0 * acceleration * room))


def _clipped(place: Vector, before: Vector | None, safety: SafetySettings, acted: list[str]) -> Vector:
    """Return ``place`` (3,) inside the box, itself where it is; outside no further than ``before``, None: nowhere."""
    if not safety.workspace_box:
        return place
    low, high = (np.array(ends) for ends in zip(*box(safety), strict=True))
    if before is not None:
        low, high = np.minimum(low, before), np.maximum(high, before)
    clipped = np.clip(place, low, high)
    for axis in range(3):
        if clipped[axis] != place[axis]:
            acted.append(f"safety.workspace_{'min' if clipped[axis] > place[axis] else 'max'}_{'xyz'[axis]}")
    return place if (clipped == place).all() else clipped


def _nearest_sign(orientation: Vector, before: Vector) -> Vector:
    """Return the nearer one of an orientation's two quaternions: a controller may interpolate their values."""
    return -orientation if float(orientation @ before) < 0.0 else orientation
