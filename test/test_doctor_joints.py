"""The doctor on a node that commands joints, and on folders of other projects."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dysl_vla_ros.doctor.checks.checkpoint import base, dysl_folder
from dysl_vla_ros.doctor.checks.joints import KINDS, LIMITS, joints
from dysl_vla_ros.doctor.checks.poses import KIND, poses
from dysl_vla_ros.doctor.finding import Finding, Level
from dysl_vla_ros.doctor.graph import Joints, Snapshot, VlaNode
from dysl_vla_ros.files import sha256
from dysl_vla_ros.interfaces import END_EFFECTOR_POSE, JOINT_POSITION, JOINT_VELOCITY
from tiny_openvla import convert, write_tiny_openvla

NAMES = ["pan", "lift", "jaw"]
SAID = {"robot.action.kind": "joint_position", "robot.action.names": NAMES, "robot.action.gripper": "jaw"}
SAID |= {name: [1.0, 1.0] for name in LIMITS}
SEEN = Joints(
    "/arm/joint_trajectory", "trajectory_msgs/msg/JointTrajectory", ("/arm",), "/joint_states", ("lift", "pan")
)


def found(seen: Joints | None = SEEN, checkpoint: Path = Path("nowhere"), **said: Any) -> list[Finding]:
    parameters = {name: value for name, value in (SAID | said).items() if value is not None}
    graph = Snapshot("rmw", 2.0, vla_nodes=(VlaNode("/vla", parameters),), joints=seen)
    return list(joints(SimpleNamespace(graph=graph, checkpoint=checkpoint)))  # type: ignore[arg-type]


def changed(**values: Any) -> Joints:
    return Joints(**{**{name: getattr(SEEN, name) for name in SEEN.__dataclass_fields__}, **values})


def test_joints_that_are_measured_obeyed_and_limited_are_well() -> None:
    (line,) = found()
    assert line.level == Level.OK and "2 commanded on /arm/joint_trajectory, heard by /arm" in line.text


@pytest.mark.parametrize(
    ("seen", "said", "level", "text", "fix"),
    [
        (changed(listeners=()), {}, Level.FAIL, "/arm/joint_trajectory (trajectory_msgs", "-r /vla/joint_command:="),
        (changed(measured=()), {}, Level.FAIL, "/joint_states: no message was heard", "joint_state_broadcaster"),
        (changed(measured=("1", "pan")), {}, Level.FAIL, "has no lift; there are 1, pan", "robot.action.names"),
        (SEEN, {LIMITS[2]: [1.0]}, Level.FAIL, "safety.joint.max_velocity has 1 values", "dysl_vla inspect"),
        (
            SEEN,
            {LIMITS[0]: [], LIMITS[1]: []},
            Level.FAIL,
            "max_position has 0 values, expected one",
            "dysl_vla inspect",
        ),
        (None, {}, Level.WARN, "/vla is not configured", "ros2 lifecycle set /vla configure"),
    ],
)
def test_what_keeps_joints_from_moving_is_named_with_its_fix(
    seen: Joints | None, said: Any, level: Level, text: str, fix: str
) -> None:
    (line,) = found(seen, **said)
    assert line.level == level and text in line.text and fix in line.fix


def test_names_that_the_checkpoint_says_need_not_be_said_again(tmp_path: Path) -> None:
    action = {"kind": "joint_velocity", "names": ["pan", "lift", "roll"], "gripper": ""}
    (tmp_path / "config.json").write_text(json.dumps({"model": {"action": action}}))
    unsaid = dict.fromkeys(["robot.action.kind", "robot.action.names", "robot.action.gripper"])
    assert ["3 joints pan, lift, roll" in line.text for line in found(checkpoint=tmp_path, **unsaid)] == [True, False]


def test_its_kinds_are_those_of_actions() -> None:
    assert (*KINDS, KIND) == (JOINT_POSITION, JOINT_VELOCITY, END_EFFECTOR_POSE)


POSED = Joints("/vla/pose_command", "geometry_msgs/msg/PoseStamped", ("/servo",), "/ee_pose", ("value",))


@pytest.mark.parametrize(
    ("changes", "level", "text", "fix"),
    [
        ({}, Level.OK, "commanded on /vla/pose_command, heard by /servo; measured on /ee_pose", ""),
        ({"listeners": ()}, Level.FAIL, "nobody listens", "-r /vla/pose_command:=/CONTROLLER/target"),
        ({"measured": ()}, Level.FAIL, "/ee_pose: no message was heard in 2.0 s", "robot.action.frame"),
        (None, Level.WARN, "/vla is not configured", "ros2 lifecycle set /vla configure"),
    ],
)
def test_what_keeps_an_arm_from_following_poses_is_named_with_its_fix(
    changes: dict[str, Any] | None, level: Level, text: str, fix: str
) -> None:
    seen = None if changes is None else replace(POSED, **changes)
    node = VlaNode("/vla", {"robot.action.kind": KIND})
    graph = Snapshot("rmw", 2.0, vla_nodes=(node,), joints=seen)
    examination: Any = SimpleNamespace(graph=graph, checkpoint=Path("nowhere"))
    (line,) = poses(examination)
    assert line.level == level and text in line.text and fix in line.fix
    assert list(joints(examination)) == []


def test_of_an_end_effector_and_without_a_node_nothing_is_said() -> None:
    assert found(**{"robot.action.kind": "end_effector_delta"}) == [] == found(**{"robot.action.kind": ""})
    for graph in (None, Snapshot("rmw", 2.0)):
        assert list(joints(SimpleNamespace(graph=graph, checkpoint=Path("nowhere")))) == []  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def openvla(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(write_tiny_openvla(tmp_path_factory.mktemp("openvla") / "checkpoint"))


def test_an_openvla_oft_folder_is_taken_for_what_it_is(openvla: Path) -> None:
    asked: Any = SimpleNamespace(checkpoint=openvla, adapters="")
    (line,) = base(asked)
    assert line.level == Level.OK and "OpenVLA-OFT" in line.text and "statistics of" in line.text
    (line,) = dysl_folder(asked)
    assert line.level == Level.WARN and "no DySL folder" in line.text
    shard = next(openvla.glob("model-00001*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    (line,) = base(asked)
    shard.write_bytes(whole)
    assert line.level == Level.FAIL and str(shard) in line.text


@pytest.mark.parametrize(("layout", "level"), [("type", Level.OK), ("model_type", Level.WARN)])
def test_a_dysl_folder_beside_another_projects_checkpoint(layout: str, level: Level, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({layout: "smolvla"}))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    folder = tmp_path / "dysl"
    folder.mkdir()
    (folder / "adapters.safetensors").write_bytes(b"adapters")
    own = {"adapters.safetensors": sha256(folder / "adapters.safetensors")}
    described = {"files": own, "base": {"sha256": sha256(tmp_path / "model.safetensors")}}
    (folder / "config.json").write_text(json.dumps(described))
    asked: Any = SimpleNamespace(checkpoint=tmp_path, adapters="")
    (line,) = dysl_folder(asked)
    assert line.level == level
    if level == Level.OK:
        (tmp_path / "model.safetensors").write_bytes(b"others")
        (line,) = dysl_folder(asked)
        assert line.level == Level.FAIL and "made for the base" in line.text
    (folder / "adapters.safetensors").write_bytes(b"damaged")
    (line,) = dysl_folder(asked)
    assert line.level == Level.FAIL and "is not the file that was written" in line.text
