"""Times as messages carry them."""

from typing import Any


def seconds(stamp: Any) -> float:
    """Return a builtin_interfaces/Time as seconds."""
    return float(stamp.sec) + stamp.nanosec * 1e-9
