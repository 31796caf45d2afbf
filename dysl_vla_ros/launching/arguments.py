"""The arguments of the launch files, and the programs that they lead to.

Imports no `launch`: what an argument does can be tested, and read, where only the package is.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.params_file import fitting, misfit, read_sections
from dysl_vla_ros.simulation.tasks import TASKS, task_named

PACKAGE = "dysl_vla_ros"
VLA, SIM, RECORDER = "dysl_vla", "sim", "bag_recorder"  # names of the nodes
YES, NO = ("true", "True"), ("false", "False")


@dataclass(frozen=True)
class Argument:
    """One argument of a launch file; ``choices``: empty means any text."""

    default: str
    description: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """A node's program and everything that it is started with.

    Attributes:
        executable: name in programs.txt.
        name: of the node.
        namespace: as given, "" for that of the launch.
        parameter_files: read in this order, before ``parameters``.
        parameters: parameter to value, of the parameter's own type.
        remappings: pairs of topic and new topic.
        ros_arguments: what else follows ``--ros-args``.
    """

    executable: str
    name: str
    namespace: str = ""
    parameter_files: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    ros_arguments: tuple[str, ...] = ()


# Topics of the node `dysl_vla` by the argument that remaps them.
TOPICS = {
    "image": "image",
    "wrist_image": "wrist_image",
    "instruction_topic": "instruction",
    "ee_pose": "ee_pose",
    "gripper_state": "gripper_state",
    "joint_states": "joint_states",
    "twist": "~/twist",
    "gripper": "~/gripper",
}

LIFE = {
    "autostart": Argument(
        "true", "configure and activate the node; false: leave it unconfigured, for a manager or you", YES + NO
    ),
    "respawn": Argument(
        "false",
        "start a node whose process died again, and activate it if it was active; one that went to unconfigured by "
        "itself stays there",
        YES + NO,
    ),
    "respawn_max": Argument("3", "how often at most, then the launch ends with exit code 1"),
    "log_level": Argument("info", "debug, info, warn, error or fatal; LOGGER:=LEVEL for one logger"),
}
POLICY = {
    "checkpoint": Argument("", "folder of the policy's checkpoint; empty: as params_file says"),
    "adapters": Argument(
        "", "DySL folder; empty: as params_file says, or the checkpoint's own `dysl` folder, full depth if it has none"
    ),
    "params_file": Argument(
        "",
        "YAML file of parameters, or the name of one of the package's own (moveit_servo.yaml, ...); empty: defaults",
    ),
    "device": Argument("", "where the policy runs (parameter model.device); empty: as params_file says"),
    "instruction": Argument("", "what to do from the start, in words; empty: wait for the topic of the instruction"),
}
VLA_ARGUMENTS = {
    **POLICY,
    "namespace": Argument("", "ROS namespace of the node and its relative topics, one for each robot"),
    "image": Argument("image", "topic of the camera that paces inference"),
    "wrist_image": Argument("wrist_image", "topic of the camera at the wrist, if the policy names one"),
    "instruction_topic": Argument("instruction", "topic of the instructions (std_msgs/String)"),
    "ee_pose": Argument("ee_pose", "topic of the end effector's pose, if the policy declares it"),
    "gripper_state": Argument("gripper_state", "topic of the gripper's opening, if the policy declares it"),
    "joint_states": Argument("joint_states", "topic of the joints, if the policy declares them"),
    "twist": Argument("~/twist", "topic that the commanded twist goes to"),
    "gripper": Argument("~/gripper", "topic that the commanded opening of the gripper goes to"),
    "use_sim_time": Argument("", "take the time from /clock; empty: as params_file says, or false", ("", *YES, *NO)),
    **LIFE,
}
# A recording names its topics from the root; the node's own go into a namespace, where no arm listens.
REPLAY_ARGUMENTS = {
    **{name: argument for name, argument in VLA_ARGUMENTS.items() if name != "use_sim_time"},
    "namespace": Argument("replay", "ROS namespace of what the node publishes, so that no arm hears its commands"),
    **{
        name: Argument(f"/{topic}", VLA_ARGUMENTS[name].description)
        for name, topic in TOPICS.items()
        if not topic.startswith("~")
    },
}


def demo_arguments() -> dict[str, Argument]:
    """Return the arguments of the demo, whose defaults name what is installed with the package."""
    return {
        "task": Argument("reach", "what the simulated scene is laid out for", tuple(TASKS)),
        "seed": Argument("10000", "which layout of the objects"),
        "scene_rate": Argument("10.0", "pictures a second on sim/scene_image, up to 20; 0: none"),
        **POLICY,
        "checkpoint": Argument(
            "", "folder of the policy's checkpoint; empty: as params_file says, or the policy shipped with the package"
        ),
        "params_file": Argument("simulated_arm.yaml", POLICY["params_file"].description),
        "instruction": Argument("", "what to do, in words; empty: as params_file says, or the task's own instruction"),
        "record": Argument("", "folder for a bag of everything a robot would record; new or empty; empty: none"),
        "namespace": Argument("", "ROS namespace of all nodes"),
        **LIFE,
    }


def share_folder() -> Path:
    """Return the package's installed share folder."""
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory(PACKAGE))


def shipped_checkpoint() -> Path:
    """Return the folder of the shipped policy."""
    return share_folder() / "checkpoints" / "reference"


def vla_program(
    values: Mapping[str, str],
    use_sim_time: bool | None = None,
    pushed: str = "",
    otherwise: Mapping[str, str] | None = None,
) -> Program:
    """Say how the node `dysl_vla` is started: an argument that was not given overrides nothing of params_file.

    Args:
        values: argument to text; those that a launch file does not have are absent.
        use_sim_time: None: as the argument of that name says, where there is one and it is given.
        pushed: namespace that the launch files around this one have pushed.
        otherwise: parameters that count where neither an argument nor params_file gives them.

    Raises:
        SettingError: params_file does not exist, cannot be read or has nothing for this node; a truth value is none.
    """
    files = parameter_files(values.get("params_file", ""))
    given = given_by(files, full_name(values.get("namespace", ""), pushed))
    parameters: dict[str, Any] = {
        parameter: value
        for parameter, value in (
            ("model.checkpoint", path(values, "checkpoint")),
            ("model.adapters", path(values, "adapters")),
            ("model.device", values.get("device", "")),
            ("control.instruction", values.get("instruction", "")),
        )
        if value
    }
    for name, value in (otherwise or {}).items():
        if not given.get(name):
            parameters.setdefault(name, value)
    if use_sim_time is None and values.get("use_sim_time"):
        use_sim_time = truth(values, "use_sim_time")
    if use_sim_time is not None:
        parameters["use_sim_time"] = use_sim_time
    return Program(
        executable="vla_node",
        name=VLA,
        namespace=values.get("namespace", ""),
        parameter_files=files,
        parameters=parameters,
        remappings=tuple(
            (topic, values[name]) for name, topic in TOPICS.items() if values.get(name, topic) not in ("", topic)
        ),
        ros_arguments=_log_level(values),
    )


def sim_program(values: Mapping[str, str]) -> Program:
    """Say how the simulated robot `sim` is started, driven by `dysl_vla` of the same namespace.

    Raises:
        SettingError: seed or scene_rate is no number.
    """
    return Program(
        executable="sim_node",
        name=SIM,
        namespace=values["namespace"],
        parameters={
            "task": values["task"],
            "seed": number(values, "seed", int),
            "scene.rate": number(values, "scene_rate", float),
        },
        remappings=(("twist", f"{VLA}/twist"), ("gripper", f"{VLA}/gripper")),
        ros_arguments=_log_level(values),
    )


def recorder_program(values: Mapping[str, str]) -> Program:
    """Say how the recorder of the demo's bag is started."""
    return Program(
        executable="bag_recorder",
        name=RECORDER,
        namespace=values["namespace"],
        parameters={"folder": path(values, "record")},
        ros_arguments=_log_level(values),
    )


def demo_programs(values: Mapping[str, str], pushed: str = "") -> tuple[tuple[Program, ...], Program]:
    """Return the simulated robot, with a recorder if so wanted, and the node that drives it.

    Where neither an argument nor params_file says so, it is the shipped policy and the task's own instruction.

    Raises:
        SettingError: an argument is wrong.
        DataError: there is no such task.
    """
    otherwise = {
        "model.checkpoint": str(shipped_checkpoint()),
        "control.instruction": task_named(values["task"]).instruction,
    }
    others = (sim_program(values), *([recorder_program(values)] if values["record"] else []))
    return others, vla_program(values, pushed=pushed, otherwise=otherwise)


def full_name(namespace: str, pushed: str = "") -> str:
    """Return the name of the node `dysl_vla` in a namespace, which lies in the one pushed unless it is absolute."""
    parts = namespace if namespace.startswith("/") else f"{pushed}/{namespace}"
    return "".join(f"/{part}" for part in [*parts.split("/"), VLA] if part)


def given_by(files: tuple[str, ...], node: str) -> dict[str, Any]:
    """Return what parameter files give a node of that full name.

    Raises:
        SettingError: one of them cannot be read, or gives it nothing.
    """
    given: dict[str, Any] = {}
    for file in files:
        sections = read_sections(Path(file))
        if fault := misfit(Path(file), sections, node):
            raise SettingError(f"params_file: {fault}")
        given |= fitting(sections, node)
    return given


def truth(values: Mapping[str, str], name: str) -> bool:
    """Return an argument as a truth value.

    Raises:
        SettingError: it is none.
    """
    if values[name] not in YES + NO:
        raise SettingError(f"{name} must be true or false, not {values[name]!r}")
    return values[name] in YES


def number(values: Mapping[str, str], name: str, kind: type[int] | type[float], low: float | None = None) -> Any:
    """Return an argument as a number of that kind.

    Raises:
        SettingError: it is none, or below ``low``.
    """
    try:
        value = kind(values[name])
    except ValueError as error:
        wanted = "a whole number" if kind is int else "a number"
        raise SettingError(f"{name} must be {wanted}, not {values[name]!r}") from error
    if low is not None and value < low:
        raise SettingError(f"{name} must be at least {low:g}, not {values[name]}")
    return value


def path(values: Mapping[str, str], name: str) -> str:
    """Return a path argument, absolute ("" stays empty): `launch` and the node may have different current folders."""
    text = values.get(name, "")
    return os.path.abspath(os.path.expanduser(text)) if text else ""


def parameter_files(text: str) -> tuple[str, ...]:
    """Return the file that ``params_file`` means, none for "": a path, or the bare name of one of the package's own.

    Raises:
        SettingError: there is no such file (launch_ros itself would go on without it).
    """
    if not text:
        return ()
    files = (share_folder() / "config").glob("*.yaml")
    own = sorted(file.name for file in files if f"/{VLA}:" in file.read_text(encoding="utf-8"))
    file = path({"params_file": text}, "params_file")
    if not os.path.isfile(file):
        if text not in own:
            raise SettingError(f"params_file: there is no file {file}; the package's own are {', '.join(own)}")
        file = str(share_folder() / "config" / text)
    return (file,)


def _log_level(values: Mapping[str, str]) -> tuple[str, ...]:
    return ("--log-level", values["log_level"])
