"""Parameter files that were given to this process and give the node nothing: rcl passes over them in silence."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.params_file import misfit, read_sections

ROS_ARGUMENTS, END_OF_ROS_ARGUMENTS, FILE = "--ros-args", "--", "--params-file"


def without_effect(arguments: Sequence[str], full_name: str) -> list[str]:
    """Say for each parameter file of a command line that nothing of it is for the node of that full name."""
    warnings = []
    for file in _given(arguments):
        try:
            path = Path(file)
            fault = misfit(path, read_sections(path), full_name)
        except SettingError as error:  # rcl has taken it: say what cannot be told
            fault = f"{error}; what it gives the node is not known"
        if fault:
            warnings.append(f"{FILE} {fault}")
    return warnings


def _given(arguments: Sequence[str]) -> Iterator[str]:
    """Return what follows each ``--params-file`` between ``--ros-args`` and ``--``."""
    within, before = False, ""
    for argument in arguments:
        if within and before == FILE:
            yield argument
        within = argument == ROS_ARGUMENTS or within and argument != END_OF_ROS_ARGUMENTS
        before = argument
