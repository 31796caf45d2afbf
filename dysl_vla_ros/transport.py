"""The DDS transport under which images arrive: ``config/dds.xml``, named in the environment of every process.

Measured (Fast DDS 3.2, 640x480 rgb8 at 30 Hz, best effort): 20 of 60 images with the defaults, 60 of 60 with the
profile. ``FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA`` does as well, but rmw_fastrtps ignores it under
``ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST``, and a node with it cannot hear a camera on another machine without it.
The variable must be set before a process makes its first node, in every process that sends or receives images.
"""

from collections.abc import Mapping
from pathlib import Path

VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
VARIABLE_BEFORE_KILTED = "FASTRTPS_DEFAULT_PROFILES_FILE"
BEFORE_KILTED = ("humble", "iron", "jazzy")
# Whoever sets one of these has chosen a transport; it is left as it is.
CHOICES_OF_THE_USER = (VARIABLE, VARIABLE_BEFORE_KILTED, "FASTDDS_BUILTIN_TRANSPORTS")


def environment_for_images(environment: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of ``environment`` that names the profile for images, unless it names a transport already."""
    result = dict(environment)
    if not any(result.get(name) for name in CHOICES_OF_THE_USER):
        older = result.get("ROS_DISTRO") in BEFORE_KILTED
        result[VARIABLE_BEFORE_KILTED if older else VARIABLE] = str(profile())
    return result


def profile() -> Path:
    """Return the installed ``config/dds.xml``."""
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory("dysl_vla_ros")) / "config" / "dds.xml"
