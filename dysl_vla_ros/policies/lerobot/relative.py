"""Actions that a checkpoint gives relative to the state: what the library adds to them must be the same quantity."""

from typing import Any

from dysl_vla_ros.interfaces import GRIPPER_OPENING, JOINT_POSITION
from dysl_vla_ros.policies.contract_meaning import Meaning


def relative_faults(step: Any, meaning: Meaning) -> list[str]:
    """Return why a checkpoint's relative actions cannot be what is said of them; none where they are not relative.

    Args:
        step: of the pre-processor, which remembers the state that the post-processor adds; None: there is none.
        meaning: what is said of state and action.
    """
    if step is None or not step.enabled:
        return []
    action, state = meaning.action, meaning.proprioception
    if action.kind != JOINT_POSITION:
        return [
            f"robot.action.kind is {action.kind}, but the checkpoint's processors add the state to every action: these "
            f"are targets, {JOINT_POSITION}"
        ]
    faults = []
    for index, added in enumerate(step._build_mask(action.dimensions)):
        if not added:
            continue
        if index >= len(state.names):
            faults.append(f"robot.state.names has no value {index}, which is added to {action.names[index]}")
            continue
        wanted = GRIPPER_OPENING if action.names[index] == action.gripper else action.names[index]
        if state.names[index] != wanted:
            faults.append(f"robot.state.names[{index}] is {state.names[index]}, and is added to {action.names[index]}")
        elif state.units[index] != action.units[index]:
            faults.append(
                f"robot.state.units[{index}] of {wanted} is {state.units[index]}, and is added to an action in "
                f"{action.units[index]}"
            )
    return faults
