"""Settings from a ROS parameter file, the very file that ``params_file:=`` gives to the node. No ROS is needed.

What concerns a replay is taken over (``skipping``, ``guidance``, ``control.actions_per_inference``, and the ages of
``safety`` that end an episode); the rest is checked and otherwise of no effect. Unknown names are refused: in the node
they are a warning, here the figures would be those of other settings than the file was meant to set.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.settings import GROUPS, ControlSettings, GuidanceSettings, RuntimeSettings, SafetySettings, build
from dysl_vla_ros.settings import SkippingSettings as Skipping

NODE = "dysl_vla"
NAMES = tuple(f"{group.group}.{field.name}" for group in GROUPS for field in dataclasses.fields(group))


@dataclass(frozen=True)
class ReplaySettings:
    """The settings under which a recording is replayed."""

    skipping: Skipping = Skipping()
    guidance: GuidanceSettings = GuidanceSettings()
    control: ControlSettings = ControlSettings()
    safety: SafetySettings = SafetySettings()

    @property
    def runtime(self) -> RuntimeSettings:
        """The part that goes with every inference."""
        return RuntimeSettings(self.skipping, self.guidance, self.control.actions_per_inference)

    @property
    def full_depth(self) -> RuntimeSettings:
        """The same, with skipping off."""
        return dataclasses.replace(self.runtime, skipping=dataclasses.replace(self.skipping, enabled=False))


def read_parameters(path: Path) -> ReplaySettings:
    """Read the parameters of the node ``dysl_vla`` from a ROS 2 parameter file.

    Raises:
        SettingError: the file cannot be read or is no parameter file, a name is unknown, a value is wrong; every
            fault of the values is named at once.
    """
    groups: dict[str, dict[str, Any]] = {}
    faults = []
    for name, value in _flat(_own_parameters(path)).items():
        if name not in NAMES:
            if name not in ("use_sim_time", "start_type_description_service") and not name.startswith("qos_overrides."):
                faults.append(f"{name} is unknown{_nearest(name)}")
            continue
        prefix, _, key = name.partition(".")
        groups.setdefault(prefix, {})[key] = value
    built = {}
    for group in GROUPS:
        try:
            built[group.group] = build(group, groups.get(group.group, {}))
        except SettingError as error:
            faults.append(str(error))
    if faults:
        raise SettingError(f"{path}: {'; '.join(faults)}")
    return ReplaySettings(built["skipping"], built["guidance"], built["control"], built["safety"])


def _own_parameters(path: Path) -> dict[str, Any]:
    """Return what the file says for our node, later entries over earlier ones, as ROS takes them."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        raise SettingError(f"{path} cannot be read as YAML: {text}; name a ROS 2 parameter file") from error
    found: dict[str, Any] = {}
    heard = []
    for pattern, entry in content.items() if isinstance(content, Mapping) else ():
        parameters = entry.get("ros__parameters") if isinstance(entry, Mapping) else None
        if not isinstance(parameters, Mapping):
            continue
        heard.append(str(pattern))
        if str(pattern).rpartition("/")[2] in (NODE, "*", "**"):
            found |= _flat(parameters)
    if not heard:
        raise SettingError(
            f"{path} has no ros__parameters; expected a ROS 2 parameter file, such as `ros2 param dump /{NODE}` writes"
        )
    if not found:
        raise SettingError(f"{path} has parameters for {', '.join(heard)}, none for the node {NODE}")
    return found


def _flat(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Write nested groups as names with points in them."""
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; the groups are {', '.join(group.group for group in GROUPS)}"
