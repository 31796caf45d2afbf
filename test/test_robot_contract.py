"""What the user says of the robot: typed, held against the checkpoint, drafted where it is missing."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.control.contract import contract_faults
from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.interfaces import ActionSpec, PolicyDescription, ProprioceptionSpec
from dysl_vla_ros.params_file import read_params_file
from dysl_vla_ros.policy_options import PolicyOptions
from dysl_vla_ros.robot_contract import ENTRIES, JointLimits, RobotContract, contract_of, draft, entry_fault
from dysl_vla_ros.runtime.step import Runtime
from joint_arm import joint_positions, joint_velocities
from pose_arm import end_effector_poses
from tiny_checkpoint import make_tiny_checkpoint, tiny_config

LIMITS = JointLimits((-1.0,) * 3, (1.0,) * 3, (2.0,) * 3, (3.0,) * 3)


def description(spec: ActionSpec) -> PolicyDescription:
    state = ProprioceptionSpec(("shoulder", "elbow", "wrist"), ("rad", "deg", "rad"))
    return PolicyDescription("test", "", "", ("front", "observation.images.wrist"), state, spec, 2, (0, 1), ())


def flat(values: Any, before: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {before[:-1]: values}
    return {name: item for key, value in values.items() for name, item in flat(value, f"{before}{key}.").items()}


def parameters(block: str) -> dict[str, Any]:
    return flat(yaml.safe_load(block)["/**/dysl_vla"]["ros__parameters"])


@pytest.mark.parametrize("spec", [joint_positions(), joint_velocities(), tiny_config().action, end_effector_poses()])
def test_a_draft_that_is_filled_in_is_a_contract_without_faults(spec: ActionSpec) -> None:
    described = description(spec)
    values = parameters(draft(described))
    gaps = {name: value for name, value in values.items() if isinstance(value, list) and "..." in value}
    assert bool(gaps) == spec.moves_joints
    assert not spec.moves_joints or contract_faults(RobotContract(), described)
    filled = dataclasses.asdict(LIMITS)
    values |= {name: list(filled[name.rpartition(".")[2]]) for name in gaps}
    contract = contract_of(values)
    assert contract_faults(contract, described) == []
    assert contract_of(parameters(draft(described, contract))) == contract


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"cameras": {"front": "/a"}}, "robot.cameras has no topic for observation.images.wrist; a camera is never"),
        ({"cameras": {"front": "/a", "back": "/b"}}, "robot.cameras names back, but the checkpoint has front, obs"),
        ({"state_names": ("elbow", "shoulder", "wrist")}, "robot.state.names is elbow, shoulder, wrist, but the"),
        ({"state_units": ("rad",) * 3}, "robot.state.units is rad, rad, rad, but the checkpoint has rad, deg, rad"),
        ({"action_kind": "joint_velocity"}, "robot.action.kind is joint_velocity, but the checkpoint has joint_pos"),
        ({"action_names": ("a",)}, "robot.action.names is a, but the checkpoint has shoulder, elbow, wrist, jaw"),
        ({"time_step": 0.02}, "robot.action.time_step is 0.02 s, but the checkpoint has 0.05 s"),
        ({"limits": JointLimits()}, "safety.joint.min_position has 0 values, expected 3"),
    ],
)
def test_what_contradicts_the_checkpoint_is_named(said: dict[str, Any], told: str) -> None:
    contract = RobotContract(**{"limits": LIMITS} | said)
    assert any(fault.startswith(told) for fault in contract_faults(contract, description(joint_positions())))


plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.floats(), max_size=3),
    st.lists(st.text(max_size=3), max_size=3), st.lists(st.integers(), min_size=1, max_size=3),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([*ENTRIES, "robot.cameras.front"]), plain, max_size=5))
def test_any_values_are_a_contract_or_are_refused_each_by_its_name(values: dict[str, Any]) -> None:
    wrong = [name for name, value in values.items() if entry_fault(name, value)]
    if not wrong:
        assert isinstance(contract_of(values), RobotContract)
        return
    with pytest.raises(SettingError) as caught:
        contract_of(values)
    assert all(name in str(caught.value) for name in wrong)


def test_a_checkpoint_of_metres_and_radians_takes_no_other_size_of_units(tmp_path: Path) -> None:
    folder = make_tiny_checkpoint(tmp_path)
    robot = contract_of({"robot.action.unit_size": [0.05] * 3})
    with pytest.raises(SettingError, match="its actions are in m and rad; leave robot.action.unit_size empty"):
        Runtime.load(str(folder), "", options=PolicyOptions(robot))
    assert entry_fault("robot.action.unit_size", [0.05, 0.0]) == (
        "robot.action.unit_size must be above 0 throughout, not [0.05, 0.0]"
    )
    assert "unit_size: [0.05, 0.05, 0.05]" in draft(description(tiny_config().action), robot)


def test_a_parameter_file_of_the_node_serves_commands_as_well(tmp_path: Path) -> None:
    file = tmp_path / "arm.yaml"
    block = draft(description(joint_positions()), RobotContract(limits=LIMITS))
    file.write_text(block)
    assert read_params_file(file).given == ()
    file.write_text(block.replace("max_velocity: [2.0", "max_velocity: [2"))
    with pytest.raises(SettingError, match=r"safety.joint.max_velocity must be a list of numbers \(write 1.0, not 1\)"):
        read_params_file(file)


def test_inspect_drafts_the_block(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_tiny_checkpoint(tmp_path, action=joint_positions())
    assert main(["inspect", str(folder), "--steps", "0"]) == 0
    printed = capsys.readouterr().out
    assert "joint_position" in printed and "range_100" in printed
    assert parameters(printed[printed.index("/**/dysl_vla:") :])["robot.action.kind"] == "joint_position"
