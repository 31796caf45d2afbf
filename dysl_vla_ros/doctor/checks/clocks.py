"""Stamps against the clock that the node will compare them with; /clock and use_sim_time."""

import math
import statistics
from collections.abc import Iterator

from dysl_vla_ros.control.publishers import doubled_fix, doubled_text
from dysl_vla_ros.doctor.examination import Examination
from dysl_vla_ros.doctor.finding import Finding, fail, ok, warn
from dysl_vla_ros.doctor.graph import Camera, Snapshot
from dysl_vla_ros.settings import SafetySettings

CLOCK = "/clock"
NTP = "synchronise both machines (chrony, ntpd or PTP), or let the driver stamp with the ROS clock"


def uses_sim_time(graph: Snapshot) -> bool:
    """Tell whether stamps are to be compared with /clock: as the running node says, else where /clock is published."""
    node = graph.node
    return bool(node.parameter("use_sim_time", bool(graph.clock_publishers)) if node else graph.clock_publishers)


def sim_time(examination: Examination) -> Iterator[Finding]:
    """Compare who publishes /clock with the node's use_sim_time."""
    graph = examination.graph
    if graph is None:
        return
    node, publishers = graph.node, ", ".join(graph.clock_publishers)
    told = node is not None and "use_sim_time" in node.parameters
    if node is not None and told and uses_sim_time(graph) and not publishers:
        yield fail(
            "clock",
            f"{node.name} has use_sim_time and nobody publishes /clock: it will never move",
            "start the simulator or `ros2 bag play --clock`, or use_sim_time:=false",
        )
    elif node is not None and told and not uses_sim_time(graph) and publishers:
        yield warn(
            "clock",
            f"{publishers} publishes /clock, but {node.name} has use_sim_time false",
            "start it with use_sim_time:=true where its cameras are simulated or from a bag",
        )
    elif doubled := next((found for found in graph.doubled if found.topic == CLOCK), None):
        yield fail("clock", f"{doubled_text(CLOCK, doubled.nodes)}: it jumps to and fro", doubled_fix(CLOCK))
    elif len(graph.clock_publishers) > 1:
        yield warn(
            "clock",
            f"{publishers} are listed as publishers of /clock",
            "end all but one of them; a dead one stays listed for 20 s (which of them give the time: --live)",
        )
    elif publishers and not graph.clocks:
        yield warn(
            "clock",
            f"{publishers} publishes /clock, but it stands still: it is paused, or gone",
            "let it go on; a dead publisher stays listed for 20 s",
        )
    elif publishers:
        steady = graph.clocks[-1][0] - graph.clocks[0][0]
        pace = (graph.clocks[-1][1] - graph.clocks[0][1]) / steady if steady > 0.0 else math.nan
        at = f", at {pace:.2f} of real time" if math.isfinite(pace) else ""
        yield ok("clock", f"/clock by {publishers}{at}")
    else:
        yield ok("clock", "the system's; nobody publishes /clock")


def stamps(examination: Examination) -> Iterator[Finding]:
    """Compare each camera's stamps with the clock at their arrival."""
    graph = examination.graph
    if graph is None:
        return
    node, defaults = graph.node, SafetySettings()
    ahead, behind = (
        float(node.parameter(f"safety.{name}", getattr(defaults, name)) if node else getattr(defaults, name))
        for name in ("max_clock_skew", "max_stamp_age")
    )
    for camera in graph.cameras:
        if camera.readings:
            yield judge(camera, uses_sim_time(graph), ahead, behind)


def judge(camera: Camera, sim: bool, max_ahead: float, max_age: float) -> Finding:
    """Judge the stamps of a camera that was heard.

    Args:
        camera: with at least one reading.
        sim: compare with /clock, where it was heard by then.
        max_ahead: s (``safety.max_clock_skew``).
        max_age: s (``safety.max_stamp_age``).
    """
    topic = camera.topic
    if any(reading.stamp == 0.0 for reading in camera.readings):
        return fail("stamps", f"{topic}: stamp 0: the driver does not stamp its images", "use a driver that does")
    clock = "/clock" if sim else "this machine's clock"
    times = [(reading.sim if sim else reading.clock) for reading in camera.readings]
    ages = [now - reading.stamp for now, reading in zip(times, camera.readings, strict=True) if math.isfinite(now)]
    if not ages:
        return warn("stamps", f"{topic}: no /clock was heard to compare them with", "see the line clock")
    if len(camera.readings) > 1 and len({reading.stamp for reading in camera.readings}) == 1:
        text = f"{topic}: the same stamp on {len(camera.readings)} images: the node takes the camera for frozen"
        return fail("stamps", text, "start the driver again; it must stamp each image anew")
    age = statistics.median(ages)
    if age < -max_ahead:
        return fail(
            "stamps",
            f"{topic}: {-age:.3f} s ahead of {clock}; the node refuses more than {max_ahead:g} s "
            "(safety.max_clock_skew)",
            NTP,
        )
    if age > max_age:
        return fail(
            "stamps",
            f"{topic}: {age:.3f} s behind {clock}; the node stops at more than {max_age:g} s (safety.max_stamp_age)",
            NTP if not sim else "see the line clock",
        )
    return ok("stamps", f"{topic}: images are {1e3 * age:.0f} ms old by {clock} when they arrive")
