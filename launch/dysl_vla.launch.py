"""Start the node dysl_vla, configure it and start it playing.

    ros2 launch dysl_vla_ros dysl_vla.launch.py checkpoint:=FOLDER image:=/camera/color/image_raw \
        instruction:="open the drawer"
    ros2 launch dysl_vla_ros dysl_vla.launch.py --show-args

A configure that fails ends the launch with the node's own reason and exit code 1. Later errors do not: the node stops
the arm, goes to unconfigured and waits (`ros2 lifecycle set /dysl_vla configure`, then `activate`).
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity

from dysl_vla_ros.launching.actions import declared, orderly_end, supervised, transport, values_of
from dysl_vla_ros.launching.arguments import VLA_ARGUMENTS, vla_program


def generate_launch_description() -> LaunchDescription:
    """Describe the launch: the arguments, the DDS transport for images, the node and its transitions."""
    return LaunchDescription([orderly_end(), *declared(VLA_ARGUMENTS), *transport(), OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Make the node from the arguments, which are known by now."""
    values = values_of(context, VLA_ARGUMENTS)
    pushed = context.launch_configurations.get("ros_namespace", "")
    return supervised(context, vla_program(values, pushed=pushed), values)
