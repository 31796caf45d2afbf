"""The joints that a node commands: whether they are measured, whether anybody obeys, whether limits are said."""

from collections.abc import Iterator
from typing import Any

from dysl_vla_ros.doctor.examination import Examination
from dysl_vla_ros.doctor.finding import Finding, fail, ok, warn
from dysl_vla_ros.doctor.graph import VlaNode
from dysl_vla_ros.errors import CheckpointError

CONFIG = "config.json"
JOINTS = "joints"
KINDS = ("joint_position", "joint_velocity")  # as dysl_vla_ros.interfaces has them, which wants numpy
LIMITS = tuple(f"safety.joint.{name}" for name in ("min_position", "max_position", "max_velocity", "max_acceleration"))


def joints(examination: Examination) -> Iterator[Finding]:
    """Look at a running node that commands joints; of one that moves an end effector nothing is said."""
    graph = examination.graph
    node = graph.node if graph else None
    if graph is None or node is None:
        return
    kind, names = commanded(node, examination)
    if kind not in KINDS:
        return
    faults = list(_limits(node, names))
    yield from faults
    seen = graph.joints
    if seen is None:
        yield warn(
            JOINTS,
            f"{node.name} is not configured: who obeys it and whether its joints are measured cannot be told yet",
            f"ros2 lifecycle set {node.name} configure, then run the doctor again",
        )
        return
    if not seen.listeners:
        yield fail(
            JOINTS,
            f"{seen.command} ({seen.type}): nobody listens, so that no joint will move",
            "start the arm's controller, or remap: -r "
            f"{node.name}/joint_command:=/CONTROLLER/joint_trajectory; robot.action.message says which type it takes",
        )
    absent = [name for name in names if name not in seen.measured]
    if not seen.measured:
        yield fail(
            JOINTS,
            f"{seen.states}: no message was heard in {graph.listened:.1f} s, so that the arm never starts",
            "start the joint_state_broadcaster or the arm's driver, or remap joint_states",
        )
    elif absent:
        yield fail(
            JOINTS,
            f"{seen.states} has no {', '.join(absent)}; there are {', '.join(seen.measured)}",
            "give robot.action.names the names of the arm's driver, in the policy's order",
        )
    if seen.listeners and seen.measured and not absent and not faults:
        yield ok(
            JOINTS,
            f"{len(names)} commanded on {seen.command}, heard by {', '.join(seen.listeners)}; each is measured on "
            f"{seen.states} and has limits",
        )


def commanded(node: VlaNode, examination: Examination) -> tuple[str, list[str]]:
    """Return the kind of actions and the joints' names without the gripper, as the node or its checkpoint says."""
    from dysl_vla_ros.json_files import read_object  # wants numpy, which is there where a node runs

    action: dict[str, Any] = {}
    try:
        model = read_object(examination.checkpoint / CONFIG, "").get("model")
        found = model.get("action") if isinstance(model, dict) else None
        action = found if isinstance(found, dict) else {}
    except (CheckpointError, OSError):
        pass  # the line checkpoint says why
    kind = node.parameter("robot.action.kind", "") or action.get("kind", "")
    names = node.parameter("robot.action.names", []) or action.get("names", [])
    gripper = node.parameter("robot.action.gripper", "") or action.get("gripper", "")
    return str(kind), [str(name) for name in names if name != gripper]


def _limits(node: VlaNode, names: list[str]) -> Iterator[Finding]:
    """Name every limit that is not said for each joint; nothing where the node did not answer."""
    if not node.parameters:
        return
    counts = {name: len(node.parameter(name, [])) for name in LIMITS}
    wrong = [f"{name} has {count}" for name, count in counts.items() if count != len(names) or not count]
    if wrong:
        yield fail(
            JOINTS,
            f"{', '.join(wrong)} values, expected one for each of the {len(names)} joints {', '.join(names)}".rstrip(),
            "say them in the parameter file, in this order; `dysl_vla inspect CHECKPOINT` prints the block to fill in",
        )
