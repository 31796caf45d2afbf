"""OpenVLA-OFT from a small checkpoint in the published layout: what goes in, what comes out, what is asked for."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import LlamaModel

from dysl_vla_ros.errors import ContractError, InstructionError, ObservationError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.policies.openvla.files import read_folder
from dysl_vla_ros.policies.openvla.images import prepare_picture
from dysl_vla_ros.policies.openvla.prompt import EMPTY, STOP
from dysl_vla_ros.policies.openvla.weights import load_network
from dysl_vla_ros.policies.openvla_oft import OpenVlaOftPolicy
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.policy_options import PolicyOptions
from dysl_vla_ros.robot_contract import RobotContract
from dysl_vla_ros.skipping.stack import Skip, SkippableStack, full_result
from dysl_vla_ros.skipping.streams import no_bridge
from effort import examples
from foreign_adapters import require_own_adapters_alone
from openvla_pictures import picture
from runtime_families import UNGUIDED, VERIFYING, nothing, runtime, still
from tiny_openvla import (
    BLOCKS,
    DATA_SET,
    DIMENSIONS,
    HORIZON,
    INSTRUCTION,
    LAYERS,
    STATE,
    WIDTH,
    changed,
    convert,
    preprocessor,
    said,
    statistics,
    write_tiny_openvla,
)

PATCHES = 256


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(write_tiny_openvla(tmp_path_factory.mktemp("openvla") / "checkpoint"))


@pytest.fixture(scope="module")
def policy(checkpoint: Path) -> OpenVlaOftPolicy:
    loaded = load_policy(checkpoint, options=said())
    assert isinstance(loaded, OpenVlaOftPolicy)
    return loaded


@pytest.fixture(scope="module")
def tensors(checkpoint: Path) -> dict[str, Tensor]:
    return {name: value for file in sorted(checkpoint.glob("model-*")) for name, value in load_file(file).items()}


def seen(policy: OpenVlaOftPolicy, instruction: str = INSTRUCTION, seed: int = 1) -> Observation:
    random = np.random.default_rng(seed)
    images = {camera: picture(5 + (seed + place) % 2) for place, camera in enumerate(policy.cameras)}
    return Observation(images, random.normal(0, 1.5, STATE).astype(np.float32), instruction)


def chunk(policy: OpenVlaOftPolicy, *observations: Observation) -> Tensor:
    with torch.inference_mode():
        hidden, context = policy.prepare(observations)
        for layer in policy.layers:
            hidden = layer(hidden, context)
        return policy.decode(full_result(hidden, LAYERS), context, None, None, no_bridge)[0]


def plain_tower(tensors: dict[str, Tensor], prefix: str, pixels: Tensor, heads: int = 16) -> Tensor:
    """Return what leaves the second-last block of a vision transformer, patches alone, by its formulas."""
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    def linear(name: str, values: Tensor) -> Tensor:
        return values @ own[f"{name}.weight"].T + own[f"{name}.bias"]

    def normed(name: str, values: Tensor) -> Tensor:
        scaled = (values - values.mean(-1, keepdim=True)) / (values.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
        return scaled * own[f"{name}.weight"] + own[f"{name}.bias"]

    squares = pixels.unfold(1, 14, 14).unfold(2, 14, 14).permute(1, 2, 0, 3, 4).reshape(PATCHES, -1)
    kernel = own["patch_embed.proj.weight"].flatten(1)
    tokens = squares @ kernel.T + own["patch_embed.proj.bias"] + own["pos_embed"][0]
    front = [own[name][0] for name in ("cls_token", "reg_token") if name in own]
    tokens = torch.cat([*front, tokens])
    for number in range(BLOCKS - 1):
        block = f"blocks.{number}."
        scales = [own.get(f"{block}{name}.scale_factor", torch.ones(())) for name in ("ls1", "ls2")]
        width = tokens.shape[1]
        mixed = linear(f"{block}attn.qkv", normed(f"{block}norm1", tokens)).reshape(-1, 3, heads, width // heads)
        query, key, value = mixed.permute(1, 2, 0, 3)
        shares = (query @ key.transpose(1, 2) / math.sqrt(width // heads)).softmax(-1)
        attended = (shares @ value).transpose(0, 1).reshape(-1, width)
        tokens = tokens + scales[0] * linear(f"{block}attn.proj", attended)
        inside = linear(f"{block}mlp.fc1", normed(f"{block}norm2", tokens))
        gelu = 0.5 * inside * (1 + torch.erf(inside / math.sqrt(2)))
        tokens = tokens + scales[1] * linear(f"{block}mlp.fc2", gelu)
    return tokens[-PATCHES:]


def test_what_enters_the_stack_is_what_the_files_say(policy: OpenVlaOftPolicy, tensors: dict[str, Tensor]) -> None:
    observed = seen(policy)
    with torch.inference_mode():
        hidden, context = policy.prepare([observed])
    ids = policy.prompt.encode(INSTRUCTION)
    assert ids[0] == 1 and ids[-1] == EMPTY
    assert hidden.shape == (1, 2 * PATCHES + 1 + len(ids) + HORIZON * DIMENSIONS + 1, WIDTH)
    words = tensors["language_model.model.embed_tokens.weight"]
    assert torch.equal(hidden[0, 0], words[1]) and torch.equal(hidden[0, -1], words[STOP])
    assert not hidden[0, -1 - HORIZON * DIMENSIONS : -1].any(), "the slots are zeros"
    place = int(context.last_word)
    assert torch.equal(hidden[0, place], words[EMPTY]) and not hidden[0, place + 1].any()
    own = preprocessor()
    for number, camera in enumerate(policy.cameras):
        pixels = torch.from_numpy(prepare_picture(observed.images[camera])).permute(2, 0, 1) / 255
        towers = [
            plain_tower(tensors, f"vision_backbone.{name}.", (pixels - values(mean)) / values(std))
            for name, mean, std in zip(("featurizer", "fused_featurizer"), own["means"], own["stds"], strict=True)
        ]
        tokens = torch.cat(towers, dim=1)
        for layer in (1, 2, 3):
            tokens = functional.gelu(tokens) if layer > 1 else tokens
            name = f"projector.fc{layer}"
            tokens = tokens @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
        first = 1 + number * PATCHES
        assert torch.allclose(hidden[0, first : first + PATCHES], tokens, atol=1e-5)


def test_both_towers_have_the_activation_that_they_were_trained_with(policy: OpenVlaOftPolicy) -> None:
    """An approximation of it differs by less than small random weights show."""
    assert policy.network.dino.config.hidden_act == policy.network.siglip.config.hidden_act == "gelu"


def values(three: list[float]) -> Tensor:
    return torch.tensor(three)[:, None, None]


def test_at_full_depth_the_bits_are_those_of_the_librarys_own_model(policy: OpenVlaOftPolicy, checkpoint: Path) -> None:
    with torch.inference_mode():
        hidden, context = policy.prepare([seen(policy)])
        entered = hidden
        for layer in policy.layers:
            hidden = layer(hidden, context)
        library = LlamaModel(policy.network.llama)
        names = library.state_dict().keys() - {"embed_tokens.weight"}
        weights = {name: policy.network.state_dict()[name] for name in names}
        library.load_state_dict(weights | {"embed_tokens.weight": policy.network.words.weight})
        everyone = torch.zeros(1, 1, hidden.shape[1], hidden.shape[1])
        output = library.eval()(inputs_embeds=entered, attention_mask=everyone, use_cache=False).last_hidden_state
        assert torch.equal(policy.network.norm(hidden), output)
        causal = library(inputs_embeds=entered, use_cache=False).last_hidden_state
    assert not torch.allclose(output, causal, atol=1e-3), "attention goes both ways"


def test_the_head_reads_from_the_prompts_last_word_on(policy: OpenVlaOftPolicy) -> None:
    with torch.inference_mode():
        hidden, context = policy.prepare([seen(policy)])
        first = int(context.last_word)
        whole = policy.decode(full_result(hidden, LAYERS), context, None, None, no_bridge)[0]
        for place, read in ((first - 1, False), (first, True), (first + HORIZON * DIMENSIONS, False)):
            other = hidden.clone()
            other[0, place] += 1.0
            moved = policy.decode(full_result(other, LAYERS), context, None, None, no_bridge)[0]
            assert torch.equal(moved, whole) != read
        other = hidden.clone()
        other[0, first + DIMENSIONS] += 1.0  # the first token of the second action
        moved = policy.decode(full_result(other, LAYERS), context, None, None, no_bridge)[0]
    assert [bool((moved[0, row] != whole[0, row]).any()) for row in range(HORIZON)] == [False, True, False, False]


@given(layer=st.integers(0, LAYERS - 2), shift=st.floats(-2, 2))
@hypothesis_settings(deadline=None, max_examples=examples(5, 20))
def test_verification_after_any_skip_is_full_depth_bit_for_bit(
    policy: OpenVlaOftPolicy, layer: int, shift: float
) -> None:
    class Rule:
        def skip(self, at: int, hidden: Tensor, context: Any) -> Skip | None:
            return Skip(LAYERS - 1, hidden + shift) if at == layer else None

    with torch.inference_mode():
        hidden, context = policy.prepare([seen(policy)])
        stack = SkippableStack(policy.layers)
        skipped = stack.run(hidden, context, Rule())
        assert skipped.resume_point is not None and sum(skipped.executed) == layer + 1
        verified = stack.resume(skipped.resume_point, context)
        for own in policy.layers:
            hidden = own(hidden, context)
        assert torch.equal(verified.hidden, hidden)
        both = [policy.decode(it, context, None, None, no_bridge)[0] for it in (verified, full_result(hidden, LAYERS))]
    assert torch.equal(*both)


def test_a_step_skips_and_verifies_as_it_does_with_every_family(policy: OpenVlaOftPolicy) -> None:
    tested = runtime("openvla", policy=policy)
    first = tested.step(seen(policy), nothing(policy), UNGUIDED)
    assert not all(first.trace.executed) and not first.trace.verified
    second = tested.step(seen(policy, seed=2), still(policy), VERIFYING)
    assert second.trace.verified and all(second.trace.executed)
    full = policy.actions(chunk(policy, seen(policy, seed=2)), None)[0]
    assert np.array_equal(second.chunk.actions, full), "verified is full depth"


def test_prompts_of_any_length_give_the_same_alone_and_in_a_batch(policy: OpenVlaOftPolicy) -> None:
    all_seen = [seen(policy, words, seed) for seed, words in enumerate(("lift it", "put the bowl on the red plate"), 1)]
    together = chunk(policy, *all_seen)
    for row, one in enumerate(all_seen):
        assert torch.allclose(together[row : row + 1], chunk(policy, one), atol=1e-5)


def test_actions_are_taken_apart_by_the_statistics(policy: OpenVlaOftPolicy) -> None:
    own = statistics()["action"]
    normalised = torch.tensor([[[-1.0] * DIMENSIONS, [1.0] * DIMENSIONS]])
    low, high = policy.actions(normalised, None)[0]
    assert np.allclose(low[:6], own["q01"][:6], atol=1e-6) and np.allclose(high[:6], own["q99"][:6], atol=1e-6)
    assert low[6] == -1.0 and high[6] == 1.0, "what the mask leaves out goes through as it is"


def test_a_unit_of_the_actions_may_be_said_to_be_another_size(
    policy: OpenVlaOftPolicy, checkpoint: Path, tmp_path: Path
) -> None:
    """LIBERO's are shares of what its controller takes as 1: 0.05 m, 0.5 rad. Its statistics alone are too fast."""
    libero = tmp_path / "libero"
    libero.mkdir()
    linked(checkpoint, libero)
    own = json.loads((checkpoint / "dataset_statistics.json").read_text())
    for values in own.values():
        values["action"]["q01"], values["action"]["q99"] = [-0.9] * 6 + [0.0], [0.9] * 6 + [1.0]
    (libero / "dataset_statistics.json").unlink()
    (libero / "dataset_statistics.json").write_text(json.dumps(own))
    with pytest.raises(ContractError, match="m/s of x within time_step"):
        load_policy(libero, options=said())
    sizes = (0.05,) * 3 + (0.5,) * 3
    robot = replace(said().robot, action_unit_size=sizes)
    scaled = load_policy(libero, options=said(robot=robot))
    high = scaled.actions(torch.ones(1, 1, DIMENSIONS), None)[0, 0]
    np.testing.assert_allclose(high, [0.045] * 3 + [0.45] * 3 + [1.0], rtol=1e-5)
    np.testing.assert_allclose(scaled.action.normalise(high), [1.0] * DIMENSIONS, rtol=1e-5)
    assert scaled.base_hash != policy.base_hash
    for wrong, told in (((0.05,), "has 1 values, expected 6"), ((0.05,) * 7, "has 7 values, expected 6")):
        with pytest.raises(ContractError, match=f"robot.action.unit_size {told}"):
            load_policy(checkpoint, options=said(robot=replace(robot, action_unit_size=wrong)))


def test_other_bounds_are_other_actions(checkpoint: Path) -> None:
    policy = load_policy(checkpoint, options=said(bounds="min_max"))
    own = statistics()["action"]
    low = policy.actions(torch.full((1, 1, DIMENSIONS), -1.0), None)[0, 0]
    assert np.allclose(low[:6], own["min"][:6], atol=1e-6)
    assert policy.base_hash != load_policy(checkpoint, options=said()).base_hash


def test_proprioception_is_normalised_and_clipped(policy: OpenVlaOftPolicy) -> None:
    own = statistics()["proprio"]
    for bound, expected in (("q01", -1.0), ("q99", 1.0), ("max", 1.0), ("min", -1.0)):
        state = np.array(own[bound], dtype=np.float32)
        prepared = policy._proprioception(replace(seen(policy), proprioception=state))
        assert torch.allclose(prepared, torch.full((STATE,), expected), atol=1e-6)


@pytest.mark.parametrize(
    "cameras", [("full_image",), ("wrist_image", "full_image"), ("left_wrist_image", "right_wrist_image", "full_image")]
)
def test_one_to_three_pictures_are_read_in_the_order_of_training(checkpoint: Path, cameras: tuple[str, ...]) -> None:
    policy = load_policy(checkpoint, options=said(*cameras))
    assert policy.cameras == ("full_image", *(name for name in cameras if name != "full_image"))
    assert chunk(policy, seen(policy)).shape == (1, HORIZON, DIMENSIONS)


@pytest.mark.parametrize("cameras", [("wrist_image",), ("full_image", "side"), ("full_image", "wrist_image", "side")])
def test_a_camera_too_many_or_too_few_is_refused(checkpoint: Path, cameras: tuple[str, ...]) -> None:
    with pytest.raises(ContractError, match=r"robot\.cameras has .*expected the pictures"):
        load_policy(checkpoint, options=said(*cameras))


def test_a_missing_picture_is_never_replaced(policy: OpenVlaOftPolicy) -> None:
    observed = seen(policy)
    one = replace(observed, images={"full_image": observed.images["full_image"]})
    with pytest.raises(ObservationError, match="no picture of wrist_image"):
        policy.prepare([one])


@pytest.mark.parametrize("wrong", [np.zeros(STATE - 1), np.full(STATE, np.nan)])
def test_proprioception_of_another_size_or_not_finite_is_refused(policy: OpenVlaOftPolicy, wrong: Any) -> None:
    with pytest.raises(ObservationError, match=f"must be {STATE} finite values"):
        policy.prepare([replace(seen(policy), proprioception=wrong)])


@pytest.mark.parametrize("words", ["", " ?!", "lift it</s>", "<s>lift it", "lift " * 2000])
def test_an_instruction_that_makes_no_prompt_is_refused(policy: OpenVlaOftPolicy, words: str) -> None:
    with pytest.raises(InstructionError, match="the instruction"):
        policy.check_instruction(words)


def test_what_no_file_says_is_asked_for_all_at_once(checkpoint: Path) -> None:
    with pytest.raises(ContractError) as caught:
        load_policy(checkpoint)
    wanted = ("model.horizon", "model.bounds", "robot.cameras", "robot.state.names", "robot.action.kind", "time_step")
    assert all(name in str(caught.value) for name in wanted)
    assert "full_image" in caught.value.draft and "time_step: ..." in caught.value.draft


@pytest.mark.parametrize("name", ["horizon", "bounds"])
def test_a_missing_parameter_is_named(checkpoint: Path, name: str) -> None:
    with pytest.raises(ContractError, match=f"model.{name} is not said"):
        load_policy(checkpoint, options=said(**{name: type(getattr(PolicyOptions(), name))()}))


def test_a_contract_of_other_sizes_is_refused(checkpoint: Path) -> None:
    robot = replace(said().robot, state_names=("joint_1",), state_units=("rad",))
    with pytest.raises(ContractError, match=rf"robot.state.names has 1 values, .*proprio_projector.* has {STATE}"):
        load_policy(checkpoint, options=said(robot=robot))
    assert isinstance(robot, RobotContract)


def test_of_several_data_sets_one_must_be_named(checkpoint: Path, tmp_path: Path) -> None:
    folder = linked(checkpoint, tmp_path)
    two = {DATA_SET: statistics(), "plates": statistics()}
    (folder / "dataset_statistics.json").unlink()
    (folder / "dataset_statistics.json").write_text(json.dumps(two))
    with pytest.raises(Exception, match=f"set model.statistics_key to one of {DATA_SET}, plates"):
        load_policy(folder, options=said())
    with pytest.raises(Exception, match="no 'spoons'; set model.statistics_key to one of"):
        load_policy(folder, options=said(statistics_key="spoons"))
    assert load_policy(folder, options=said(statistics_key="plates")).action.horizon == HORIZON


def test_each_tensor_is_used_once_or_named_as_unused(checkpoint: Path, tensors: dict[str, Tensor]) -> None:
    network, dtype, unused = load_network(read_folder(checkpoint), torch.device("cpu"), None)
    assert dtype == torch.float32
    last = f"blocks.{BLOCKS - 1}."
    expected = {
        name
        for name in tensors
        if "attn_pool" in name or "lm_head" in name or last in name or ("vision" in name and "featurizer.norm" in name)
    }
    assert set(unused) == expected and len(unused) == len(expected)
    in_use = sum(value.numel() for name, value in tensors.items() if name not in expected)
    parts = [network.dino, network.siglip, network.projector, network.words, network.layers, network.norm]
    made = 2 * 32  # DINOv2's mask token, and the class token's place
    assert sum(weight.numel() for part in parts for weight in part.parameters()) == in_use + made


def test_bfloat16_files_are_computed_in_bfloat16(tmp_path: Path) -> None:
    folder = convert(write_tiny_openvla(tmp_path / "half", torch.bfloat16))
    policy, whole = (load_policy(folder, options=said(), dtype=kind) for kind in (None, torch.float32))
    assert policy.dtype == torch.bfloat16 and whole.dtype == torch.float32
    near = chunk(policy, seen(policy)), chunk(whole, seen(whole))
    assert torch.allclose(near[0].float(), near[1], atol=0.1)


def test_one_file_without_an_index_is_read_too(tmp_path: Path, checkpoint: Path) -> None:
    folder = convert(write_tiny_openvla(tmp_path / "one", shards=1))
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model-00001-of-00001.safetensors").rename(folder / "model.safetensors")
    one, two = (load_policy(path, options=said()) for path in (folder, checkpoint))
    assert torch.equal(chunk(one, seen(one)), chunk(two, seen(two)))


def test_rotary_angles_of_newer_files_are_read(tmp_path: Path, checkpoint: Path) -> None:
    folder = linked(checkpoint, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    text = config["text_config"] | {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}
    changed(folder / "config.json", {"text_config": text})
    assert load_policy(folder, options=said()).network.llama.rope_parameters["rope_theta"] == 500.0


def linked(checkpoint: Path, folder: Path) -> Path:
    """Return a folder with links to a checkpoint's files, in which some may be replaced."""
    for file in checkpoint.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def test_adapters_of_another_policy_are_refused(policy: OpenVlaOftPolicy, checkpoint: Path, tmp_path: Path) -> None:
    require_own_adapters_alone(policy, checkpoint, tmp_path)
