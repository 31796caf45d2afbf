"""What bounds every command: scale, ramp-in, speed, seams between chunks, acceleration, workspace, gripper. numpy only.

Order: ``action_scale`` and ramp-in make the motion smaller, then the speed limit shortens it, then a new chunk is
joined to the command before (:class:`SeamBlend`), then the acceleration limit bounds the change from one tick to the
next; directions are kept by shortening vectors, not single axes. Last, the workspace box clips single axes
(:func:`kept_inside`). A speed limit that is lowered during motion, and a wall of the box, hold at once, also where that
brakes harder than the other limits allow. Where nothing is there to play it shrinks to zero within the acceleration
limit (``brake``); a stop is a zero twist at once.

Two chunks answer two pictures: where the second takes over, its action may differ from what is being commanded. The
first command of a chunk therefore differs from the command before by no more than a bound; what is left of the
difference is an offset on the chunk's own commands, which shrinks by as much from tick to tick until it is gone. So the
arm follows the new chunk's shape at once and its values soon, and there is never a step above the bound that the policy
did not ask for within one chunk.

The workspace box: motion that would leave it is clipped, motion back into it never. Each axis by itself, so that the
arm slides along a wall. The room that is left is judged from the position last measured, over the time since that
measurement and the coming tick: an arm that nears a wall slows down in front of it. Only the end effector's own point
is kept inside, no link, tool or held object. Not a safety-rated function.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.control.gripper import GripperLimiter
from dysl_vla_ros.control.ramp import Ramp
from dysl_vla_ros.errors import NonFiniteActionError
from dysl_vla_ros.interfaces import END_EFFECTOR_POSE, ActionSpec, FloatArray, ProprioceptionSpec
from dysl_vla_ros.settings import ControlSettings, SafetySettings

Vector = NDArray[np.float64]
ROUNDING = 1e-12  # relative; a vector that was shortened to its limit is not reported as above it
POSITION = ("ee.x", "ee.y", "ee.z")


@dataclass(frozen=True, eq=False)
class Place:
    """Where the end effector was."""

    position: Vector  # (3,) m, in the frame of the actions
    age: float  # s since it was measured


class SeamBlend:
    """The offset of one part of the motion, translation or rotation."""

    def __init__(self) -> None:
        """Begin without an offset."""
        self._offset: Vector = np.zeros(3)

    def blend(self, wanted: Vector, before: Vector, bound: float, joint: bool) -> Vector:
        """Return what to command for one tick: ``wanted`` itself, the same object, where nothing is left to join.

        Args:
            wanted: (3,) velocity by the chunk.
            before: (3,) velocity commanded in the tick before; zero where the arm stood still.
            bound: longest change at a joint, and of the offset in a tick, in the unit of ``wanted``; 0: none.
            joint: this is the first tick of a chunk, or the first after standing still.
        """
        if bound == 0.0:
            self._offset = np.zeros(3)
            return wanted
        difference = wanted - before if joint else -self._offset
        allowed = shortened(difference, bound)
        if allowed is difference:
            self._offset = np.zeros(3)
            return wanted
        self._offset = allowed - difference
        return wanted + self._offset


def shortened(vector: Vector, longest: float) -> Vector:
    """Return ``vector`` itself, or one of its direction and the length ``longest`` where it is longer."""
    largest = float(np.max(np.abs(vector), initial=0.0))
    if largest == 0.0:
        return vector
    length = largest * float(np.linalg.norm(vector / largest))  # this way it overflows for no finite action
    return vector if length <= longest * (1.0 + ROUNDING) else (vector / largest) * (longest / (length / largest))


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
        self.gripper = GripperLimiter()
        self._ramp = Ramp()
        self._linear_part, self._angular_part = _Part("linear"), _Part("angular")
        self.rest()

    def rest(self) -> None:
        """The arm was told to stand still for this tick: the next motion starts from rest."""
        self._linear_part.rest()
        self._angular_part.rest()
        self._interrupted = True

    def ramp_again(self) -> None:
        """Ramp in from here. The last command stays known: only a zero twist (``rest``) brings the arm to rest."""
        self._ramp.again()

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
        factor = self._ramp.factor(control, acted)
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
        gripper = self.gripper.limit(float(values[-1]), safety.max_gripper_speed * tick, acted)
        self._interrupted = False
        self._ramp.moved(control)
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


def kept_inside(
    velocity: Vector, place: Place | None, tick: float, safety: SafetySettings
) -> tuple[Vector, tuple[str, ...]]:
    """Clip one tick of motion.

    Args:
        velocity: (3,) m/s.
        place: where the end effector was last; None: unknown, and nothing moves.
        tick: s that the velocity will hold.
        safety: the box.

    Returns:
        (3,) m/s, ``velocity`` itself where nothing is clipped, and the names of the walls that acted.
    """
    if not safety.workspace_box:
        return velocity, ()
    if place is None:
        return np.zeros(3), ("safety.workspace_box",)
    clipped, acted = velocity.copy(), []
    time = place.age + tick
    for axis, (low, high) in enumerate(box(safety)):
        slowest = -max(place.position[axis] - low, 0.0) / time
        fastest = max(high - place.position[axis], 0.0) / time
        if velocity[axis] < slowest * (1.0 + ROUNDING):
            clipped[axis] = slowest
            acted.append(f"safety.workspace_min_{'xyz'[axis]}")
        elif velocity[axis] > fastest * (1.0 + ROUNDING):
            clipped[axis] = fastest
            acted.append(f"safety.workspace_max_{'xyz'[axis]}")
    return (clipped, tuple(acted)) if acted else (velocity, ())


def box(safety: SafetySettings) -> tuple[tuple[float, float], ...]:
    """Return (low, high) in m for x, y, z."""
    return tuple((getattr(safety, f"workspace_min_{axis}"), getattr(safety, f"workspace_max_{axis}")) for axis in "xyz")


def empty_axes(safety: SafetySettings) -> str:
    """Return what is wrong with the box itself, "" where every axis has room."""
    faults = [
        f"safety.workspace_min_{axis} is {low:g} m and safety.workspace_max_{axis} {high:g} m: the first must be below"
        for axis, (low, high) in zip("xyz", box(safety), strict=True)
        if low >= high
    ]
    return "; ".join(faults) + (" (set both at once with set_parameters_atomically)" if faults else "")


def unsuitable_policy(safety: SafetySettings, proprioception: ProprioceptionSpec, action: ActionSpec) -> str:
    """Return why the box cannot be enabled with a policy, "" where it can or is not."""
    if not safety.workspace_box:
        return ""
    if action.moves_joints:
        return f"safety.workspace_box bounds an end effector; the policy's actions are {action.kind}: leave it false"
    if action.kind == END_EFFECTOR_POSE:
        return ""  # its targets are places in the box's own frame
    if absent := [name for name in POSITION if name not in proprioception.names]:
        return (
            f"safety.workspace_box needs the end effector's position; the policy does not declare {', '.join(absent)}, "
            f"its proprioception is {', '.join(proprioception.names) or 'nothing'}: leave it false"
        )
    if proprioception.frame != action.frame:
        return (
            f"safety.workspace_box needs position and actions in one frame; the policy has {proprioception.frame!r} "
            f"and {action.frame!r}: leave it false"
        )
    return ""
