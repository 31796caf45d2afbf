"""The nodes as launch actions. Needs `launch` and `launch_ros`, of Jazzy or later, and nothing else."""

import os
from collections.abc import Mapping

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.event import Event
from launch.launch_description_entity import LaunchDescriptionEntity
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from dysl_vla_ros.launching.arguments import PACKAGE, Argument, Program, number, truth
from dysl_vla_ros.launching.processes import ended_with_the_launch, waiting_for_signals
from dysl_vla_ros.launching.signals import end_in_order
from dysl_vla_ros.launching.supervisor import LaunchFailed, Supervisor
from dysl_vla_ros.transport import environment_for_images

# s from the end of the launch, when a node is sent SIGINT, to SIGTERM, and from there to SIGKILL. A node ends at the
# first signal, within about a second; SIGTERM means the same to it, and brings an ERROR of the launch.
TERMINATE_AFTER, KILL_AFTER = "4", "0.5"
RESPAWN_DELAY = 1.0  # s; launch then learns of a wanted end before it starts the process again


def declared(arguments: Mapping[str, Argument]) -> list[DeclareLaunchArgument]:
    """Declare arguments, in the order in which `--show-args` shows them."""
    return [
        DeclareLaunchArgument(
            name,
            default_value=argument.default,
            description=argument.description,
            choices=list(argument.choices) or None,
        )
        for name, argument in arguments.items()
    ]


def values_of(context: LaunchContext, arguments: Mapping[str, Argument]) -> dict[str, str]:
    """Return the values of declared arguments, which are known when the launch runs."""
    return {name: context.launch_configurations[name] for name in arguments}


def transport() -> list[SetEnvironmentVariable]:
    """Name the transport under which images arrive, for everything this launch starts from here on."""
    wanted = environment_for_images(os.environ)
    return [SetEnvironmentVariable(name, wanted[name]) for name in wanted if wanted[name] != os.environ.get(name)]


def orderly_end() -> OpaqueFunction:
    """Have signals to the launch end it in order; stands before everything else."""
    return OpaqueFunction(function=end_in_order)


def supervised(context: LaunchContext, program: Program, values: Mapping[str, str]) -> list[LaunchDescriptionEntity]:
    """Return a lifecycle node with what configures, activates and, if so wanted, respawns it.

    Raises:
        SettingError: ``autostart``, ``respawn`` or ``respawn_max`` is wrong.
    """
    respawns = number(values, "respawn_max", int, low=0) if truth(values, "respawn") else 0
    supervisor = Supervisor(program.name, truth(values, "autostart"), respawns)
    node = Node(
        **_options(context, program),
        respawn=respawns > 0,
        respawn_delay=RESPAWN_DELAY,
        respawn_max_retries=respawns,
        on_exit=supervisor.on_exit,
    )
    return [*supervisor.handlers(node), *ended_with_the_launch(node)]


def plain(context: LaunchContext, program: Program) -> list[LaunchDescriptionEntity]:
    """Return a node without a lifecycle; when it ends, the launch ends."""

    def on_exit(event: Event, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        if context.is_shutdown:
            return []
        if event.returncode == 0:
            return [Shutdown(reason=f"the node {program.name} has ended")]
        raise LaunchFailed(f"{program.executable} ended with exit code {event.returncode}: see its error above")

    return ended_with_the_launch(Node(**_options(context, program), on_exit=on_exit))


def _options(context: LaunchContext, program: Program) -> dict[str, object]:
    own = {name: _typed(value) for name, value in program.parameters.items()}
    return {
        "package": PACKAGE,
        "executable": program.executable,
        "exec_name": program.executable,
        "name": program.name,
        "namespace": program.namespace,
        "parameters": [*program.parameter_files, own],
        "remappings": list(program.remappings),
        "ros_arguments": list(program.ros_arguments),
        "output": "screen",
        "sigterm_timeout": TERMINATE_AFTER,
        "sigkill_timeout": KILL_AFTER,
        **waiting_for_signals(context),
    }


def _typed(value: object) -> ParameterValue:
    """Keep the type: launch_ros would read the text "1" as a number."""
    return ParameterValue(value, value_type=type(value))
