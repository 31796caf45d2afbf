"""ROS parameters made from the settings groups: declared, refused with a reason, handed on as one snapshot.

A set is checked as a whole before rclpy looks at it, so that every fault of it is named at once, and applied after
rclpy has taken it (rclpy changes nothing when a callback refuses). It is checked once, and costs what it changes: what
it does not name is neither read nor judged again. Readers take :attr:`NodeParameters.settings`, one
frozen object that is replaced and never changed, so that no control tick sees half of a set.
"""

import dataclasses
import difflib
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from dysl_vla_ros.control.limits import empty_axes
from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.nodes.robot_parameters import declare_robot, plain, read_robot
from dysl_vla_ros.params_file import misfit, read_sections
from dysl_vla_ros.rclpy_private import given_parameters
from dysl_vla_ros.readings import instruction_fault
from dysl_vla_ros.robot_contract import RobotContract, entry_fault, is_entry
from dysl_vla_ros.settings import (
    GROUPS,
    ControlSettings,
    DiagnosticsSettings,
    GuidanceSettings,
    ModelSettings,
    RuntimeSettings,
    SafetySettings,
    SkippingSettings,
    check,
    old_names,
)

FIELDS = {f"{group.group}.{field.name}": field for group in GROUPS for field in dataclasses.fields(group)}
INSTRUCTION = "control.instruction"
# groups that a cross-check looks at
CONTRADICTING = frozenset({ControlSettings.group, SafetySettings.group, SkippingSettings.group})
WHEN_FIXED = "fixed while the node is configured; deactivate and cleanup first"
ROS_ARGUMENTS, END_OF_ROS_ARGUMENTS, FILE = "--ros-args", "--", "--params-file"


@dataclass(frozen=True)
class Settings:
    """Every setting of the node at one moment."""

    model: ModelSettings = ModelSettings()
    control: ControlSettings = ControlSettings()
    skipping: SkippingSettings = SkippingSettings()
    guidance: GuidanceSettings = GuidanceSettings()
    safety: SafetySettings = SafetySettings()
    diagnostics: DiagnosticsSettings = DiagnosticsSettings()

    @property
    def runtime(self) -> RuntimeSettings:
        """The part that goes to the policy worker with an inference."""
        control = self.control
        return RuntimeSettings(self.skipping, self.guidance, control.actions_per_inference, control.budget_ms)


def descriptor(name: str) -> ParameterDescriptor:
    """Describe one parameter: meaning, unit, finite range, choices."""
    field = FIELDS[name]
    meta = field.metadata
    described = ParameterDescriptor(description=meta["meaning"] + (f" [{meta['unit']}]" if meta["unit"] else ""))
    if isinstance(field.default, float):
        described.floating_point_range = [
            FloatingPointRange(from_value=float(meta["low"]), to_value=float(meta["high"]))
        ]
    elif isinstance(field.default, int) and not isinstance(field.default, bool):
        described.integer_range = [IntegerRange(from_value=meta["low"], to_value=meta["high"], step=1)]
    constraints = [f"one of {', '.join(repr(choice) for choice in meta['choices'])}"] if meta["choices"] else []
    if meta["form"][1]:
        constraints.append(meta["form"][1])
    if name.startswith(ModelSettings.group + "."):
        constraints.append(WHEN_FIXED)
    described.additional_constraints = "; ".join(constraints)
    return described


class NodeParameters:
    """The parameters of one node.

    Args:
        node: gets the parameters declared, with the values of ``--params-file`` and ``-p``.
        configured: whether ``model.*`` is fixed at this moment.
        on_change: called after a set was applied, in the thread that set, with the settings before it and the names
            that were given (a value that was there already is given as well).
    """

    def __init__(
        self, node: Node, configured: Callable[[], bool], on_change: Callable[[Settings, frozenset[str]], None]
    ) -> None:
        """Declare every parameter; a bad value of a file is kept as a fault, for ``configure`` to refuse."""
        self._node = node
        self._configured = configured
        self._on_change = on_change
        self._declaration_faults: dict[str, str] = {}
        self.cross_check: Callable[[Settings], str] = lambda settings: ""
        self._checked: Sequence[Parameter[Any]] = ()  # the set that `refusal` has just found in order
        for name in FIELDS:
            self._declare(name)
        self._declaration_faults |= declare_robot(node, WHEN_FIXED)
        self.settings = self._read()
        node.add_on_set_parameters_callback(self._on_set)
        node.add_post_set_parameters_callback(self._on_applied)

    def _declare(self, name: str) -> None:
        default = FIELDS[name].default
        given = self._given().get(name)
        fault = value_fault(name, given.value) if given is not None else ""
        if fault:  # rclpy would raise, at the first one, and the process would end
            self._declaration_faults[name] = f"{fault} (a parameter file or -p gave it; in force is {default!r})"
        self._node.declare_parameter(name, default, descriptor(name), ignore_override=bool(fault))

    @property
    def robot(self) -> RobotContract:
        """What is said of the robot; fixed while the node is configured.

        Raises:
            SettingError: a value that cannot be.
        """
        return read_robot(self._node)

    def _given(self) -> dict[str, "Parameter[Any]"]:
        """Return what files and the command line give for this node."""
        return given_parameters(self._node)

    def _read(self) -> Settings:
        groups: dict[str, Any] = {
            group.group: group(
                **{
                    field.name: self._node.get_parameter(f"{group.group}.{field.name}").value
                    for field in dataclasses.fields(group)
                }
            )
            for group in GROUPS
        }
        return Settings(**groups)

    def unknown_names(self) -> list[str]:
        """Say for each given but undeclared or old name what is meant instead; rclpy itself ignores it in silence."""
        unknown = old_names({name: given.value for name, given in self._given().items()})
        for name in self._given():
            if self._node.has_parameter(name) or name.startswith("qos_overrides."):
                continue
            unknown.append(f"parameter {name} is unknown and has no effect" + _nearest(name))
        return unknown

    def require_valid(self) -> None:
        """Check everything at once, for ``configure``.

        Raises:
            SettingError: names every fault.
        """
        faults = list(self._declaration_faults.values())
        if not self.settings.model.checkpoint:
            faults.append("model.checkpoint is empty; set it to the folder of a checkpoint")
        faults += self._contradictions(self.settings)
        if faults:
            raise SettingError("; ".join(faults))

    def refusal(self, parameters: Sequence["Parameter[Any]"]) -> str:
        """Say why this set cannot be applied as a whole, every fault in one line, or "" if it can."""
        faults = []
        changes: dict[str, dict[str, Any]] = {}
        for parameter in parameters:
            name, value = parameter.name, parameter.value
            if is_entry(name) and self._node.has_parameter(name):
                fault = entry_fault(name, plain(value))
                if not fault and self._configured() and plain(value) != plain(self._node.get_parameter_or(name).value):
                    fault = f"{name} is {WHEN_FIXED}"
                faults += [fault] if fault else []
                continue
            if name not in FIELDS:
                if not self._node.has_parameter(name):
                    faults.append(f"parameter {name} is unknown" + _nearest(name))
                continue
            fault = value_fault(name, value)
            group, _, key = name.partition(".")
            fixed = group == ModelSettings.group and self._configured()
            # a file loaded as a whole may repeat what is in force
            if not fault and fixed and value != getattr(self.settings.model, key):
                fault = f"{name} is {WHEN_FIXED}"
            if fault:
                faults.append(fault)
            else:
                changes.setdefault(group, {})[key] = value
        if not faults and not CONTRADICTING.isdisjoint(changes):
            faults += self._contradictions(_with(self.settings, changes))
        self._checked = () if faults else tuple(parameters)
        return "; ".join(faults)

    def _contradictions(self, settings: Settings) -> list[str]:
        """Return what contradicts each other within ``settings``, and what the loaded policy does not allow."""
        return [fault for fault in (empty_axes(settings.safety), self.cross_check(settings)) if fault]

    def _on_set(self, parameters: list["Parameter[Any]"]) -> SetParametersResult:
        """Check a set that did not come through the node's ``set_parameters_atomically``."""
        checked, self._checked = self._checked, ()
        if len(parameters) == len(checked) and all(map(operator.is_, parameters, checked)):
            return SetParametersResult(successful=True)
        try:
            reason = self.refusal(parameters)
        except Exception as error:  # an exception here would end the executor (M8)
            reason = f"the check of the parameters failed: {error!r}"
        return SetParametersResult(successful=not reason, reason=reason)

    def _on_applied(self, parameters: list["Parameter[Any]"]) -> None:
        try:
            changes: dict[str, dict[str, Any]] = {}
            for parameter in parameters:
                self._declaration_faults.pop(parameter.name, None)
                if parameter.name in FIELDS:
                    group, _, key = parameter.name.partition(".")
                    changes.setdefault(group, {})[key] = parameter.value
            before, self.settings = self.settings, _with(self.settings, changes)
            self._on_change(before, frozenset(parameter.name for parameter in parameters))
        except Exception as error:  # as above; the snapshot before it stays in force
            self._node.get_logger().error(f"parameters were set but could not be applied: {error!r}")


def _with(settings: Settings, changes: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Return the settings with some values replaced, given as group -> name -> value."""
    replaced = {group: dataclasses.replace(getattr(settings, group), **values) for group, values in changes.items()}
    return dataclasses.replace(settings, **replaced)


def value_fault(name: str, value: Any) -> str:
    """Return why ``value`` cannot be the parameter ``name``, or "" if it can, whatever the others are."""
    fault = check(name, value, FIELDS[name])
    if not fault and name == INSTRUCTION and (why := instruction_fault(value.strip())):
        fault = f"{name}: {why}"
    return fault


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; the groups are {', '.join(group.group for group in GROUPS)}"


def without_effect(arguments: Sequence[str], full_name: str) -> list[str]:
    """Say for each parameter file of a command line that nothing of it is for the node of that full name."""
    warnings = []
    for file in _given(arguments):
        try:
            path = Path(file)
            fault = misfit(path, read_sections(path), full_name)
        except SettingError as error:  # rcl has taken it: say what cannot be told
            fault = f"{error}; what it gives the node is not known"
        if fault:
            warnings.append(f"{FILE} {fault}")
    return warnings


def _given(arguments: Sequence[str]) -> Iterator[str]:
    """Return what follows each ``--params-file`` between ``--ros-args`` and ``--``."""
    within, before = False, ""
    for argument in arguments:
        if within and before == FILE:
            yield argument
        within = argument == ROS_ARGUMENTS or within and argument != END_OF_ROS_ARGUMENTS
        before = argument
