"""Times as messages carry them."""

from typing import Any


def seconds(stamp: Any) -> float:
    """Return a builtin_interfaces/Time as seconds."""
    return float(stamp.sec) + stamp.nanosec * 1e-9


def nanoseconds(stamp: Any) -> int:
    """Return a builtin_interfaces/Time in whole nanoseconds: differences of them are exact."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
