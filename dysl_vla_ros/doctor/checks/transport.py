"""Whether images of this size go through: the shared-memory segment of Fast DDS, and the room in /dev/shm for it.

With a segment smaller than one image, Fast DDS falls back to UDP in pieces, and most images are lost (best effort).
The sender's segment counts: the camera driver needs this environment as much as the node does.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from dysl_vla_ros.doctor.checks.ros import TESTED_RMW, distribution_name
from dysl_vla_ros.doctor.dds_profile import Transport, transport
from dysl_vla_ros.doctor.examination import Examination
from dysl_vla_ros.doctor.finding import Finding, fail, ok, warn
from dysl_vla_ros.doctor.folders import share_folder
from dysl_vla_ros.transport import BEFORE_KILTED, VARIABLE, VARIABLE_BEFORE_KILTED

SHARED_MEMORY = Path("/dev/shm")
IMAGES = 4  # of the largest size that a segment should hold
ASSUMED = (640 * 480 * 3, "640x480 rgb8")  # where no camera was seen
SENDERS = 3  # processes with a segment of their own: camera, node, one more
RECEIVE_BUFFER = 2 * 2**20  # bytes, for middlewares that send images over UDP
PROFILES = {8 * 2**20: "dds.xml", 32 * 2**20: "dds_large_images.xml"}  # segment -> file in config/


def image_size(examination: Examination) -> tuple[int, str]:
    """Return bytes and description of the largest image seen, or of the one assumed."""
    graph = examination.graph
    if graph is not None and (seen := graph.largest_image()) is not None:
        return seen.size, seen.kind
    why = "none arrived" if _published(examination) else "no camera was seen"
    return ASSUMED[0], f"{ASSUMED[1]} ({why}, this is assumed)"


def _published(examination: Examination) -> bool:
    return examination.graph is not None and any(camera.publishers for camera in examination.graph.cameras)


def how_to_set(wanted: int, distribution: str) -> str:
    """Return the commands that give a process a segment of at least ``wanted`` bytes."""
    variable = VARIABLE_BEFORE_KILTED if distribution in BEFORE_KILTED else VARIABLE
    folder = share_folder() / "config"
    for size, name in PROFILES.items():
        if wanted <= size:
            return f"before starting the camera's driver and the node: export {variable}={folder / name}"
    megabytes = -(-wanted // 2**20)
    return (
        f"sed 's/>8388608</>{megabytes * 2**20}</' {folder / 'dds.xml'} > dds.xml, then, before starting the camera's "
        f"driver and the node: export {variable}=$PWD/dds.xml"
    )


def shared_memory(examination: Examination) -> Iterator[Finding]:
    """Compare the segment with the camera's images."""
    graph = examination.graph
    if graph is None:
        return
    if graph.rmw != TESTED_RMW:
        yield from _receive_buffer(graph.rmw)
        return
    distribution, _ = distribution_name(dict(examination.environment))
    yield judge(
        transport(examination.environment, distribution),
        *image_size(examination),
        distribution,
        seen=_published(examination),
        discovery=examination.environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", ""),
    )


def judge(
    chosen: Transport, size: int, kind: str, distribution: str, *, seen: bool = True, discovery: str = ""
) -> Finding:
    """Judge a transport by the size in bytes of the images that must go through."""
    source = chosen.source or "Fast DDS's defaults"
    needed = IMAGES * size
    fix = how_to_set(needed, distribution)
    if chosen.fault:
        return fail("transport", f"{source}: {chosen.fault}", fix)
    if chosen.large_data:
        if discovery == "LOCALHOST":
            return warn("transport", f"{source} is ignored under ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST", fix)
        return ok("transport", f"{source}: images of any size")
    if chosen.segment is None:
        return warn("transport", f"{source}: no shared memory, images go over the network stack", fix)
    held = chosen.segment / size
    text = f"{source}: segment {_megabytes(chosen.segment)} holds {held:.1f} images of {kind}"
    if held < 1.0:
        text += f", {_megabytes(needed)} are needed; most images will be lost"
        return fail("transport", text, fix) if seen else warn("transport", text, fix)
    if held < IMAGES:
        return warn("transport", f"{text}, {_megabytes(needed)} would be safe; images may be lost", fix)
    return ok("transport", text)


def space_for_segments(examination: Examination) -> Iterator[Finding]:
    """Compare the room in /dev/shm with the segments of a camera, the node and one more process."""
    graph = examination.graph
    if graph is None or graph.rmw != TESTED_RMW:
        return
    chosen = transport(examination.environment, distribution_name(dict(examination.environment))[0])
    if chosen.segment is None:
        return
    try:
        room = os.statvfs(SHARED_MEMORY)
    except OSError as error:
        yield fail("shared memory", f"{SHARED_MEMORY}: {error.strerror}", f"mount a tmpfs on {SHARED_MEMORY}")
        return
    yield judge_room(room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize, chosen.segment)


def judge_room(free: int, total: int, segment: int) -> Finding:
    """Judge the bytes free in /dev/shm against :data:`SENDERS` segments."""
    needed = SENDERS * segment
    has = f"{SHARED_MEMORY} has {_megabytes(free)} of {_megabytes(total)} free"
    text = f"{has}; {SENDERS} processes take {_megabytes(needed)}"
    if free >= needed:
        return ok("shared memory", text)
    more = -(-(needed - free + total) // 2**20)
    fix = f"mount -o remount,size={more}m {SHARED_MEMORY} (docker: --shm-size {more}m)"
    return fail("shared memory", text, f"free some (ls {SHARED_MEMORY}), or: {fix}")


def _receive_buffer(rmw: str) -> Iterator[Finding]:
    path = Path("/proc/sys/net/core/rmem_max")
    largest = int(path.read_text()) if path.is_file() else 0
    text = f"{rmw}: segments are not looked at; a socket may buffer {_megabytes(largest)}"
    if largest >= RECEIVE_BUFFER:
        yield ok("transport", text)
    else:
        yield warn("transport", f"{text}, too little for images", f"sysctl -w net.core.rmem_max={2**31 - 1}")


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
