"""What the parts hand to each other: observations, action chunks, traces. numpy only, so that every side may import it.

Letters in shape comments, the same everywhere: B batch, T tokens, D hidden width, L layers, H horizon (actions in a
chunk), A action dimensions, P proprioception dimensions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.errors import ObservationError
from dysl_vla_ros.poses import COLUMNS, POSITION, is_unused, poses, turn

FloatArray = NDArray[np.float32]

# What is at fault where a step gives no result.
THE_MODEL, THE_INSTRUCTION, THE_OBSERVATION = "model", "instruction", "observation"


GRIPPER_OPENING = "gripper.opening"  # a value of proprioception, see ProprioceptionSpec


@dataclass(frozen=True)
class ProprioceptionSpec:
    """The proprioception that a policy declares: names, units, frame, in the order it wants them.

    ``ee.x``, ``ee.y``, ``ee.z`` and the orientation (``ee.qx`` .. ``ee.qw``, or by other names of
    :mod:`dysl_vla_ros.poses`) come from ``ee_pose``, ``gripper.opening`` (0 closed, 1 open; see
    :mod:`dysl_vla_ros.joint_units`) from ``gripper_state``; ``unused`` and ``unused.1`` are 0, as in training; any
    other name is a joint of ``joint_states``.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    frame: str = "base"
    low: tuple[float, ...] = ()  # (P,) rad or m at the lower end of percent and range_100; () where no unit needs it
    high: tuple[float, ...] = ()  # (P,) the same at the upper end


END_EFFECTOR_DELTA, END_EFFECTOR_POSE = "end_effector_delta", "end_effector_pose"
JOINT_POSITION, JOINT_VELOCITY = "joint_position", "joint_velocity"
KINDS = (END_EFFECTOR_DELTA, JOINT_POSITION, JOINT_VELOCITY, END_EFFECTOR_POSE)


@dataclass(frozen=True)
class ActionSpec:
    """The actions that a policy declares: what each value means is said, never guessed.

    An ``end_effector_delta`` is ``x, y, z`` (metres over ``time_step``), where ``has_rotation`` then a rotation vector
    (radians over ``time_step``), last the gripper's opening (0 closed, 1 open; a target, no difference): its names and
    units follow from that. An ``end_effector_pose`` is a target in ``frame``, its values named as in
    :mod:`dysl_vla_ros.poses`, in any order, with others that are ``unused``. A ``joint_position`` is a target for each
    joint of ``names``, a ``joint_velocity`` a speed (each unit a second), in ``units``; the gripper's value stands
    apart, a target in any kind.
    ``normalised = (action - center) / scale`` with the statistics of the policy's own training data.
    """

    horizon: int
    time_step: float  # s that one action spans
    has_rotation: bool
    center: tuple[float, ...]  # (A,)
    scale: tuple[float, ...]  # (A,), all > 0
    frame: str = "base"  # of an end effector's motion or pose
    kind: str = END_EFFECTOR_DELTA
    names: tuple[str, ...] = ()  # (A,)
    units: tuple[str, ...] = ()  # (A,) see dysl_vla_ros.joint_units
    gripper: str = ""  # the one of names that is the gripper's opening; "": none is
    low: tuple[float, ...] = ()  # (A,) rad or m at the lower end of percent and range_100; () where no unit needs it
    high: tuple[float, ...] = ()  # (A,) the same at the upper end

    def __post_init__(self) -> None:
        """Name the values of an end-effector delta."""
        if self.kind == END_EFFECTOR_DELTA and not self.names:
            turning = ("rx", "ry", "rz") if self.has_rotation else ()
            object.__setattr__(self, "names", ("x", "y", "z", *turning, "gripper"))
            object.__setattr__(self, "units", ("m",) * 3 + ("rad",) * len(turning) + ("1",))
            object.__setattr__(self, "gripper", "gripper")

    @property
    def dimensions(self) -> int:
        """Number of values in one action: A."""
        return len(self.names)

    @property
    def moves_joints(self) -> bool:
        """Whether the actions are of joints, not of an end effector."""
        return self.kind not in (END_EFFECTOR_DELTA, END_EFFECTOR_POSE)

    @property
    def absolute(self) -> bool:
        """Whether the actions are places to go to, not motions."""
        return self.kind in (JOINT_POSITION, END_EFFECTOR_POSE)

    @property
    def gripper_index(self) -> int | None:
        """Place of the gripper's value; None: there is none."""
        return self.names.index(self.gripper) if self.gripper else None

    @property
    def joint_indices(self) -> tuple[int, ...]:
        """Places of the values that are no gripper's; of a pose in the order of :mod:`dysl_vla_ros.poses`."""
        if self.kind == END_EFFECTOR_POSE:
            return tuple(self.names.index(name) for name in (*POSITION, *COLUMNS))
        return tuple(index for index, name in enumerate(self.names) if name != self.gripper)

    @property
    def used_indices(self) -> tuple[int, ...]:
        """Places of the values that command something: all but the ``unused`` ones of a pose."""
        whole = self.kind != END_EFFECTOR_POSE
        return tuple(index for index, name in enumerate(self.names) if whole or not is_unused(name))

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the joints that are commanded, in the actions' order; () of an end effector."""
        return tuple(self.names[index] for index in self.joint_indices) if self.moves_joints else ()

    @property
    def motion_parts(self) -> tuple[list[int], list[int], list[int]]:
        """Places of what :meth:`motions` gives that are translation (or joints), rotation, and gripper."""
        if self.kind == END_EFFECTOR_POSE:
            return [0, 1, 2], [3, 4, 5], [6] if self.gripper else []
        moving, gripper = list(self.joint_indices), [] if self.gripper_index is None else [self.gripper_index]
        return (moving, [], gripper) if self.moves_joints else (moving[:3], moving[3:], gripper)

    @property
    def bridged(self) -> int:
        """Actions that an answer may take at most: half of a chunk; where requests fall on ticks, rounded up."""
        return (self.horizon + 1) // 2

    @property
    def targets_a_motion(self) -> int:
        """Number of actions in a row that one motion is made of: see :meth:`motions`."""
        return 2 if self.absolute else 1

    def motions(self, normalised: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what normalised actions (n, A) move, so that all kinds can be compared by their motion.

        An end-effector delta and a joint velocity are motions as they are. Absolute targets move by their differences,
        ``(p_j - p_(j-1)) / time_step``, a second's worth: (n - 1, A), of each the second target's. Of poses this is the
        translation, and beside it the rotation vector from one orientation to the next, in rad, a second's worth too:
        (n - 1, 6), with a gripper (n - 1, 7). The gripper's value is a target in every kind and stays one.
        """
        if not self.absolute:
            return normalised
        if self.kind == END_EFFECTOR_POSE:
            places = list(self.joint_indices[: len(POSITION)])
            _, facing = poses(normalised * np.array(self.scale) + np.array(self.center), self.names)
            moved = [np.diff(normalised[:, places], axis=0), turn(facing[:-1], facing[1:])]
            held = [] if self.gripper_index is None else [normalised[1:, [self.gripper_index]]]
            return np.concatenate([part / self.time_step for part in moved] + held, axis=1)
        moved_joints = normalised[1:].copy()
        joints = list(self.joint_indices)
        moved_joints[:, joints] = np.diff(normalised[:, joints], axis=0) / self.time_step
        return moved_joints

    def normalise(self, actions: FloatArray) -> FloatArray:
        """Map actions (n, A) in physical units to the policy's normalised units."""
        return np.divide(actions - np.asarray(self.center, np.float32), np.asarray(self.scale, np.float32))

    def denormalise(self, actions: FloatArray) -> FloatArray:
        """Map normalised actions (n, A) to physical units: m, rad, opening."""
        return actions * np.asarray(self.scale, np.float32) + np.asarray(self.center, np.float32)

    def distance(self, one: FloatArray, other: FloatArray) -> float:
        """Return the mean absolute difference of actions (n, A) in physical units, once normalised; n at least 1."""
        apart = np.abs(self.normalise(one) - self.normalise(other))
        return float(np.mean(apart[..., list(self.used_indices)]))


@dataclass(frozen=True)
class PolicyDescription:
    """What a loaded policy tells the outside: which inputs it wants, what it gives, what may be skipped."""

    family: str
    model_hash: str  # SHA-256 of everything in checkpoint and DySL folder that decides the motion
    weights_hash: str  # SHA-256 of the base weights alone
    cameras: tuple[str, ...]  # topic names, the first one paces inference
    proprioception: ProprioceptionSpec
    action: ActionSpec
    layers_total: int
    static_layers: tuple[int, ...]  # all layers where no DySL folder is loaded
    blocks: tuple[tuple[int, int], ...]  # (first, one past last) dynamic layer of each block
    calibrated: Mapping[str, float | str] = field(default_factory=dict)  # guidance values that 0.0 or "" stand for
    instructions: tuple[str, ...] = ()  # examples the policy was trained on, for messages
    floor_ms: float = 0.0  # what the shortest inference took while warming up; 0.0: not measured


@dataclass(frozen=True)
class Observation:
    """One moment as the policy sees it."""

    images: Mapping[str, NDArray[np.uint8]]  # camera -> (height, width, 3) rgb
    proprioception: FloatArray  # (P,) in the declared units
    instruction: str

    @classmethod
    def grey(
        cls, cameras: Sequence[str], size: tuple[int, int], state: ProprioceptionSpec, instructions: Sequence[str]
    ) -> "Observation":
        """Return one to warm up with: grey images, zeros, and the first instruction there is, else a plain one.

        Args:
            cameras: names.
            size: height and width of the images, px.
            state: proprioception.
            instructions: that are known.
        """
        return cls(
            images={camera: np.full((*size, 3), 128, dtype=np.uint8) for camera in cameras},
            proprioception=np.zeros(len(state.names), dtype=np.float32),
            instruction=instructions[0] if instructions else "pick up the object",
        )

    def served_to(self, cameras: Sequence[str], state: ProprioceptionSpec) -> FloatArray:
        """Return the proprioception (P,) as float32, where a policy of these inputs can use the observation.

        Raises:
            ObservationError: a camera is missing, or proprioception is not of P finite values.
        """
        missing = [camera for camera in cameras if camera not in self.images]
        if missing:
            raise ObservationError(f"no picture of {', '.join(missing)}; the policy needs {', '.join(cameras)}")
        values = np.asarray(self.proprioception, dtype=np.float32)
        if values.shape != (len(state.names),) or not np.isfinite(values).all():
            raise ObservationError(
                f"proprioception {values.tolist()} must be {len(state.names)} finite values: {', '.join(state.names)}"
            )
        return values


@dataclass(frozen=True)
class ActionChunk:
    """Actions for the coming ticks, in physical units (see :class:`ActionSpec`)."""

    actions: FloatArray  # (H, A)
    time_step: float  # s
    verified: bool = False
    actions_to_play: int = 1  # before the next inference: m, or what guidance says where m is automatic


@dataclass(frozen=True)
class SkipTrace:
    """Which layers one inference executed and why: what ``~/skip_report`` publishes."""

    executed: tuple[bool, ...]  # (L,) true where a layer ran in any pass of this inference
    layer_calls: int  # layers run, both passes counted
    allow_points: tuple[int, ...]  # per block: first layer whose controller may fire; one past the last = closed
    skip_points: tuple[int, ...]  # per block: layer at which the rest was skipped in the first pass, -1 where none was
    controller_outputs: tuple[float, ...]  # per block: highest skip probability evaluated, NaN where none was
    continuity: float  # C_t, after this inference's verification if there was one
    continuity_change: float  # dC_t before the inference
    candidate_change: float  # dC that the first pass's action would cause
    verified: bool
    verify_reason: str  # "" or "first drop", "any drop", "still apart", "in turn"
    full_depth_reason: str  # "" or "skipping disabled", "warm-up", "no DySL folder"
    budget_cut: bool = False  # a time budget cut what guidance wanted
    correction: float = math.nan  # L1 of the verified action to the first pass's, normalised; NaN: none was verified

    @property
    def layers_total(self) -> int:
        """Number of layers of the stack: L."""
        return len(self.executed)


@dataclass(frozen=True)
class Timings:
    """Milliseconds of one inference; ``convert`` and ``transfer`` are added by the side that measures them."""

    vision: float = 0.0
    stack: float = 0.0
    head: float = 0.0
    verify: float = 0.0
    total: float = 0.0
    convert: float = 0.0
    transfer: float = 0.0


@dataclass(frozen=True)
class StepResult:
    """What one inference gives."""

    chunk: ActionChunk
    trace: SkipTrace
    timings: Timings
