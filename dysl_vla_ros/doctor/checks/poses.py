"""The absolute poses that a node commands: whether anybody obeys, and whether the pose to start from is measured."""

from collections.abc import Iterator

from dysl_vla_ros.doctor.checks.joints import commanded
from dysl_vla_ros.doctor.examination import Examination
from dysl_vla_ros.doctor.finding import Finding, fail, ok, warn

POSES = "poses"
KIND = "end_effector_pose"  # as dysl_vla_ros.interfaces has it, which wants numpy


def poses(examination: Examination) -> Iterator[Finding]:
    """Look at a running node that commands absolute poses; of another one nothing is said."""
    graph = examination.graph
    node = graph.node if graph else None
    if graph is None or node is None or commanded(node, examination)[0] != KIND:
        return
    seen = graph.joints
    if seen is None:
        yield warn(
            POSES,
            f"{node.name} is not configured: who obeys it and whether its pose is measured cannot be told yet",
            f"ros2 lifecycle set {node.name} configure, then run the doctor again",
        )
        return
    if not seen.listeners:
        yield fail(
            POSES,
            f"{seen.command} ({seen.type}): nobody listens, so that the arm will not move",
            f"start the arm's Cartesian controller, or remap: -r {node.name}/pose_command:=/CONTROLLER/target",
        )
    if not seen.measured:
        yield fail(
            POSES,
            f"{seen.states}: no message was heard in {graph.listened:.1f} s, so that the arm never starts",
            "publish the end effector's pose there, in the frame of the actions (robot.action.frame), or remap ee_pose",
        )
    if seen.listeners and seen.measured:
        yield ok(
            POSES,
            f"commanded on {seen.command}, heard by {', '.join(seen.listeners)}; measured on {seen.states}",
        )
