"""ROS 2 parameter files outside ROS: what ``params_file:=`` gives the node, for replay, evaluation and tuning alike.

Read as rcl does: entries whose node name matches, wildcards included, later ones over earlier ones; names nested or
with dots. Stricter than ROS in one thing: a name that the node does not have is refused, where rclpy ignores it.
"""

import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.settings import GROUPS, ControlSettings, GuidanceSettings, RuntimeSettings, SkippingSettings, build

NODE = "dysl_vla"
OTHER_NAMES = ("qos_overrides", "use_sim_time", "start_type_description_service")  # every ROS node has them
FIELDS = {f"{group.group}.{field.name}": field for group in GROUPS for field in dataclasses.fields(group)}


@dataclass(frozen=True)
class FileSettings:
    """Every group as a file sets it; what the file leaves out has its default."""

    groups: Mapping[str, Any]  # "guidance" -> GuidanceSettings, ...
    given: tuple[str, ...]  # names that the file sets, "guidance.step"

    @property
    def control(self) -> ControlSettings:
        """How chunks are played."""
        return self.groups[ControlSettings.group]

    @property
    def runtime(self) -> RuntimeSettings:
        """What goes with an inference."""
        return RuntimeSettings(
            self.groups[SkippingSettings.group],
            self.groups[GuidanceSettings.group],
            self.control.actions_per_inference,
        )


def read_params_file(path: Path, node: str = NODE) -> FileSettings:
    """Read the parameters that ``path`` gives a node of name ``node``, in whatever namespace.

    Raises:
        SettingError: the file cannot be read, is no parameter file, has nothing for this node, or has names and values
            that the node would not take; all faults at once.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror or error}; name a parameter file") from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        found = " ".join(str(error).split())
        raise SettingError(f"{path} cannot be read as YAML: {found}; name a ROS 2 parameter file") from error
    entries = _entries(document, path)
    values: dict[str, Any] = {}
    for name, parameters in entries.items():
        if name.rsplit("/", 1)[-1] in (node, "*", "**"):
            values |= _flat(parameters)
    if not entries:
        raise SettingError(
            f"{path} has no ros__parameters; expected a ROS 2 parameter file, such as `ros2 param dump /{node}` writes"
        )
    if not values:
        heard = ", ".join(name.removeprefix("/") for name in entries)
        raise SettingError(f"{path} has parameters for {heard}, none for the node {node}; name it, or /**")
    faults, grouped = [], {group.group: {} for group in GROUPS}  # type: tuple[list[str], dict[str, dict[str, Any]]]
    for name, value in values.items():
        group, _, key = name.partition(".")
        if name in FIELDS:
            grouped[group][key] = value
        elif group not in OTHER_NAMES:
            faults.append(f"{name} is unknown{nearest(name)}")
    built = {}
    for kind in GROUPS:
        try:
            built[kind.group] = build(kind, grouped[kind.group])
        except SettingError as error:
            faults.append(str(error))
    if faults:
        raise SettingError(f"{path}: {'; '.join(faults)}")
    return FileSettings(built, tuple(name for name in values if name in FIELDS))


def nearest(name: str) -> str:
    """Return a hint at the parameter that ``name`` was probably meant to be."""
    near = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; the groups are {', '.join(group.group for group in GROUPS)}"


def params_text(values: Mapping[str, Any], comment: str, node: str = NODE) -> str:
    """Return a parameter file with these values ("guidance.step": 0.1), each with its meaning and unit above it.

    Args:
        values: names of :data:`FIELDS`, values as the settings take them.
        comment: the file's head, lines without ``#``.
        node: that gets them, in whatever namespace.

    Raises:
        SettingError: a value that the node would refuse.
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines += ["", f"/**/{node}:", "  ros__parameters:"]
    for kind in GROUPS:
        own = {name: value for name, value in values.items() if name.startswith(kind.group + ".")}
        build(kind, {name.partition(".")[2]: value for name, value in own.items()})
        if own:
            lines.append(f"    {kind.group}:")
        for name, value in own.items():
            meta = FIELDS[name].metadata
            lines.append(f"      # {meta['meaning']}" + (f" [{meta['unit']}]" if meta["unit"] else ""))
            lines.append(f"      {name.partition('.')[2]}: {_scalar(value)}")
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    """Write a value so that ROS reads the same type: a double keeps its point (YAML 1.1 takes 1e-05 for a text)."""
    text = json.dumps(value)
    return text.replace("e", ".0e", 1) if isinstance(value, float) and "e" in text and "." not in text else text


def _entries(document: Any, path: Path) -> dict[str, Mapping[str, Any]]:
    """Return node name -> its ``ros__parameters``, of a file that nests namespaces or does not."""
    found: dict[str, Mapping[str, Any]] = {}

    def walk(part: Any, name: str) -> None:
        for key, below in part.items() if isinstance(part, Mapping) else ():
            if key != "ros__parameters":
                walk(below, f"{name}/{str(key).strip('/')}")
            elif isinstance(below, Mapping):
                found[name] = below
            else:
                raise SettingError(f"{path}: ros__parameters of {name or 'the file'} holds {below!r:.60}, no names")

    walk(document, "")
    return found


def _flat(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in parameters.items():
        name = f"{prefix}{key}"
        values |= _flat(value, name + ".") if isinstance(value, Mapping) else {name: value}
    return values
