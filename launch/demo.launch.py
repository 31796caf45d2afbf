"""Start a simulated arm and the node dysl_vla that drives it by the shipped policy.

    ros2 launch dysl_vla_ros demo.launch.py task:=drawer-open
    ros2 topic echo /dysl_vla/skip_report
    ros2 service call /sim/reset dysl_vla_ros/srv/ResetScene "{task: push, seed: 3}"

The scene is on /sim/scene_image (rqt_image_view, Foxglove). `record:=DIR` writes a bag of everything a robot
would record. Needs the simulator (requirements/simulation.txt).
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity

from dysl_vla_ros.launching.actions import declared, orderly_end, plain, supervised, transport, values_of
from dysl_vla_ros.launching.arguments import demo_arguments, demo_programs


def generate_launch_description() -> LaunchDescription:
    """Describe the launch: the arguments, the DDS transport for images, the nodes and the transitions."""
    return LaunchDescription([orderly_end(), *declared(demo_arguments()), *transport(), OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Make the nodes from the arguments, which are known by now."""
    values = values_of(context, demo_arguments())
    others, policy = demo_programs(values, context.launch_configurations.get("ros_namespace", ""))
    return [entity for program in others for entity in plain(context, program)] + supervised(context, policy, values)
