"""Runs a launch file of the package as `ros2 launch` does; arguments: FILE NAME:=VALUE..."""

import sys
from collections.abc import Sequence

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource


def including(file: str, arguments: Sequence[str]) -> LaunchDescription:
    """Describe a launch of that file with these arguments."""
    source = PythonLaunchDescriptionSource(f"{get_package_share_directory('dysl_vla_ros')}/launch/{file}")
    given = [argument.split(":=", 1) for argument in arguments]
    return LaunchDescription([IncludeLaunchDescription(source, launch_arguments=given)])


if __name__ == "__main__":
    service = LaunchService()
    service.include_launch_description(including(sys.argv[1], sys.argv[2:]))
    sys.exit(service.run())
