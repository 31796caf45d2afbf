"""Runs the package's launch file with the arguments given as NAME:=VALUE, as `ros2 launch` does."""

import sys

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

service = LaunchService()
service.include_launch_description(
    LaunchDescription(
        [
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(
                    f"{get_package_share_directory('dysl_vla_ros')}/launch/dysl_vla.launch.py"
                ),
                launch_arguments=[argument.split(":=", 1) for argument in sys.argv[1:]],
            )
        ]
    )
)
sys.exit(service.run())
