"""The parameters that describe the robot: declared where they have no default, read when the node is configured."""

from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from dysl_vla_ros.rclpy_private import given_parameters
from dysl_vla_ros.robot_contract import (
    CAMERAS,
    ENTRIES,
    NUMBER,
    NUMBERS,
    TEXT,
    TEXTS,
    RobotContract,
    contract_of,
    entry_fault,
    is_entry,
)

TYPES = {
    NUMBERS: Parameter.Type.DOUBLE_ARRAY,
    TEXTS: Parameter.Type.STRING_ARRAY,
    NUMBER: Parameter.Type.DOUBLE,
    TEXT: Parameter.Type.STRING,
}


def declare_robot(node: Node, fixed: str) -> dict[str, str]:
    """Declare every entry of the contract, and those cameras that a file or the command line names.

    None has a default: what nobody says is unset.

    Args:
        node: gets the parameters.
        fixed: when they may be changed.

    Returns:
        parameter -> why its given value was not taken.
    """
    given = given_parameters(node)
    faults = {}
    for name in [*ENTRIES, *(name for name in given if name.startswith(CAMERAS) and is_entry(name))]:
        kind, _, meaning = ENTRIES.get(name, (TEXT, "", "topic of this camera of the policy"))
        value = given[name].value if name in given else None
        fault = "" if value is None else entry_fault(name, plain(value))
        if fault:  # rclpy would raise, and the process would end
            faults[name] = f"{fault} (a parameter file or -p gave it)"
        described = ParameterDescriptor(description=meaning, additional_constraints=fixed)
        node.declare_parameter(name, TYPES[kind], described, ignore_override=bool(fault))
    return faults


def read_robot(node: Node) -> RobotContract:
    """Return what is said of the robot.

    Raises:
        SettingError: a value that cannot be.
    """
    names = [name for name in node.get_parameters_by_prefix("") if is_entry(name)]
    values = {name: plain(node.get_parameter_or(name).value) for name in names}
    return contract_of({name: value for name, value in values.items() if value is not None})


def plain(value: Any) -> Any:
    """Return a parameter's value with lists in place of arrays."""
    return list(value) if hasattr(value, "tolist") or hasattr(value, "typecode") else value
