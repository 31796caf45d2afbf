"""Rate, jitter and loss of the cameras, as seen from here."""

from collections.abc import Iterator

from dysl_vla_ros.doctor.examination import Examination
from dysl_vla_ros.doctor.finding import Finding, fail, ok, warn
from dysl_vla_ros.doctor.graph import Camera, Snapshot, spread
from dysl_vla_ros.settings import SafetySettings

LOST = 0.1  # share of the offered images above which the transport is to blame
ENOUGH = 5  # images to judge a rate by
JITTER = 0.5  # of the period: standard deviation above which control will be uneven


def cameras(examination: Examination) -> Iterator[Finding]:
    """Say of each camera whether it is heard; with --live its rate, jitter and loss."""
    graph = examination.graph
    if graph is None:
        return
    if not graph.cameras:
        there = f"image topics without a publisher: {', '.join(graph.image_topics)}" if graph.image_topics else "none"
        yield warn(
            "camera", f"nobody publishes images ({there})", "start the camera's driver, or name its topic: --image"
        )
        return
    node = graph.node
    default = SafetySettings().max_arrival_age
    limit = float(node.parameter("safety.max_arrival_age", default)) if node else default
    for camera in graph.cameras:
        if not camera.readings:
            yield _unheard(camera, graph)
        elif examination.options.live > 0.0:
            yield judge(camera, graph.listened, limit)
        else:
            yield ok("camera", f"{camera.topic}: heard, {camera.readings[0].kind} (rate and jitter: --live)")


def _unheard(camera: Camera, graph: Snapshot) -> Finding:
    listened = f"{graph.listened:.1f} s"
    if not camera.publishers:
        others = [topic for topic in graph.image_topics if topic != camera.topic]
        there = f"there are {', '.join(others)}" if others else "there is no other image topic"
        return fail(
            "camera",
            f"{camera.topic}: nobody publishes it; {there}",
            "start the camera's driver, or remap: image:=TOPIC",
        )
    return fail(
        "camera",
        f"{camera.topic}: {', '.join(camera.publishers)} publishes it, but no image arrived in {listened}",
        "see the lines transport and QoS; give the driver the same DDS profile; a dead publisher stays listed for 20 s",
    )


def judge(camera: Camera, listened: float, max_arrival_age: float) -> Finding:
    """Judge what a camera gave in ``listened`` seconds.

    Args:
        camera: with at least one reading.
        listened: s.
        max_arrival_age: s; a longer gap stops the arm (``safety.max_arrival_age``).
    """
    kind, count = camera.readings[0].kind, len(camera.readings)
    if count < ENOUGH:
        return fail(
            "camera",
            f"{camera.topic}: {count} images of {kind} in {listened:.1f} s",
            "see the line transport; listen longer with --live SECONDS",
        )
    rate, lost, gaps = camera.rate(), camera.lost(), camera.gaps()
    jitter, longest = spread(gaps), max(gaps)
    text = f"{camera.topic}: {kind}, {rate:.1f} Hz, jitter {1e3 * jitter:.1f} ms, longest gap {1e3 * longest:.0f} ms"
    if lost > LOST:
        text += f"; by its stamps the driver gives {camera.offered_rate():.1f} Hz: {100 * lost:.0f} % are lost"
        return fail("camera", text, "see the line transport; give the driver the same DDS profile; free the processor")
    if longest > max_arrival_age:
        return fail(
            "camera",
            f"{text}; the node stops after {max_arrival_age:g} s (safety.max_arrival_age)",
            "find what delays the driver, or raise safety.max_arrival_age",
        )
    if jitter > JITTER / rate:
        return warn("camera", f"{text}: uneven", "free the processor, fix the driver's exposure, look at the network")
    return ok("camera", text)
