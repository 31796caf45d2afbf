"""The checks, in the order of the report: first what everything stands on, then the graph, then the model."""

from collections.abc import Callable, Iterable

from dysl_vla_ros.doctor.checks import (
    cameras,
    checkpoint,
    clocks,
    joints,
    leftovers,
    machine,
    packages,
    poses,
    publishers,
    qos,
    ros,
    transport,
)
from dysl_vla_ros.doctor.examination import Examination
from dysl_vla_ros.doctor.finding import Finding, fail

Check = Callable[[Examination], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    packages.python_version,
    packages.required_packages,
    packages.programs,
    ros.distribution,
    ros.middleware,
    ros.running_nodes,
    transport.shared_memory,
    transport.space_for_segments,
    leftovers.killed_processes,
    qos.quality_of_service,
    qos.types,
    cameras.cameras,
    publishers.inputs,
    joints.joints,
    poses.poses,
    clocks.sim_time,
    clocks.stamps,
    checkpoint.base,
    checkpoint.dysl_folder,
    checkpoint.export,
    machine.execution_providers,
    machine.memory,
)


def examine(examination: Examination) -> list[Finding]:
    """Run every check; one that fails of itself is a finding too, so that the others are still told."""
    findings: list[Finding] = []
    for check in CHECKS:
        subject = check.__name__.replace("_", " ")
        try:
            findings += check(examination)
        except Exception as error:  # whatever it is, the other lines are worth having
            findings.append(fail(subject, f"the check itself failed: {error!r}", "tell the package's authors"))
    return findings
