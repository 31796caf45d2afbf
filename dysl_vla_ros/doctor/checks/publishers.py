"""Inputs that two nodes publish at the same time: the node stops, as the arm would act on both in turns."""

from collections.abc import Iterator

from dysl_vla_ros.control.publishers import doubled_fix, doubled_text
from dysl_vla_ros.doctor.examination import Examination
from dysl_vla_ros.doctor.finding import Finding, fail, ok


def inputs(examination: Examination) -> Iterator[Finding]:
    """Name every doubled input with both nodes; with --live alone, as it takes messages, not what the graph shows."""
    graph = examination.graph
    if graph is None or examination.options.live <= 0.0:
        return
    doubled = [found for found in graph.doubled if found.topic != "/clock"]  # that one: see the line clock
    for found in doubled:
        yield fail(
            "publishers",
            f"{doubled_text(found.topic, found.nodes, found.joints)}: the arm stops, it would act on both in turns",
            doubled_fix(found.topic, bool(found.joints)),
        )
    heard = [topic for topic in graph.heard if topic != "/clock"]
    if heard and not doubled:
        yield ok("publishers", f"one publisher of each input that was heard: {', '.join(heard)}")
