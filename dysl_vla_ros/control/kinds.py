"""Refuses a policy whose actions mean something else than what is done with them."""

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.interfaces import END_EFFECTOR_DELTA, ActionSpec


def require_end_effector(action: ActionSpec, doing: str) -> None:
    """Refuse actions of joints and absolute poses where only an end effector's motion can be meant.

    Args:
        action: the policy's.
        doing: what is to be done, which begins the error.

    Raises:
        SettingError: the actions are of another kind; names it, and the joints.
    """
    if action.kind != END_EFFECTOR_DELTA:
        of = f" of {', '.join(action.joints)}" if action.joints else f" in {action.frame}"
        raise SettingError(
            f"{doing} takes actions of the kind {END_EFFECTOR_DELTA}; this policy's are {action.kind}{of}: use a "
            "checkpoint of an end effector's motion, or measure this one on recordings (`dysl_vla replay`, `tune`)"
        )
