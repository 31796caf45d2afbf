"""The parameters that describe the robot, read when the node is configured."""

from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

from dysl_vla_ros.rclpy_private import given_parameters
from dysl_vla_ros.robot_contract import ENTRIES, TEXT, RobotContract, contract_of, entry_fault, is_camera, is_entry


def declare_robot(node: Node, fixed: str) -> dict[str, str]:
    """Declare every entry of the contract, and those cameras that a file or the command line names.

    Args:
        node: gets the parameters.
        fixed: when they may be changed.

    Returns:
        parameter -> why its given value was not taken.
    """
    given = given_parameters(node)
    faults = {}
    cameras = {name: (TEXT, "", "", "topic of this camera of the policy") for name in given if is_camera(name)}
    for name, (_, _, default, meaning) in (ENTRIES | cameras).items():
        value = plain(given[name].value) if name in given else None  # None too where a file says []
        fault = "" if value is None else entry_fault(name, value)
        if fault:  # rclpy would take it
            faults[name] = f"{fault} (a parameter file or -p gave it)"
        # rclpy takes an empty list for one of bytes: types are checked by entry_fault
        described = ParameterDescriptor(description=meaning, additional_constraints=fixed, dynamic_typing=True)
        node.declare_parameter(name, default, described, ignore_override=bool(fault) or value is None)
    return faults


def read_robot(node: Node) -> RobotContract:
    """Return what is said of the robot.

    Raises:
        SettingError: a value that cannot be.
    """
    values = {name: plain(it.value) for name, it in node.get_parameters_by_prefix("").items() if is_entry(name)}
    return contract_of(values)


def plain(value: Any) -> Any:
    """Return a parameter's value with lists in place of arrays."""
    return list(value) if hasattr(value, "tolist") or hasattr(value, "typecode") else value
