"""Proprioception as values by the names that a policy declares: pose, gripper, joints."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dysl_vla_ros.errors import ObservationError

OPENING_TOLERANCE = 0.05  # by which a measured gripper opening may leave 0..1


def pose_values(message: Any, frame: str) -> dict[str, float]:
    """Read an end-effector pose.

    Args:
        message: a geometry_msgs/PoseStamped; position in metres, orientation as a quaternion.
        frame: frame that the policy declares.

    Returns:
        ``ee.x`` .. ``ee.z`` (m), ``ee.qx`` .. ``ee.qw``.

    Raises:
        ObservationError: another frame, or a value that is not finite.
    """
    if message.header.frame_id and message.header.frame_id != frame:
        raise ObservationError(
            f"frame_id is {message.header.frame_id!r:.80}; the policy wants {frame!r}: publish the pose in that frame"
        )
    position, orientation = message.pose.position, message.pose.orientation
    values = {f"ee.{axis}": getattr(position, axis) for axis in "xyz"}
    values |= {f"ee.q{axis}": getattr(orientation, axis) for axis in "xyzw"}
    for name, value in values.items():
        if not np.isfinite(value):
            raise ObservationError(f"{name} is {value}; it must be finite")
    return values


def opening_value(message: Any) -> dict[str, float]:
    """Read a gripper's opening (a std_msgs/Float64), ``gripper.opening``: 0 closed, 1 open.

    Raises:
        ObservationError: not finite, or clearly outside 0..1.
    """
    opening = message.data
    if not -OPENING_TOLERANCE <= opening <= 1.0 + OPENING_TOLERANCE:  # false for NaN as well
        raise ObservationError(
            f"opening is {opening:.6g}; it must be from 0 (closed) to 1 (open): is the driver in metres or per cent?"
        )
    return {"gripper.opening": opening}


def joint_values(message: Any, names: Sequence[str]) -> dict[str, float]:
    """Read joint positions by name.

    Args:
        message: a sensor_msgs/JointState; it may carry some of the joints only, in any order, and others besides.
        names: joints that are wanted.

    Returns:
        those of ``names`` that the message carries: radians of a turning joint, metres of a sliding one.

    Raises:
        ObservationError: not one position a name, a wanted name twice, a position that is not finite; lists what there
            is.
    """
    there, positions = list(message.name), message.position
    wanted = [name for name in names if name in there]
    if not wanted:
        return {}
    if len(positions) != len(there):
        raise ObservationError(
            f"position has {len(positions)} values for {len(there)} names ({', '.join(there):.200}); there must be one "
            "for each"
        )
    twice = [name for name in wanted if there.count(name) > 1]
    if twice:
        raise ObservationError(f"joint {', '.join(twice)} is named twice; the names are {', '.join(there):.200}")
    values = {name: float(positions[there.index(name)]) for name in wanted}
    odd = [f"{name} is {value}" for name, value in values.items() if not np.isfinite(value)]
    if odd:
        raise ObservationError(f"position of joint {', '.join(odd)}; it must be finite: look after its encoder")
    return values
