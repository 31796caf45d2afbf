"""What of the environment keeps ROS from starting, found before rclpy meets it. Without ROS.

A domain above 232 and an RMW implementation that is not installed end the whole process inside a library, the latter as
soon as rclpy is imported, with an exit code of its own and no exception: nothing that called it can say what to do.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

REFUSED = 2  # exit code of a program that could not begin the next time either
DOMAIN, RMW = "ROS_DOMAIN_ID", "RMW_IMPLEMENTATION"
LARGEST_DOMAIN = 232  # of DDS: beyond it a port number has no room


class EnvironmentFault(NamedTuple):
    """Why ROS cannot start, and what to do."""

    text: str
    fix: str

    def __str__(self) -> str:
        return f"{self.text}; {self.fix}"


def environment_fault(environment: Mapping[str, str]) -> EnvironmentFault | None:
    """Return the first thing in ``environment`` that ROS cannot start with; None: nothing that is known of."""
    if domain := environment.get(DOMAIN, ""):
        try:
            number = int(domain)
        except ValueError:
            number = -1
        if not 0 <= number <= LARGEST_DOMAIN:
            return EnvironmentFault(
                f"{DOMAIN}={domain!r} is no domain, expected a whole number from 0 to {LARGEST_DOMAIN}",
                f"export {DOMAIN}=0 (0 to 101 are safe on every system), or unset it",
            )
    if (rmw := environment.get(RMW, "")) and (there := installed_rmws(environment)) and rmw not in there:
        return EnvironmentFault(
            f"{RMW}={rmw!r} is not installed, there is {', '.join(there)}",
            f"unset {RMW}, or install it (ros-$ROS_DISTRO-{rmw.replace('_', '-')})",
        )
    return None


def refuse(program: str) -> None:
    """End the process with one line and exit code 2 where ROS cannot start: to be called before rclpy is imported."""
    if fault := environment_fault(os.environ):
        print(f"{program}: error: ROS cannot start: {fault}", file=sys.stderr)
        sys.exit(REFUSED)


def installed_rmws(environment: Mapping[str, str]) -> list[str]:
    """Return the RMW implementations that the prefixes of an environment hold, by the ament index."""
    prefixes = [entry for entry in environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if entry]
    found = {
        entry.name
        for prefix in (*prefixes, sys.prefix)
        for entry in (Path(prefix) / "share" / "ament_index" / "resource_index" / "rmw_typesupport").glob("rmw_*")
    }
    return sorted(found - {"rmw_implementation"})  # it only chooses among the others
