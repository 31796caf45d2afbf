"""Publishers and subscriptions that do not hear each other, although both are there."""

from collections.abc import Iterator

from dysl_vla_ros.doctor.examination import Examination
from dysl_vla_ros.doctor.finding import Finding, Level, ok

FIXES = {
    "reliab": "subscribe best effort, or let the publisher be reliable",
    "best effort": "subscribe best effort, or let the publisher be reliable",
    "volatile": "subscribe volatile, or let the publisher be transient local",
    "durability": "subscribe volatile, or let the publisher be transient local",
    "deadline": "let the subscription ask for no deadline, or the publisher offer a shorter one",
    "liveliness": "let the subscription ask for no liveliness, or the publisher offer it",
}


def quality_of_service(examination: Examination) -> Iterator[Finding]:
    """Name every pair whose QoS does not match; FAIL where a VLA node or a camera is concerned."""
    graph = examination.graph
    if graph is None:
        return
    ours = {node.name for node in graph.vla_nodes}
    cameras = {camera.topic for camera in graph.cameras}
    for mismatch in graph.mismatches:
        concerned = bool({mismatch.publisher, mismatch.subscriber} & ours) or mismatch.topic in cameras
        fix = next((fix for word, fix in FIXES.items() if word in mismatch.reason.lower()), "let both be the same")
        yield Finding(
            Level.FAIL if concerned else Level.WARN,
            "QoS",
            f"{mismatch.topic}: {mismatch.subscriber} hears nothing of {mismatch.publisher}: {mismatch.reason}",
            fix,
        )
    if not graph.mismatches:
        yield ok("QoS", f"{graph.endpoints} publishers and subscriptions on the graph match")


def types(examination: Examination) -> Iterator[Finding]:
    """Name every topic that has two types: no event and no message tells of it."""
    graph = examination.graph
    if graph is None:
        return
    cameras = {camera.topic for camera in graph.cameras}
    for topic, found in graph.types.items():
        level = Level.FAIL if topic in cameras else Level.WARN
        yield Finding(
            level,
            "types",
            f"{topic} is used as {' and as '.join(found)}: they do not hear each other",
            "remap one of them to another topic",
        )
