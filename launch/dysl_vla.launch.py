"""Start the node dysl_vla, configure it and start it playing.

    ros2 launch dysl_vla_ros dysl_vla.launch.py checkpoint:=/path/to/checkpoint image:=/camera/color/image_raw
    ros2 launch dysl_vla_ros dysl_vla.launch.py --show-args

A configure that fails ends the launch, with the node's own reason in the lines before. Later errors do not: the node
stops the arm, goes to unconfigured and waits (`ros2 lifecycle set /dysl_vla configure`). Works on Jazzy and Kilted:
the transitions come from event handlers, since Jazzy's LifecycleNode has no autostart.
"""

import os

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.conditions import IfCondition
from launch.event import Event
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue

from dysl_vla_ros.transport import environment_for_images

# lifecycle_msgs/msg/Transition
CONFIGURE, ACTIVATE = 1, 3

ARGUMENTS = (
    DeclareLaunchArgument(
        "checkpoint", default_value="", description="folder of the policy's checkpoint; empty: as params_file says"
    ),
    DeclareLaunchArgument(
        "params_file", default_value="", description="YAML file of parameters (see config/); empty: defaults"
    ),
    DeclareLaunchArgument("image", default_value="image", description="topic of the camera that paces inference"),
    DeclareLaunchArgument("wrist_image", default_value="wrist_image", description="topic of the camera at the wrist"),
    DeclareLaunchArgument(
        "autostart", default_value="true", description="false: leave the node unconfigured, for a manager to start"
    ),
)


def generate_launch_description() -> LaunchDescription:
    """Describe the launch: the arguments, the DDS transport for images, the node and its transitions."""
    return LaunchDescription([*ARGUMENTS, *transport(), OpaqueFunction(function=node_and_transitions)])


def transport() -> list[SetEnvironmentVariable]:
    """Name the transport under which images arrive, for everything this launch starts from here on."""
    wanted = environment_for_images(os.environ)
    return [SetEnvironmentVariable(name, wanted[name]) for name in wanted if wanted[name] != os.environ.get(name)]


def node_and_transitions(context: LaunchContext) -> list[object]:
    """Make the node from the arguments, which are known by now."""
    checkpoint, params_file, image, wrist_image = (
        LaunchConfiguration(name).perform(context) for name in ("checkpoint", "params_file", "image", "wrist_image")
    )
    parameters: list[object] = [params_file] if params_file else []
    if checkpoint:  # as text, also where it reads like a number; after the file, so that it wins
        parameters.append({"model.checkpoint": ParameterValue(os.path.abspath(checkpoint), value_type=str)})
    node = LifecycleNode(
        package="dysl_vla_ros",
        executable="vla_node",
        name="dysl_vla",
        namespace="",
        parameters=parameters,
        remappings=[("image", image), ("wrist_image", wrist_image)],
        output="screen",
        sigterm_timeout="15",  # s; the end of a running transition and the acknowledged zero twist come first
        on_exit=_end_the_launch,
    )
    autostart = IfCondition(LaunchConfiguration("autostart"))
    failed = [
        LogInfo(msg="dysl_vla could not be configured, see its error above; ending the launch"),
        Shutdown(reason="dysl_vla could not be configured"),
    ]
    return [
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="inactive",
                entities=[EmitEvent(event=_transition(node, ACTIVATE))],
            ),
            condition=autostart,
        ),
        *(
            RegisterEventHandler(
                OnStateTransition(
                    target_lifecycle_node=node, start_state="configuring", goal_state=state, entities=failed
                ),
                condition=autostart,
            )
            for state in ("unconfigured", "errorprocessing")
        ),
        node,
        EmitEvent(event=_transition(node, CONFIGURE), condition=autostart),
    ]


def _end_the_launch(event: Event, context: LaunchContext) -> list[Shutdown]:
    # a second shutdown of one launch makes launch_ros fail
    return [] if context.is_shutdown else [Shutdown(reason="the node dysl_vla has ended")]


def _transition(node: LifecycleNode, number: int) -> Event:
    return ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=number)
