"""What X-VLA's ``action_mode`` says of the actions: absolute poses in an order of its own, joints, or nothing.

Read from lerobot/policies/xvla/action_hub.py of LeRobot 0.6.1. ``ee6d`` and ``agibot_ee6d`` are two arms of ten values:
position, first and second column of the rotation matrix, gripper; with one arm the rest was zeros in training. What the
gripper's value means, the frame and the time stand in no file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dysl_vla_ros.interfaces import END_EFFECTOR_DELTA, END_EFFECTOR_POSE, ActionSpec
from dysl_vla_ros.poses import POSE_VALUES, POSITION, UNUSED, is_unused

FAMILY, MODE = "xvla", "action_mode"
POSES = ("ee6d", "agibot_ee6d")  # the library's default first
JOINTS = ("joint", "franka_joint7", "so101_bimanual")
ARM = len(POSE_VALUES) + 1  # values of one arm, the gripper's last
GRIPPER, OPEN = "gripper", "..."


def implied(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``config.json`` says of the actions, as fields of a contract; of two arms the first, ``...`` open."""
    if _space(config) not in POSES:
        return {}
    others = tuple(f"{UNUSED}.{place}" for place in range(1, ARM + 1))
    units = ("m",) * len(POSITION) + ("1",) * (len(POSE_VALUES) - len(POSITION))
    return {
        "action_kind": END_EFFECTOR_POSE,
        "action_names": (*POSE_VALUES, GRIPPER, *others),
        "action_units": (*units, OPEN, *("1",) * ARM),
        "action_gripper": GRIPPER,
    }


def contradictions(config: Mapping[str, Any], where: str, action: ActionSpec) -> list[str]:
    """Return where the meaning that is said of the actions is another than that of ``action_mode``.

    Args:
        config: ``config.json``.
        where: its path.
        action: what the user says.
    """
    space, poses = _space(config), action.kind == END_EFFECTOR_POSE
    where = f"{where}: {MODE} is {space!r:.40}"
    if space in POSES and not poses:
        return [f"robot.action.kind is {action.kind}, but {where}, absolute poses: {END_EFFECTOR_POSE}"]
    if space in JOINTS and (poses or action.kind == END_EFFECTOR_DELTA):
        return [f"robot.action.kind is {action.kind}, but {where}, positions of joints"]
    if space not in POSES:
        return []
    if len(action.names) != 2 * ARM:
        return [f"the feature action has {len(action.names)} values, but {where}, which gives {2 * ARM}"]
    if all(_is_arm(action.names[first : first + ARM], action) for first in (0, ARM)):
        return []
    return [
        f"robot.action.names is {', '.join(action.names)}, but {where}: twice {', '.join(POSE_VALUES)} and the "
        f"gripper; name all values of an arm that is not there {UNUSED}.1, {UNUSED}.2, ..."
    ]


def _space(config: Mapping[str, Any]) -> str:
    return str(config.get(MODE, POSES[0])).lower() if config.get("type") == FAMILY else ""


def _is_arm(names: Sequence[str], action: ActionSpec) -> bool:
    """Whether ten names are an arm's in the library's order, its gripper used or not, or all unused."""
    *pose, gripper = names
    whole = tuple(pose) == POSE_VALUES and (gripper == action.gripper or is_unused(gripper))
    return whole or all(map(is_unused, names))
