"""Refuses a policy whose actions mean something else than what is done with them."""

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.interfaces import ActionSpec


def require_end_effector(action: ActionSpec, doing: str) -> None:
    """Refuse actions of joints where only an end effector's motion can be meant.

    Args:
        action: the policy's.
        doing: what is to be done, which begins the error.

    Raises:
        SettingError: the actions are of joints; names them.
    """
    if action.moves_joints:
        raise SettingError(
            f"{doing} takes actions of the kind end_effector_delta; this policy's are {action.kind} of "
            f"{', '.join(action.joints)}: use a checkpoint of an end effector, or measure this one on recordings "
            "(`dysl_vla replay`, `tune`)"
        )
