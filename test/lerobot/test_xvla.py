"""What X-VLA alone has: Florence-2's names as they were published, action spaces, pictures that nothing resizes."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_xvla
import tiny_xvla_ee6d
import torch
from families import PARTITION, ROBOT, library_actions, load, modules, observation, plans
from lerobot.policies.xvla.modeling_xvla import _remap_vendored_florence_state_dict
from safetensors.torch import load_file, save_file

from dysl_vla_ros.errors import CheckpointError, ContractError, ObservationError
from dysl_vla_ros.policies.lerobot.explanation import explain
from dysl_vla_ros.poses import POSE_VALUES, are_rotations
from dysl_vla_ros.runtime.noise import FRESH, noise_seed
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import FULL_DEPTH
from dysl_vla_ros.skipping.depth_rules import FixedPlan, FullDepth
from dysl_vla_ros.skipping.stack import SkippableStack, full_result
from dysl_vla_ros.skipping.streams import no_bridge

VLM = "model.vlm."
# transformers' name -> the published one; (pattern, replacement)
PUBLISHED = [
    (r"vision_tower\.convs\.(\d+)\.conv\.", r"vision_tower.convs.\1.proj."),
    (r"(vision_tower\.blocks\.\d+\.\d+\.\w+_block)\.(conv\d)\.", r"\1.\2.fn.dw."),
    (r"(vision_tower\.blocks\.\d+\.\d+)\.(spatial|channel)_block\.norm1\.", None),
    (r"(vision_tower\.blocks\.\d+\.\d+\.\w+_block)\.(window_attn|channel_attn)\.", r"\1.\2.fn."),
    (r"(vision_tower\.blocks\.\d+\.\d+\.\w+_block)\.norm2\.", r"\1.ffn.norm."),
    (r"(vision_tower\.blocks\.\d+\.\d+\.\w+_block)\.ffn\.", r"\1.ffn.fn.net."),
    (r"multi_modal_projector\.image_proj_norm\.", "image_proj_norm."),
    (r"multi_modal_projector\.image_position_embed\.", "image_pos_embed."),
    (r"multi_modal_projector\.visual_temporal_embed\.", "visual_temporal_embed."),
    (r"language_model\.", "language_model.model."),
]


def published(name: str) -> str:
    if not name.startswith(VLM):
        return name
    for pattern, replacement in PUBLISHED:
        if match := re.match(re.escape(VLM) + pattern, name):
            if replacement is None:
                kind = "window_attn" if match[2] == "spatial" else "channel_attn"
                return name.replace(".norm1.", f".{kind}.norm.")
            return re.sub(re.escape(VLM) + pattern, VLM + replacement, name, count=1)
    return name


def edit(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_weights_under_the_published_names_are_the_same_policy(copied: Any, written: Any) -> None:
    folder = copied("xvla")
    own = load_file(folder / "model.safetensors")
    named = {published(name): value.contiguous() for name, value in own.items()}
    turned = f"{VLM}multi_modal_projector.image_projection.weight"
    named[f"{VLM}image_projection"] = named.pop(turned).T.contiguous()
    named[f"{VLM}language_model.final_logits_bias"] = torch.zeros(1, 3)
    assert _remap_vendored_florence_state_dict(named).keys() == own.keys(), "the test has the library's own names"
    save_file(named, folder / "model.safetensors")
    one, other = (Runtime(load(path), None).step(observation(), np.zeros((0, 6)), FULL_DEPTH).chunk for path in (
        folder, written("xvla")))  # fmt: skip
    assert np.array_equal(one.actions, other.actions)
    named["model.more"] = torch.zeros(2)
    save_file(named, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.more"):
        load(folder)


ARM = POSE_VALUES
OTHER = tuple(f"unused.{place}" for place in range(1, 11))
POSES = replace(
    ROBOT,
    state_names=("ee.x", "ee.y", "ee.z", "ee.r00", "ee.rx", "unused.1"),
    state_units=("m", "m", "m", "1", "rad", "1"),
    action_kind="end_effector_pose",
    action_names=(*ARM, "jaw", *OTHER),
    action_units=("m",) * 3 + ("1",) * 6 + ("closing",) + ("1",) * 10,
    action_gripper="jaw",
    action_frame="base_link",
    action_low=(),
    action_high=(),
)


@pytest.fixture(scope="module")
def ee6d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of absolute poses."""
    folder = tmp_path_factory.mktemp("ee6d")
    tiny_xvla_ee6d.write_hub(folder / "hub")
    tiny_xvla_ee6d.write(folder / "checkpoint", folder / "hub")
    return folder / "checkpoint"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_absolute_poses_are_what_select_action_plays_and_are_verified_bit_for_bit(ee6d: Path, dtype: Any) -> None:
    policy = load(ee6d, POSES, dtype)
    assert policy.action.kind == POSES.action_kind and policy.action.frame == policy.proprioception.frame == "base_link"
    for number in range(2):
        runtime = Runtime(policy, None)
        chunk = runtime.step(observation(number), np.zeros((0, 20)), FULL_DEPTH).chunk.actions
        assert np.array_equal(chunk, library_actions(policy, observation(number), noise_seed(FRESH, 0, 0) % 2**63))
        assert chunk.shape == (8, 20) and are_rotations(chunk, policy.action.names).all()
        assert np.ptp(chunk[:, :9], axis=0).min() > 0.0 and 0.0 < chunk[:, 9].min() <= chunk[:, 9].max() < 1.0
    stack, own = SkippableStack(policy.layers), modules(policy)
    with torch.inference_mode():
        noise = policy.noise([5])
        hidden, context = policy.prepare([observation(4)], noise)
        full, _ = policy.decode(stack.run(hidden, context, FullDepth()), context, None, noise, no_bridge)
        for positions in plans():
            hidden, context = policy.prepare([observation(4)], noise)
            result = stack.run(hidden, context, FixedPlan(PARTITION, own, positions))
            skipped, _ = policy.decode(result, context, None, noise, own.bridge)
            if result.resume_point is not None:
                assert not torch.equal(skipped, full)
                result = stack.resume(result.resume_point, context)
                skipped, _ = policy.decode(result, context, None, noise, own.bridge)
            assert torch.equal(skipped, full)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"action_kind": "joint_position"}, "robot.action.kind is joint_position, but .*'ee6d', absolute poses"),
        ({"action_names": (*OTHER, "jaw", *ARM)}, "robot.action.names is unused.1.*twice ee.x, ee.y, .*the gripper"),
        ({"action_names": (*ARM[::-1], "jaw", *OTHER)}, "robot.action.names is ee.r21.*twice ee.x, ee.y, ee.z, ee.r00"),
        ({"action_frame": ""}, "robot.action.frame is not said, and no file of the checkpoint says which"),
        ({"action_names": ()}, "robot.action.names is not said"),
        ({"action_units": ("m",) * 3 + ("rad",) * 6 + ("1",) * 11}, r"units\[3\] of ee.r00 is 'rad', expected 1"),
        ({"state_units": ("m", "m", "m", "1", "deg", "1")}, "robot.state.units has 'deg' for ee.rx, expected rad"),
    ],
)
def test_poses_of_another_meaning_are_refused_by_the_entry(changed: dict[str, Any], told: str, ee6d: Path) -> None:
    with pytest.raises(ContractError, match=told) as refused:
        load(ee6d, replace(POSES, **changed))
    assert "frame: " in refused.value.draft or "action_kind" in changed


def test_either_arm_may_be_the_one_that_is_commanded(ee6d: Path) -> None:
    second = replace(POSES, action_names=(*OTHER, *ARM, "jaw"), action_units=("1",) * 10 + POSES.action_units[:10])
    assert load(ee6d, second).action.used_indices == tuple(range(10, 20))


def test_what_the_files_say_of_poses_is_drafted(ee6d: Path) -> None:
    block = explain(ee6d)["contract"]
    assert "kind: end_effector_pose" in block and "frame: ..." in block and "gripper: gripper" in block
    assert 'names: ["ee.x", "ee.y", "ee.z", "ee.r00", "ee.r10", "ee.r20", "ee.r01"' in block
    assert '"ee.r21", "gripper", "unused.1", ' in block
    assert 'units: ["m", "m", "m", "1", "1", "1", "1", "1", "1", "...", "1"' in block and "joint:" not in block


def test_differences_may_be_in_units_of_the_controller_that_they_were_trained_for(tmp_path: Path) -> None:
    tiny_xvla.write_hub(tmp_path / "hub")
    tiny_xvla.write(tmp_path / "checkpoint", tmp_path / "hub", actions=7)
    plain = replace(
        ROBOT, action_kind="end_effector_delta", action_names=(), action_units=(), action_gripper="",
        state_units=("deg",) * 5 + ("percent",), action_low=(), action_high=(),
    )  # fmt: skip
    with pytest.raises(ContractError, match="no arm moves faster"):
        load(tmp_path / "checkpoint", plain)
    sizes = (0.05,) * 3 + (0.5,) * 3
    policy = load(tmp_path / "checkpoint", replace(plain, action_unit_size=sizes))
    chunk = Runtime(policy, None).step(observation(), np.zeros((0, 7)), FULL_DEPTH).chunk.actions
    theirs = library_actions(policy, observation(), noise_seed(FRESH, 0, 0) % 2**63)
    assert np.array_equal(chunk, theirs * np.float32([*sizes, 1.0])) and policy.action.scale == (*sizes, 1.0)
    with pytest.raises(ContractError, match="robot.action.unit_size is of end_effector_delta alone"):
        load(tmp_path / "checkpoint", replace(plain, action_unit_size=sizes, action_kind="joint_position"))


@pytest.mark.parametrize("mode", ["ee6d", "AGIBOT_ee6d", None])
def test_absolute_poses_are_never_taken_for_joints(mode: str | None, copied: Any) -> None:
    folder = copied("xvla")
    edit(folder, action_mode=mode) if mode else edit_out(folder, "action_mode")
    with pytest.raises(ContractError, match=rf"action_mode is '{(mode or 'ee6d').lower()}', absolute poses"):
        load(folder)
    with pytest.raises(ContractError, match="the feature action has 6 values, but .* which gives 20"):
        load(folder, replace(ROBOT, action_kind="end_effector_pose", action_frame="base"))


def test_joints_are_never_taken_for_poses(copied: Any) -> None:
    folder = copied("xvla")
    edit(folder, action_mode="franka_joint7")
    with pytest.raises(ContractError, match=r"action_mode is 'franka_joint7', positions of joints"):
        load(folder, replace(ROBOT, action_kind="end_effector_pose", action_frame="base"))


def edit_out(folder: Path, name: str) -> None:
    values = json.loads((folder / "config.json").read_text())
    del values[name]
    (folder / "config.json").write_text(json.dumps(values))


def test_a_picture_that_nothing_resizes_has_the_size_of_training(copied: Any) -> None:
    folder = copied("xvla")
    features = json.loads((folder / "config.json").read_text())["input_features"]
    for name, feature in features.items():
        if "images" in name:
            feature["shape"] = [3, 32, 32]
    edit(folder, resize_imgs_with_padding=None, input_features=features)
    runtime = Runtime(load(folder), None)
    seen = observation()
    trained = replace(seen, images={name: np.zeros((32, 32, 3), np.uint8) for name in seen.images})
    runtime.step(trained, np.zeros((0, 6)), FULL_DEPTH)
    with pytest.raises(ObservationError, match=r"the picture of observation\.images\.top is 64 x 48 px; .* 32 x 32"):
        runtime.step(seen, np.zeros((0, 6)), FULL_DEPTH)


def test_each_observation_of_a_batch_has_its_own_noise(loaded: Any) -> None:
    policy = loaded("xvla")
    with torch.inference_mode():
        chunks = []
        for numbers in ([0, 1], [0], [1]):
            noise = policy.noise(numbers)
            hidden, context = policy.prepare([observation(number) for number in numbers], noise)
            for layer in policy.layers:
                hidden = layer(hidden, context)
            chunks.append(policy.decode(full_result(hidden, 6), context, None, noise, no_bridge)[0])
    assert torch.allclose(chunks[0], torch.cat(chunks[1:]), atol=1e-5)


def test_one_flow_step_leaves_nobody_to_follow(written: Any) -> None:
    assert [stream.name for stream in load(written("xvla"), flow_steps=1).streams] == ["stack"]


def test_its_streams_are_told_from_its_files_alone(written: Any, loaded: Any) -> None:
    policy, found = loaded("xvla"), explain(written("xvla"))
    assert [(it["name"], it["width"], it["passes"]) for it in found["streams"]] == [
        (stream.name, stream.width, stream.passes) for stream in policy.streams
    ]
    assert {it["layers"] for it in found["streams"]} == {len(policy.layers)} and found["hub"] == "facebook/bart-large"
