"""What a process's environment tells Fast DDS: which profile is read, how large its shared-memory segment is."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dysl_vla_ros.transport import BEFORE_KILTED, VARIABLE, VARIABLE_BEFORE_KILTED

DEFAULT_SEGMENT = 512 * 1024  # bytes, Fast DDS 3.2 without a profile
BUILTIN = "FASTDDS_BUILTIN_TRANSPORTS"


class Transport(NamedTuple):
    """How images leave a process that has this environment."""

    source: str  # variable and value that chose it, "" for the defaults
    segment: int | None  # bytes of shared memory, None: not through shared memory
    large_data: bool = False  # TCP beside shared memory: nothing of this is limited by the segment
    fault: str = ""  # why the profile cannot be what its author wanted


def transport(environment: Mapping[str, str], distribution: str = "") -> Transport:
    """Return the transport that an environment chooses.

    Args:
        environment: of the process.
        distribution: of ROS, which decides on the variable's name.
    """
    older = (distribution or environment.get("ROS_DISTRO", "")) in BEFORE_KILTED
    variable, other = (VARIABLE_BEFORE_KILTED, VARIABLE) if older else (VARIABLE, VARIABLE_BEFORE_KILTED)
    if path := environment.get(variable) or environment.get(other):
        named = f"{variable if environment.get(variable) else other}={path}"
        return _from_profile(Path(path), named)
    if builtin := environment.get(BUILTIN):
        named = f"{BUILTIN}={builtin}"
        if builtin.startswith("LARGE_DATA"):
            return Transport(named, DEFAULT_SEGMENT, large_data=True)
        return Transport(named, None if builtin.startswith(("UDP", "TCP")) else DEFAULT_SEGMENT)
    return Transport("", DEFAULT_SEGMENT)


def _from_profile(path: Path, named: str) -> Transport:
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        return Transport(named, DEFAULT_SEGMENT, fault=f"it cannot be read ({error}); Fast DDS then takes its defaults")
    for element in root.iter():  # the namespace says nothing here
        element.tag = element.tag.rpartition("}")[2]
    descriptors = {
        (descriptor.findtext("transport_id") or "").strip(): descriptor
        for descriptor in root.iter("transport_descriptor")
    }
    default = next((p for p in root.iter("participant") if p.get("is_default_profile") == "true"), None)
    if default is None:
        return Transport(named, DEFAULT_SEGMENT, fault='no participant in it has is_default_profile="true"')
    wanted = [(e.text or "").strip() for transports in default.iter("userTransports") for e in transports]
    shared = [d for name in wanted if (d := descriptors.get(name)) is not None and d.findtext("type") == "SHM"]
    if shared:
        text = (shared[0].findtext("segment_size") or "").strip()
        return Transport(named, int(text) if text.isdigit() else DEFAULT_SEGMENT)
    builtin = (default.findtext(".//useBuiltinTransports") or "true").strip() != "false"
    return Transport(named, DEFAULT_SEGMENT if builtin else None)
