"""Holds what the user says of the robot (``robot.*``) against what the checkpoint says. No ROS in it."""

import math
from collections.abc import Sequence

from dysl_vla_ros.control.joint_limits import joint_limit_faults
from dysl_vla_ros.interfaces import END_EFFECTOR_POSE, PolicyDescription
from dysl_vla_ros.robot_contract import RobotContract

TIME_STEP_TOLERANCE = 1e-6  # relative


def contract_faults(contract: RobotContract, description: PolicyDescription) -> list[str]:
    """Return where contract and checkpoint contradict each other, and what neither says; each with its parameter."""
    spec, state = description.action, description.proprioception
    pairs: tuple[tuple[str, Sequence[str], Sequence[str]], ...] = (
        ("robot.state.names", contract.state_names, state.names),
        ("robot.state.units", contract.state_units, state.units),
        ("robot.action.kind", [contract.action_kind] if contract.action_kind else [], [spec.kind]),
        ("robot.action.names", contract.action_names, spec.names),
        ("robot.action.units", contract.action_units, spec.units),
        ("robot.action.frame", [contract.action_frame] if contract.action_frame else [], [spec.frame]),
        ("robot.action.gripper", [contract.action_gripper] if contract.action_gripper else [], [spec.gripper]),
    )
    faults = [
        f"{name} is {', '.join(said)}, but the checkpoint has {', '.join(own)}"
        for name, said, own in pairs
        if said and tuple(said) != tuple(own)
    ]
    ends: tuple[tuple[str, Sequence[float], Sequence[float]], ...] = (
        ("robot.state.low", contract.state_low, state.low),
        ("robot.state.high", contract.state_high, state.high),
        ("robot.action.low", contract.action_low, spec.low),
        ("robot.action.high", contract.action_high, spec.high),
    )
    faults += [
        f"{name} is {list(said)}, but the checkpoint has {list(own)}"
        for name, said, own in ends
        if said and tuple(said) != tuple(own)
    ]
    step = contract.time_step
    if step and not math.isclose(step, spec.time_step, rel_tol=TIME_STEP_TOLERANCE):
        faults.append(f"robot.action.time_step is {step:g} s, but the checkpoint has {spec.time_step:g} s")
    if contract.cameras:
        foreign = [name for name in contract.cameras if name not in description.cameras]
        absent = [name for name in description.cameras if name not in contract.cameras]
        if foreign:
            faults.append(
                f"robot.cameras names {', '.join(foreign)}, but the checkpoint has {', '.join(description.cameras)}"
            )
        if absent:
            faults.append(f"robot.cameras has no topic for {', '.join(absent)}; a camera is never replaced")
    if spec.kind == END_EFFECTOR_POSE and state.frame != spec.frame and any(it.startswith("ee.") for it in state.names):
        faults.append(
            f"the checkpoint's proprioception is in {state.frame} and its poses are in {spec.frame}: the first pose "
            "starts from the measured one, so both must be in one frame"
        )
    return faults + joint_limit_faults(contract.limits, spec)
