"""Start the node dysl_vla on the time of a recording, for `ros2 bag play --clock`.

    ros2 launch dysl_vla_ros replay.launch.py checkpoint:=FOLDER image:=/camera/color/image_raw
    ros2 bag play BAG --clock

The node lives in the namespace `replay` and hears the topics of the recording by their absolute names: no arm hears
what it commands, and the recording's own commands are not taken for its. Without `/clock`, or while that stands still,
it commands nothing. For numbers rather than a look, use `dysl_vla replay BAG`.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity

from dysl_vla_ros.launching.actions import declared, orderly_end, supervised, transport, values_of
from dysl_vla_ros.launching.arguments import REPLAY_ARGUMENTS, vla_program


def generate_launch_description() -> LaunchDescription:
    """Describe the launch: the arguments, the DDS transport for images, the node and its transitions."""
    return LaunchDescription([orderly_end(), *declared(REPLAY_ARGUMENTS), *transport(), OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Make the node from the arguments, which are known by now."""
    values = values_of(context, REPLAY_ARGUMENTS)
    pushed = context.launch_configurations.get("ros_namespace", "")
    return supervised(context, vla_program(values, use_sim_time=True, pushed=pushed), values)
