"""What an action's values mean, as files say it: those of before there were kinds say it by being silent.

A file that names no kind is an end-effector delta and is read, written and hashed as it always was; one that names a
kind says everything.
"""

from dataclasses import asdict, fields
from typing import Any

from dysl_vla_ros.interfaces import END_EFFECTOR_DELTA, ActionSpec

MEANING = ("kind", "names", "units", "gripper", "low", "high")  # fields that came with the kinds
_DEFAULTS = {field.name: field.default for field in fields(ActionSpec) if field.name in MEANING}


def with_meaning(action: Any) -> Any:
    """Return an action's values of a file with the meaning that a file of before the kinds has; others as they are."""
    if not isinstance(action, dict) or not set(MEANING).isdisjoint(action):
        return action
    return {**action, **{name: list(value) if isinstance(value, tuple) else value for name, value in _DEFAULTS.items()}}


def action_to_json(spec: ActionSpec) -> dict[str, Any]:
    """Return plain values for a file; an end-effector delta's meaning is not named, as before there were others."""
    values = asdict(spec)
    return {name: value for name, value in values.items() if spec.kind != END_EFFECTOR_DELTA or name not in MEANING}
