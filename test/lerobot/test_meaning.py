"""What no file says is asked for, and what is said must fit the checkpoint."""

from typing import Any

import pytest
from families import JOINTS, ROBOT, load, said

from dysl_vla_ros.errors import ContractError
from dysl_vla_ros.interfaces import END_EFFECTOR_DELTA
from dysl_vla_ros.robot_contract import RobotContract

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a camera too few": (
        {"cameras": {"observation.images.top": "/top"}}, "robot.cameras has no topic for observation.images.wrist of"
    ),
    "a camera too many": ({"cameras": {**ROBOT.cameras, "side": "/side"}}, "robot.cameras names side, "),
    "names": ({"state_names": JOINTS}, "robot.state.names has 5 values, "),
    "units of the state": ({"state_units": ("deg",) * 5 + ("rad",)}, "'rad' for gripper.opening, expected 1, percent"),
    "a range of the state": (
        {"action_low": (), "action_high": (), "action_units": ("deg",) * 5 + ("percent",)}, "robot.state.low has 0"
    ),
    "a range of the action": ({"action_low": (), "action_high": ()}, "robot.action.low has 0 values, expected 6"),
    "names of the action": ({"action_names": JOINTS}, "robot.action.names has 5 values"),
    "units of the action": ({"action_units": ("deg",) * 5 + ("deg",)}, "robot.action.units[5] of jaw is 'deg'"),
    "the gripper": ({"action_gripper": "claw"}, "robot.action.gripper is 'claw'"),
    "kind": ({"action_kind": "torque"}, "robot.action.kind is 'torque'"),
    "no kind": ({"action_kind": ""}, "robot.action.kind is not said"),
    "no time": ({"time_step": 0.0}, "robot.action.time_step is not said"),
    "an end effector of six values": ({"action_kind": END_EFFECTOR_DELTA}, "of 4 (translation, gripper) or 7"),
    "radians that are degrees": ({"action_units": ("rad",) * 5 + ("percent",)}, "come to"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_contract_that_does_not_fit_is_refused_by_its_entry(wrong: str, written: Any) -> None:
    changed, text = WRONG[wrong]
    with pytest.raises(ContractError) as refused:
        load(written("smolvla"), said(**changed))
    assert text in str(refused.value)
    assert "observation.images.top: " in refused.value.draft


def test_nothing_said_names_every_entry_and_drafts_the_block(written: Any) -> None:
    with pytest.raises(ContractError) as refused:
        load(written("smolvla"), RobotContract())
    for entry in ("cameras", "state.names", "state.units", "action.kind", "action.time_step", "action.names"):
        assert f"robot.{entry}" in str(refused.value)
    draft = refused.value.draft
    for line in (
        "observation.images.wrist: ...",
        'names: ["...", "...", "...", "...", "...", "..."]',
        "time_step: ...",
    ):
        assert line in draft
    assert "kind: ... # joint_position" in draft and "gripper: ..." in draft


def test_what_is_said_is_what_the_policy_declares(loaded: Any) -> None:
    policy = loaded("smolvla")
    spec, state = policy.action, policy.proprioception
    assert (spec.kind, spec.names, spec.units, spec.gripper) == (
        "joint_position", (*JOINTS, "jaw"), ROBOT.action_units, "jaw"
    )  # fmt: skip
    assert spec.horizon == 8 and spec.time_step == ROBOT.time_step and spec.joints == JOINTS
    assert state.names == ROBOT.state_names and state.units == ROBOT.state_units
    assert state.low[3] == -1.5 and state.high[3] == 1.6, "a joint's range is said once, of its action"
    assert spec.center == pytest.approx((-10.0, -6.0, -2.0, 2.0, 6.0, 10.0)) and spec.scale[0] == pytest.approx(20.0)
