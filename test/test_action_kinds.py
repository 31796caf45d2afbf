"""What actions mean is said in the checkpoint or refused by its key; files of before there were kinds read as ever."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.control.commander import Commander
from dysl_vla_ros.errors import CheckpointError, SettingError
from dysl_vla_ros.interfaces import END_EFFECTOR_DELTA, JOINT_POSITION, ActionSpec
from dysl_vla_ros.joint_units import JOINT_UNITS, UnitScale
from dysl_vla_ros.policies.action_meaning import MEANING, action_to_json
from dysl_vla_ros.policies.action_statistics import action_faults
from dysl_vla_ros.policies.identity import base_hash
from dysl_vla_ros.policies.reference import ReferenceConfig
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import ControlSettings, SafetySettings
from joint_arm import joint_positions, joint_velocities
from pose_arm import end_effector_poses
from tiny_checkpoint import make_tiny_checkpoint, tiny_config

# of the tiny checkpoint's action, as it was before there were kinds
FORMER_KEYS = ["horizon", "time_step", "has_rotation", "center", "scale", "frame"]


@pytest.mark.parametrize(
    ("rotation", "names", "units"),
    [
        (False, ("x", "y", "z", "gripper"), ("m", "m", "m", "1")),
        (True, ("x", "y", "z", "rx", "ry", "rz", "gripper"), ("m", "m", "m", "rad", "rad", "rad", "1")),
    ],
)
def test_a_file_without_a_kind_is_an_end_effector_delta_and_is_written_as_it_was(
    tmp_path: Path, rotation: bool, names: tuple[str, ...], units: tuple[str, ...]
) -> None:
    folder = make_tiny_checkpoint(tmp_path, rotation=rotation)
    written = json.loads((folder / "config.json").read_text())["model"]
    assert list(written["action"]) == FORMER_KEYS
    spec = ReferenceConfig.from_json(written, folder).action
    assert (spec.kind, spec.names, spec.units, spec.gripper) == (END_EFFECTOR_DELTA, names, units, "gripper")
    assert spec.dimensions == len(names) and not spec.joints


@pytest.mark.parametrize(("rotation", "first_digits"), [(False, "6d91ea69077c5e67"), (True, "af8ab1a1c85bce4f")])
def test_an_end_effector_has_the_hash_that_it_had_before_there_were_kinds(rotation: bool, first_digits: str) -> None:
    assert base_hash("reference", tiny_config(rotation=rotation).to_json(), "0" * 64).startswith(first_digits)


def test_a_file_that_names_the_kind_of_before_has_the_same_hash(tmp_path: Path) -> None:
    folder = make_tiny_checkpoint(tmp_path)
    former = Runtime.load_base(folder).description
    file = folder / "config.json"
    values = json.loads(file.read_text())
    said = dataclasses.asdict(tiny_config().action)
    assert set(MEANING) < set(said)
    values["model"]["action"] = said
    file.write_text(json.dumps(values))
    assert Runtime.load_base(folder).description == former


@pytest.mark.parametrize("spec", [joint_positions(), joint_positions(gripper=False), joint_velocities()])
def test_a_joint_policy_is_read_as_it_was_written_and_its_meaning_is_hashed(tmp_path: Path, spec: ActionSpec) -> None:
    folder = make_tiny_checkpoint(tmp_path, action=spec)
    loaded = Runtime.load_base(folder)
    assert loaded.policy.action == spec
    file = folder / "config.json"
    values = json.loads(file.read_text())
    values["model"]["action"]["names"] = [f"{name}_joint" if name != spec.gripper else name for name in spec.names]
    file.write_text(json.dumps(values))
    assert Runtime.load_base(folder).description.model_hash != loaded.description.model_hash


def test_part_of_a_meaning_is_none() -> None:
    values = json.loads(json.dumps(tiny_config().to_json()))
    values["action"] = {**values["action"], "names": ["x", "y", "z", "gripper"]}
    with pytest.raises(CheckpointError, match=r"model\.action must have the fields .*missing: kind, units, gripper"):
        ReferenceConfig.from_json(values, Path("config.json"))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "kind": ({"kind": "joints"}, "model.action.kind is 'joints', expected end_effector_delta, joint_position"),
    "a name twice": ({"names": ("a", "a", "b", "jaw")}, "model.action.names is "),
    "an empty name": ({"names": ("a", "", "b", "jaw")}, "model.action.names is "),
    "no names": ({"names": ()}, "model.action.names is "),
    "a unit too few": ({"units": ("rad", "deg", "rad")}, "model.action.units has 3 values, model.action.names 4"),
    "an unknown unit": ({"units": ("rad", "grad", "range_100", "percent")}, "model.action.units[1] of elbow is 'grad'"),
    "a gripper in degrees": ({"units": ("rad", "deg", "range_100", "deg")}, "model.action.units[3] of jaw is 'deg'"),
    "another gripper": ({"gripper": "hand"}, "model.action.gripper is 'hand'"),
    "rotation": ({"has_rotation": True}, "model.action.has_rotation is of end effectors alone"),
    "no range": ({"low": (), "high": ()}, "model.action.low has 0 values, expected 4"),
    "an endless range": ({"high": (0.0, 0.0, math.inf, 0.0)}, "model.action.high[2] is inf, not finite"),
    "an empty range": ({"high": (0.0, 0.0, -1.5, 0.0)}, "model.action.low[2] and model.action.high[2] are both -1.5"),
    "degrees as radians": ({"units": ("rad", "rad", "range_100", "percent")}, "come to 50 rad of elbow"),
    "statistics too few": ({"center": (0.0,) * 3}, "model.action.center has 3 values, expected 4"),
    "the other kind's": ({"kind": END_EFFECTOR_DELTA}, "model.action.names is ['shoulder'"),
    "a share as a speed": ({"kind": "joint_velocity"}, "model.action.units[2] of wrist is 'range_100'"),
    "only a gripper": ({"names": ("jaw",), "units": ("percent",)}, "model.action.names has no joint"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_meaning_that_cannot_be_is_refused_by_its_key(case: str) -> None:
    changes, told = WRONG[case]
    assert not action_faults(joint_positions(), "model.action")
    faults = action_faults(dataclasses.replace(joint_positions(), **changes), "model.action")
    assert any(told in fault for fault in faults), faults


def test_a_policy_of_absolute_poses_is_read_as_it_was_written(tmp_path: Path) -> None:
    spec = end_effector_poses(unused=1)
    assert Runtime.load_base(make_tiny_checkpoint(tmp_path, action=spec)).policy.action == spec


POSE_WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no frame": ({"frame": ""}, "action.frame is empty; a pose is one in a frame"),
    "a part too few": ({"names": ("unused.2", *end_effector_poses().names[1:])}, "action.names has no ee.r00; a pose"),
    "another name": ({"names": (*end_effector_poses().names[:9], "hand"), "gripper": ""}, "action.names[9] is 'hand',"),
    "millimetres": ({"units": ("1",) * 6 + ("mm",) * 3 + ("1",)}, "action.units[6] of ee.x is 'mm', expected m"),
    "a gripper in metres": ({"units": ("1",) * 6 + ("m",) * 4}, "action.units[9] of jaw is 'm', expected 1, percent"),
    "far away": ({"scale": (1.0,) * 6 + (50.0,) * 3 + (0.5,)}, "come to 50.1 m of the position of ee.x; at most 10"),
    "no rotation": ({"scale": (9.0,) * 6 + (0.2,) * 3 + (0.5,)}, "of the rotation matrix, from -1 to 1, of ee.r00"),
    "ranges": ({"low": (0.0,) * 10}, "action.low is of joints alone"),
    "rotation": ({"has_rotation": True}, "action.has_rotation is of end_effector_delta alone"),
}


@pytest.mark.parametrize("case", POSE_WRONG)
def test_a_pose_that_cannot_be_is_refused_by_its_key(case: str) -> None:
    changes, told = POSE_WRONG[case]
    assert not action_faults(end_effector_poses(unused=2))
    faults = action_faults(dataclasses.replace(end_effector_poses(), **changes))
    assert any(told in fault for fault in faults), faults


@given(
    st.lists(st.sampled_from(JOINT_UNITS), min_size=1, max_size=8),
    st.floats(-3.0, 2.9),
    st.floats(0.1, 3.0),
    st.floats(-100.0, 100.0),
)
def test_units_are_mapped_and_mapped_back(units: list[str], low: float, width: float, value: float) -> None:
    scale = UnitScale(units, [low] * len(units), [low + width] * len(units))
    values = np.full(len(units), value)
    np.testing.assert_allclose(scale.from_si(scale.to_si(values)), values, rtol=1e-9, atol=1e-9)


def test_units_mean_what_they_say() -> None:
    scale = UnitScale(
        ("rad", "m", "deg", "percent", "range_100", "percent"), (0, 0, 0, -1, -1, 0), (0, 0, 0, 2, 3, 0), 5
    )
    np.testing.assert_allclose(scale.to_si(np.array([1.0, 0.2, 90, 0, -100, 25])), [1, 0.2, math.pi / 2, -1, -1, 0.25])
    np.testing.assert_allclose(scale.to_si(np.array([1.0, 0.2, 90, 100, 0, 25])), [1, 0.2, math.pi / 2, 2, 1, 0.25])


def test_only_joints_are_written_with_a_meaning() -> None:
    assert not set(MEANING) & set(action_to_json(tiny_config().action))
    assert action_to_json(joint_positions())["kind"] == JOINT_POSITION


def test_joint_actions_are_no_twist() -> None:
    with pytest.raises(
        SettingError, match="a twist takes actions of the kind end_effector_delta; .*joint_position of sh"
    ):
        Commander(joint_positions(), ControlSettings(), SafetySettings())
