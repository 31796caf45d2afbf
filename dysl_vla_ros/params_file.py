"""ROS 2 parameter files outside ROS: what ``params_file:=`` gives the node, for replay, evaluation and tuning alike.

Read as rcl does: sections whose node name fits, wildcards included, later ones over earlier ones; names nested or
with dots. Stricter than ROS in two things: a file of which no section fits the node is refused, and so is a name that
the node does not have; ROS ignores both in silence.
"""

import dataclasses
import difflib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.policy_options import PolicyOptions
from dysl_vla_ros.robot_contract import RobotContract, contract_of, entry_fault, is_entry
from dysl_vla_ros.settings import (
    GROUPS,
    ControlSettings,
    GuidanceSettings,
    ModelSettings,
    RuntimeSettings,
    SkippingSettings,
    build,
    old_names,
)

_log = logging.getLogger("dysl_vla.parameters")

NODE = "dysl_vla"
OTHER_NAMES = ("qos_overrides", "use_sim_time", "start_type_description_service")  # every ROS node has them
FIELDS = {f"{group.group}.{field.name}": field for group in GROUPS for field in dataclasses.fields(group)}


@dataclass(frozen=True)
class FileSettings:
    """Every group as a file sets it; what the file leaves out has its default."""

    groups: Mapping[str, Any]  # "guidance" -> GuidanceSettings, ...
    given: tuple[str, ...]  # names that the file sets, "guidance.step"
    robot: RobotContract = RobotContract()  # what it says of the arm

    @property
    def options(self) -> PolicyOptions:
        """What it says that a checkpoint's files do not."""
        return PolicyOptions.of(self.groups[ModelSettings.group], self.robot)

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
    """Read the parameters that ``path`` gives a node of name ``node``, in the namespace that the file names.

    Raises:
        SettingError: the file cannot be read, is no parameter file, has nothing for this node or for several of the
            name, or has names and values that the node would not take; all faults at once.
    """
    sections = read_sections(path)
    full_name = _only_name(sections, node, path)
    values = fitting(sections, full_name)
    if not values:
        raise SettingError(f"{path} {_names(sections)}, none for the node {node}; name it, or /**")
    faults, grouped = [], {group.group: {} for group in GROUPS}  # type: tuple[list[str], dict[str, dict[str, Any]]]
    for name, value in values.items():
        group, _, key = name.partition(".")
        if name in FIELDS:
            grouped[group][key] = value
        elif is_entry(name):
            faults += [fault] if (fault := entry_fault(name, value)) else []
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
    for warning in old_names(values):
        _log.warning("%s: %s", path, warning)
    robot = contract_of({name: value for name, value in values.items() if is_entry(name)})
    return FileSettings(built, tuple(name for name in values if name in FIELDS), robot)


Sections = Mapping[str, Mapping[str, Any]]  # "/left/dysl_vla", wildcards included -> what stands below ros__parameters


def read_sections(path: Path) -> Sections:
    """Read a parameter file's sections, for whatever nodes.

    Raises:
        SettingError: the file cannot be read, or has none.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror or error}; name a parameter file") from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        found = " ".join(str(error).split())
        raise SettingError(f"{path} cannot be read as YAML: {found}; name a ROS 2 parameter file") from error
    if sections := _entries(document, path):
        return sections
    raise SettingError(
        f"{path} has no ros__parameters; expected a ROS 2 parameter file, such as `ros2 param dump /{NODE}` writes"
    )


def fits(section: str, full_name: str) -> bool:
    """Whether a section is for the node of that name, namespace included: * stands for one part of it, ** for any."""
    pattern = re.escape(section).replace(r"/\*\*", r"(/\w+)*").replace(r"/\*", r"/\w+")
    return re.fullmatch(pattern, full_name) is not None


def fitting(sections: Sections, full_name: str) -> dict[str, Any]:
    """Return the parameters of a node, "guidance.step": 0.1; none where nothing fits it."""
    values: dict[str, Any] = {}
    for section, parameters in sections.items():
        if fits(section, full_name):
            values |= _flat(parameters)
    return values


def misfit(path: Path, sections: Sections, full_name: str) -> str:
    """Say that no section of a file fits a node, what it names and what would fit; "" where one does."""
    if any(fits(section, full_name) for section in sections):
        return ""
    return (
        f"{path} {_names(sections)}, none for the node {full_name}, so that it would have no effect; "
        f"name {full_name}, or /**/{full_name.rsplit('/', 1)[-1]} for every namespace"
    )


def _names(sections: Sections) -> str:
    return f"has parameters for {', '.join(sections)}"


def _only_name(sections: Iterable[str], node: str, path: Path) -> str:
    """Return the full name of the one node of that name which a file is about: outside ROS nobody gives a namespace."""
    named = [name for name in sections if name.rsplit("/", 1)[-1] == node]
    exact = [name for name in named if "*" not in name]
    if len(exact) > 1:
        raise SettingError(
            f"{path} has parameters for {', '.join(exact)}, and nothing says which of them is meant; "
            "keep one of them, or name a file of its own"
        )
    anywhere = [name.rpartition("/")[0] for name in sections if name.rsplit("/", 1)[-1] in (node, "*", "**")]
    spaces = ["", *(space.replace("/**", "").replace("*", "any") for space in anywhere)]
    candidates = [*exact, *(f"{space}/{node}" for space in spaces)]
    return next((name for name in candidates if any(fits(section, name) for section in sections)), f"/{node}")


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
