"""A small arm whose actions are of joints: specs and limits that the tests of joint actions share."""

from dysl_vla_ros.interfaces import JOINT_POSITION, JOINT_VELOCITY, ActionSpec

JOINTS = ("shoulder", "elbow", "wrist")


def joint_positions(horizon: int = 8, gripper: bool = True) -> ActionSpec:
    """Return targets in three of the units that checkpoints use, with or without a gripper's opening behind them."""
    parts = 1 if gripper else 0
    return ActionSpec(
        horizon,
        0.05,
        False,
        center=(0.0, 10.0, 5.0) + (50.0,) * parts,
        scale=(1.0, 40.0, 60.0) + (50.0,) * parts,
        kind=JOINT_POSITION,
        names=JOINTS + ("jaw",) * parts,
        units=("rad", "deg", "range_100") + ("percent",) * parts,
        gripper="jaw" if gripper else "",
        low=(0.0, 0.0, -1.5) + (0.0,) * parts,
        high=(0.0, 0.0, 1.0) + (0.0,) * parts,
    )


def joint_velocities(horizon: int = 8) -> ActionSpec:
    """Return speeds of the joints, and a gripper's opening."""
    return ActionSpec(
        horizon,
        0.05,
        False,
        center=(0.0, 0.0, 0.0, 0.5),
        scale=(0.5, 30.0, 0.5, 0.5),
        kind=JOINT_VELOCITY,
        names=(*JOINTS, "jaw"),
        units=("rad", "deg", "rad", "1"),
        gripper="jaw",
    )
