"""Runs a launch file of the package as `ros2 launch` does; arguments: FILE NAME:=VALUE..."""

import sys

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

file = f"{get_package_share_directory('dysl_vla_ros')}/launch/{sys.argv[1]}"
service = LaunchService()
service.include_launch_description(
    LaunchDescription(
        [
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(file),
                launch_arguments=[argument.split(":=", 1) for argument in sys.argv[2:]],
            )
        ]
    )
)
sys.exit(service.run())
