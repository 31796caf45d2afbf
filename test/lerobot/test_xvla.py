"""What X-VLA alone has: Florence-2's names as they were published, action spaces, pictures that nothing resizes."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import load, observation
from lerobot.policies.xvla.modeling_xvla import _remap_vendored_florence_state_dict
from safetensors.torch import load_file, save_file

from dysl_vla_ros.errors import CheckpointError, ObservationError
from dysl_vla_ros.policies.lerobot.explanation import explain
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import FULL_DEPTH
from dysl_vla_ros.skipping.stack import full_result
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


@pytest.mark.parametrize("mode", ["ee6d", "AGIBOT_ee6d", None])
def test_absolute_poses_are_refused(mode: str | None, copied: Any) -> None:
    folder = copied("xvla")
    edit(folder, action_mode=mode) if mode else edit_out(folder, "action_mode")
    with pytest.raises(CheckpointError, match=rf"action_mode is '{(mode or 'ee6d').lower()}', absolute poses"):
        load(folder)


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
