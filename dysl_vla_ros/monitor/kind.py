"""How a node of this package is told from others on the ROS graph, whatever its name."""

from collections.abc import Iterable, Mapping, Sequence

REPORT_TYPE = "dysl_vla_ros/msg/SkipReport"  # published once it is configured
SERVICES = {"change_state": "lifecycle_msgs/srv/ChangeState", "reset": "std_srvs/srv/Trigger"}  # from the start


def full_name(name: str, namespace: str) -> str:
    """Return a node's full name: ``/robot/dysl_vla``."""
    return f"{namespace.rstrip('/')}/{name}"


def is_vla_node(
    full: str, publishers: Iterable[tuple[str, Sequence[str]]], services: Mapping[str, Sequence[str]]
) -> bool:
    """Tell a VLA node by what it offers.

    Args:
        full: its full name.
        publishers: (topic, types) of each topic that it publishes.
        services: types of each service that it has, by full name.
    """
    publishes = any(REPORT_TYPE in types for _, types in publishers)
    return publishes or all(kind in services.get(f"{full}/{name}", ()) for name, kind in SERVICES.items())
