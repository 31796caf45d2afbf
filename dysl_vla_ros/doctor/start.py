"""Whether rclpy starts here, asked of a child process: where it cannot, it may end or hang the process that tries."""

import subprocess
import sys
from collections.abc import Mapping

from dysl_vla_ros.ros_environment import EnvironmentFault, environment_fault

LIMIT = 30.0  # s for a child that makes one node
WITHOUT_LOG_FILE = ("--ros-args", "--disable-external-lib-logs")  # or it needs a home
PROGRAM = f"""
import rclpy
rclpy.init(args={list(WITHOUT_LOG_FILE)!r})
node = rclpy.create_node("dysl_vla_doctor_start", enable_rosout=False, start_parameter_services=False)
node.destroy_node()
rclpy.shutdown()
print("started", flush=True)
"""
FIX = "see that the setup.bash of one ROS 2 alone is sourced, with its own Python; the line above is ROS's own"


def start_fault(environment: Mapping[str, str], limit: float = LIMIT) -> EnvironmentFault | None:
    """Return why rclpy does not start in ``environment``; None: it does."""
    if fault := environment_fault(environment):
        return fault
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=dict(environment), capture_output=True, text=True, errors="replace",
            timeout=limit, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return EnvironmentFault(
            f"a process that makes one node did not come back within {limit:g} s",
            "see whether another daemon or a network interface that hangs is in its way (ros2 daemon stop; ip link)",
        )
    if "started" in done.stdout:
        return None
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return EnvironmentFault(said[-1][:300] if said else f"it ended with exit code {done.returncode}", FIX)
