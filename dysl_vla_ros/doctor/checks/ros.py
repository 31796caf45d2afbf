"""Which ROS this is, which middleware, who is on the graph."""

import contextlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping

from dysl_vla_ros.doctor.examination import Examination
from dysl_vla_ros.doctor.finding import Finding, fail, ok, warn
from dysl_vla_ros.doctor.folders import prefixes
from dysl_vla_ros.doctor.requirements import installed

# rclpy's major version of each distribution: wheels set no ROS_DISTRO.
DISTRIBUTIONS = {3: "humble", 7: "jazzy", 9: "kilted"}
TESTED = ("jazzy", "kilted")
TESTED_RMW = "rmw_fastrtps_cpp"
SOURCE_ONE = "source the setup.bash of one ROS 2 alone, in a new shell"
SOURCE_ROS = "source the setup.bash of ROS 2 and of this package, or `make setup` in its folder"


def distribution_name(environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the distribution ("" where unknown) and rclpy's version ("" where it is not installed or says none)."""
    version = rclpy_version()
    return environment.get("ROS_DISTRO") or DISTRIBUTIONS.get(_major(version), ""), version


def rclpy_version() -> str:
    """Return the installed rclpy's version: of a wheel, else of a ROS installation; "" where none is told."""
    version = installed("ros-rclpy") or installed("rclpy") or ""
    for prefix in prefixes():
        manifest = prefix / "share" / "rclpy" / "package.xml"
        if not version and manifest.is_file():
            with contextlib.suppress(ElementTree.ParseError, OSError):  # no version then; rclpy works without it
                version = (ElementTree.parse(manifest).findtext("version") or "").strip()
    return version


def distribution(examination: Examination) -> Iterator[Finding]:
    """Name the ROS distribution; one that this package was never run with may serve all the same."""
    name, version = distribution_name(examination.environment)
    text = f"{name or 'unknown distribution'}, rclpy {version or 'of unknown version'}"
    if not version and examination.graph is None:
        yield warn("ROS", "not found: topics, QoS, clocks, cameras and transport were not looked at", SOURCE_ROS)
    elif name not in TESTED:
        yield warn("ROS", f"{text}; tested are {' and '.join(TESTED)}", f"try it without an arm, or use {TESTED[0]}")
    elif version and DISTRIBUTIONS.get(_major(version)) != name:
        yield warn("ROS", f"{text}, which is not of {name} (ROS_DISTRO)", SOURCE_ONE)
    else:
        yield ok("ROS", text)


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isdigit() else -1


def middleware(examination: Examination) -> Iterator[Finding]:
    """Name the RMW implementation, the domain and the discovery range."""
    graph, environment = examination.graph, examination.environment
    if graph is None:
        if distribution_name(environment)[1]:
            yield fail(
                "RMW",
                f"rclpy does not start: {examination.graph_fault}",
                examination.graph_fix or SOURCE_ROS,
            )
        return
    domain = environment.get("ROS_DOMAIN_ID") or "0"
    discovery = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE") or "SUBNET"
    text = f"{graph.rmw}, domain {domain}, discovery range {discovery}"
    if graph.rmw != TESTED_RMW:
        yield warn("RMW", f"{text}; tested is {TESTED_RMW}", f"export RMW_IMPLEMENTATION={TESTED_RMW}, or try it out")
    elif discovery == "OFF":
        yield warn("RMW", f"{text}: only peers in ROS_STATIC_PEERS are found", "unset ROS_AUTOMATIC_DISCOVERY_RANGE")
    else:
        yield ok("RMW", text)


def running_nodes(examination: Examination) -> Iterator[Finding]:
    """Name the nodes of this package that run."""
    graph = examination.graph
    if graph is None:
        return
    if not graph.vla_nodes:
        yield ok("nodes", f"{len(graph.nodes)} on the graph, no VLA node among them: defaults are compared with")
        return
    for node in graph.vla_nodes:
        if node.parameters:
            yield ok("nodes", f"{node.name} runs and answers")
        else:
            yield warn(
                "nodes",
                f"{node.name} is on the graph and does not answer",
                "a dead node stays there for 20 s: look again; else start it again",
            )
