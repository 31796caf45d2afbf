"""What bounds every command to joints: position, velocity, acceleration, the first step. numpy only.

Each joint by itself, in radians and metres. Within all limits a target goes out as the policy gave it. Otherwise:

- A target is clipped to ``safety.joint.min_position`` and ``max_position``. The speed towards it is at most
  ``max_velocity`` and differs from that of the tick before by at most ``max_acceleration`` times the tick. A joint that
  lags behind catches up no faster than it can be slowed to the targets' own velocity in time: it does not overshoot.
- Where ``control.rate`` repeats an action its target is gone to in even steps and reached at the last.
- In front of a position limit no joint moves faster than it can be braked within ``max_acceleration``, so that
  velocity, acceleration and position hold at once. A joint that is measured outside its limits moves back inside only.
- The first target after activation lies at most ``safety.max_first_step`` from the measured position, and the motion
  begins there, at rest.
- ``control.action_scale`` and ramp-in make the largest velocity of targets smaller, and velocities themselves: an
  absolute target is never scaled, since a half of it is another place.

Of a velocity policy the room to a position limit is judged from the position last measured. Limits that are lowered
during motion hold at once, also where that brakes harder than the others allow. A stop holds the last target, or is
zero velocity, at once. Not a safety-rated function.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.control.gripper import GripperLimiter
from dysl_vla_ros.control.ramp import Ramp
from dysl_vla_ros.errors import NonFiniteActionError
from dysl_vla_ros.interfaces import JOINT_POSITION, ActionSpec, FloatArray
from dysl_vla_ros.joint_units import UnitScale
from dysl_vla_ros.robot_contract import JointLimits
from dysl_vla_ros.settings import ControlSettings, SafetySettings

Vector = NDArray[np.float64]
ROUNDING = 1e-9  # relative; what was limited is not reported as above its limit


@dataclass(frozen=True, eq=False)
class Measured:
    """Where the joints were."""

    positions: Vector  # (J,) rad or m, in the order of the actions
    age: float  # s since the oldest of them was measured


@dataclass(frozen=True, eq=False)
class JointMotion:
    """An action as it may be commanded."""

    positions: Vector | None  # (J,) rad or m; None of a velocity policy
    velocities: Vector  # (J,) rad/s or m/s that the command moves with
    gripper: float | None  # opening 0..1; None: the policy has none
    limits: tuple[str, ...]  # names of the settings that changed the action, in the order they acted


@dataclass(frozen=True, eq=False)
class _Bounds:
    """The settings as arrays, for one tick."""

    low: Vector  # (J,) rad or m
    high: Vector
    speed: Vector  # (J,) a second
    acceleration: Vector  # (J,) a second squared
    tick: float  # s

    @property
    def change(self) -> Vector:
        """Largest change of the velocity in a tick."""
        return self.acceleration * self.tick

    def brakable(self, room: Vector) -> Vector:
        """Return the largest speed (J,) of a tick from which ``room`` (J,) suffices to stop in."""
        room = np.maximum(room, 0.0)
        return 2.0 * self.acceleration * room / (self.change + np.sqrt(self.change**2 + 2.0 * self.acceleration * room))


class JointLimiter:
    """Remembers the command before, so that the next one can be bounded against it."""

    def __init__(self, action: ActionSpec) -> None:
        """Begin with nothing commanded and nothing measured."""
        self._action = action
        self._targets = action.kind == JOINT_POSITION
        scale = UnitScale(action.units, action.low, action.high, action.gripper_index)
        self._joints = list(action.joint_indices)
        if not self._targets:
            scale.offset[self._joints] = 0.0
        self._scale = scale
        self._ramp = Ramp()
        self.gripper = GripperLimiter()
        self.forget()

    def forget(self) -> None:
        """Begin anew, after an activation: the next target starts from the measured position, at rest."""
        self._held: Vector | None = None  # (J,) the last target that was commanded
        self.rest()
        self._ramp.again()

    def rest(self) -> None:
        """The joints were told to stand still: the next motion starts from rest."""
        self._aim: Vector | None = None  # (J,) where the last target should have been; None: where it was
        self._velocities: Vector = np.zeros(len(self._joints))

    def ramp_again(self) -> None:
        """Ramp in from here. The last command stays known."""
        self._ramp.again()

    @property
    def started(self) -> bool:
        """Whether a target was commanded since :meth:`forget`."""
        return self._held is not None

    def held(self, measured: Measured | None) -> Vector | None:
        """Return what a stop holds: the last target, the measured position where there was none; None: neither."""
        if not self._targets:
            return None
        if self._held is not None:
            return self._held.copy()
        return None if measured is None else measured.positions.copy()

    def limit(
        self,
        action: FloatArray,
        control: ControlSettings,
        safety: SafetySettings,
        joints: JointLimits,
        measured: Measured | None,
        ticks: int = 1,
    ) -> JointMotion:
        """Bound one tick of ``action`` (A,), the checkpoint's units, and remember it as the command before the next.

        Args:
            action: as the policy gave it.
            control: rate, scale, ramp-in.
            safety: of the gripper.
            joints: limits of each joint, and the first step.
            measured: where the joints are. Needed by the first target of all, and by velocities near a limit: without
                it these are zero.
            ticks: that the action has left, this one included: a target is reached at its last.

        Raises:
            NonFiniteActionError: a value is NaN or infinite; nothing is remembered.
        """
        if not np.all(np.isfinite(action)):
            raise NonFiniteActionError(f"the action {np.asarray(action).tolist()} is not finite and is not played")
        acted: list[str] = []
        bounds = _bounds(joints, control)
        values = self._scale.to_si(action)
        factor = self._ramp.factor(control, acted)
        wanted = values[self._joints]
        if self._targets:
            first = None if self.started or measured is None else joints.max_first_step
            before = self.held(measured)
            assert before is not None, "the first target starts from a measurement"
            positions, velocities = self._approach(wanted, before, bounds, factor, ticks, first, acted)
            self._held = positions.copy()
        else:
            positions, velocities = None, self._bounded(factor * wanted, bounds, bounds.speed, acted)
            velocities = self._before_walls(velocities, bounds, measured, acted)
        self._velocities = velocities.copy()
        self._ramp.moved(control)
        gripper = None
        if self._action.gripper_index is not None:
            step = safety.max_gripper_speed * bounds.tick
            gripper = self.gripper.limit(float(values[self._action.gripper_index]), step, acted)
        return JointMotion(positions, velocities, gripper, tuple(acted))

    def brake(self, control: ControlSettings, joints: JointLimits, measured: Measured | None) -> JointMotion:
        """Shrink the last motion towards standing still for one tick, and remember that."""
        acted: list[str] = []
        bounds = _bounds(joints, control)
        self._aim = None
        velocities = self._bounded(np.zeros(len(self._joints)), bounds, bounds.speed, acted)
        positions = self.held(measured)
        if not self._targets:
            velocities = self._before_walls(velocities, bounds, measured, acted)
        elif positions is not None and self.started:
            velocities = _between(velocities, positions, bounds, acted)
            positions = _inside(positions + velocities * bounds.tick, positions, bounds)
            self._held = positions.copy()
        self._velocities = velocities.copy()
        return JointMotion(positions, velocities, None, tuple(acted))

    def _approach(
        self,
        wanted: Vector,
        before: Vector,
        bounds: _Bounds,
        factor: float,
        ticks: int,
        first_step: float | None,
        acted: list[str],
    ) -> tuple[Vector, Vector]:
        """Return targets (J,) for one tick from ``before`` nearer to ``wanted``, and the velocities towards them."""
        target = np.clip(wanted, bounds.low, bounds.high)
        for name, clipped in (("min", target > wanted), ("max", target < wanted)):
            if clipped.any():
                acted.append(f"safety.joint.{name}_position")
        aimed = before if self._aim is None else self._aim
        aim = target if ticks == 1 else aimed + (target - aimed) / ticks
        lag = aimed - before  # what earlier ticks could not do
        caught_up = np.maximum(bounds.brakable(np.abs(lag)), np.minimum(np.abs(lag) / bounds.tick, bounds.change))
        wanted = (aim - aimed) / bounds.tick + np.sign(lag) * caught_up
        velocities = _between(self._bounded(wanted, bounds, factor * bounds.speed, acted), before, bounds, acted)
        exact = (aim - before) / bounds.tick
        reached = np.abs(velocities - exact) <= ROUNDING * np.abs(exact)
        if not reached.all() and not any(name.startswith("safety.joint.") for name in acted):
            acted.append("safety.joint.max_acceleration")  # it catches up as fast as it can be braked
        positions = np.where(reached, aim, before + velocities * bounds.tick)
        self._aim = aim
        if first_step is not None:
            near = np.clip(positions, before - first_step, before + first_step)
            if (near != positions).any():
                acted.append("safety.max_first_step")
            positions = near
        positions = _inside(positions, before, bounds)
        return positions, (positions - before) / bounds.tick

    def _bounded(self, wanted: Vector, bounds: _Bounds, speed: Vector, acted: list[str]) -> Vector:
        """Return velocities (J,) within ``speed``, and within the acceleration limit of those before."""
        velocities = np.clip(wanted, -speed, speed)
        if (np.abs(wanted) > speed * (1.0 + ROUNDING)).any():
            acted.append("safety.joint.max_velocity")
        allowed = np.clip(velocities, self._velocities - bounds.change, self._velocities + bounds.change)
        if not np.allclose(allowed, velocities, rtol=ROUNDING, atol=0.0):
            acted.append("safety.joint.max_acceleration")
        return np.clip(allowed, -bounds.speed, bounds.speed)  # the limit may have been lowered since

    def _before_walls(self, velocities: Vector, bounds: _Bounds, measured: Measured | None, acted: list[str]) -> Vector:
        """Return velocities (J,) that keep the measured joints within their positions; unknown ones stand still."""
        if measured is None:
            acted.append("safety.joint.max_position")
            return np.zeros_like(velocities)
        ahead = measured.positions + self._velocities * measured.age
        return _between(velocities, ahead, bounds, acted)


def _bounds(joints: JointLimits, control: ControlSettings) -> _Bounds:
    low, high, speed, acceleration = (
        np.array(values, np.float64)
        for values in (joints.min_position, joints.max_position, joints.max_velocity, joints.max_acceleration)
    )
    return _Bounds(low, high, speed, acceleration, 1.0 / control.rate)


def _between(velocities: Vector, positions: Vector, bounds: _Bounds, acted: list[str]) -> Vector:
    """Return velocities (J,) from which every joint can still be braked in front of its limits."""
    highest, lowest = bounds.brakable(bounds.high - positions), -bounds.brakable(positions - bounds.low)
    for name, over in (
        ("max", velocities > highest + ROUNDING * bounds.speed),
        ("min", velocities < lowest - ROUNDING * bounds.speed),
    ):
        if over.any() and f"safety.joint.{name}_position" not in acted:
            acted.append(f"safety.joint.{name}_position")
    return np.clip(velocities, lowest, highest)


def _inside(positions: Vector, before: Vector, bounds: _Bounds) -> Vector:
    """Return positions (J,) without what rounding put outside the limits, where the joint was inside before."""
    was_inside = (before >= bounds.low) & (before <= bounds.high)
    return np.where(was_inside, np.clip(positions, bounds.low, bounds.high), positions)


def joint_limit_faults(joints: JointLimits, action: ActionSpec) -> list[str]:
    """Return what is wrong with the limits of the joints that a policy commands, each with its parameter.

    Args:
        joints: the settings.
        action: the policy's; of an end effector nothing is needed.
    """
    if not action.moves_joints:
        return []
    order = f"{len(action.joints)} in the order {', '.join(action.joints)}"
    faults, given = [], {}
    for name in ("min_position", "max_position", "max_velocity", "max_acceleration"):
        values = given[name] = getattr(joints, name)
        if len(values) != len(action.joints):
            faults.append(f"safety.joint.{name} has {len(values)} values, expected {order}")
        faults += [
            f"safety.joint.{name}[{index}] is {value}, expected a finite number"
            for index, value in enumerate(values)
            if not math.isfinite(value)
        ]
        if name in ("max_velocity", "max_acceleration"):
            faults += [
                f"safety.joint.{name}[{index}] is {value:g}, expected one above 0"
                for index, value in enumerate(values)
                if value <= 0.0
            ]
    if faults:
        return faults
    return [
        f"safety.joint.min_position[{index}] is {low:g} and max_position[{index}] {high:g}: the first must be below"
        for index, (low, high) in enumerate(zip(given["min_position"], given["max_position"], strict=True))
        if low >= high
    ]
