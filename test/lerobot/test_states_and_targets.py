"""Actions that are made of the state: relative ones, and joints as Aloha has them. No observation is ever changed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pi0
import tiny_pi05
import tiny_smolvla
import torch
from families import JOINTS, library_actions, load, observation, said
from lerobot.configs import FeatureType, PolicyFeature

from dysl_vla_ros.errors import ContractError
from dysl_vla_ros.runtime.noise import FRESH, noise_seed
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import FULL_DEPTH
from dysl_vla_ros.skipping.stack import full_result
from dysl_vla_ros.skipping.streams import no_bridge

RELATIVE = {"use_relative_actions": True, "relative_exclude_joints": ["jaw"], "action_feature_names": [*JOINTS, "jaw"]}
BOTH = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in (*"abcdef", "gripper"))
UNITS, PLAIN = ("state_units", "action_units"), ("deg",) * 5 + ("percent",)
IDENTITY = {"VISUAL": "IDENTITY", "STATE": "IDENTITY", "ACTION": "IDENTITY"}


def chunk(policy: Any, seen: Any) -> np.ndarray:
    return Runtime(policy, None).step(seen, np.zeros((0, policy.action.dimensions)), FULL_DEPTH).chunk.actions


@pytest.fixture(scope="module", params=[tiny_pi0, tiny_pi05], ids=["pi0", "pi05"])
def relative(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("relative")
    tiny_pi0.write_hub(folder / "hub")
    request.param.write(folder / "checkpoint", folder / "hub", **RELATIVE)
    return folder / "checkpoint"


def test_relative_actions_are_targets_from_the_state_that_they_were_computed_for(relative: Path) -> None:
    policy = load(relative)
    one, other = observation(1), observation(2)
    kept = one.proprioception.copy()
    theirs = library_actions(policy, one, noise_seed(FRESH, 0, 0) % 2**63)
    assert np.array_equal(chunk(policy, one), theirs) and np.array_equal(one.proprioception, kept)
    with torch.inference_mode():
        noise = policy.noise([noise_seed(FRESH, 0, 0)])
        hidden, context = policy.prepare([one], noise)
        for layer in policy.layers:
            hidden = layer(hidden, context)
        normalised, _ = policy.decode(full_result(hidden, len(policy.layers)), context, None, noise, no_bridge)
        policy.prepare([other], noise)  # the library's step remembers this state now
        assert np.array_equal(policy.actions(normalised, context)[0], theirs)
        moved = policy.actions(normalised, replace(context, state=context.state + 10.0))[0]
    assert np.allclose(moved - theirs, [10.0] * 5 + [0.0], atol=1e-3), "joints move with the state, the jaw does not"


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"state_units": ("rad", *("deg",) * 2, "range_100", "deg", "percent")}, "robot.state.units[0] of pan is rad"),
        (
            {"state_names": ("lift", "pan", *JOINTS[2:], "gripper.opening")},
            "robot.state.names[0] is lift, and is added",
        ),
        (
            {"action_kind": "joint_velocity", "action_low": (), "action_high": (), **dict.fromkeys(UNITS, PLAIN)},
            "these are targets, joint_position",
        ),
    ],
)
def test_what_is_added_to_an_action_is_the_same_quantity(wrong: Any, text: str, relative: Path) -> None:
    with pytest.raises(ContractError) as refused:
        load(relative, said(**wrong))
    assert text in str(refused.value) and "observation.images.top: " in refused.value.draft


def test_joints_as_aloha_has_them_are_turned_and_no_state_is_changed(tmp_path: Path) -> None:
    tiny_smolvla.write_hub(tmp_path / "hub")
    values = PolicyFeature(FeatureType.STATE, (len(BOTH),))
    cameras = {name: PolicyFeature(FeatureType.VISUAL, shape) for name, shape in tiny_smolvla.CAMERAS.items()}
    tiny_smolvla.write(
        tmp_path / "checkpoint", tmp_path / "hub", adapt_to_pi_aloha=True, normalization_mapping=IDENTITY,
        input_features={"observation.state": values, **cameras},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (len(BOTH),))},
    )  # fmt: skip
    units = ("rad",) * len(BOTH)
    arm = said(state_names=BOTH, state_units=units, action_names=BOTH, action_units=units, action_gripper="",
               action_low=(), action_high=())  # fmt: skip
    policy = load(tmp_path / "checkpoint", arm)
    state = np.linspace(0.1, 0.9, len(BOTH)).astype(np.float32)
    seen = replace(observation(), proprioception=state.copy())
    theirs = library_actions(policy, seen, noise_seed(FRESH, 0, 0) % 2**63)
    first, again = (chunk(policy, seen) for _ in range(2))
    assert np.array_equal(first, theirs) and np.array_equal(again, theirs)
    assert np.array_equal(seen.proprioception, state)
    with torch.inference_mode():
        noise = policy.noise([1])
        hidden, context = policy.prepare([seen], noise)
        given = context.batch["observation.state"].clone()
        for layer in policy.layers:
            hidden = layer(hidden, context)
        decoded = [
            policy.decode(full_result(hidden, len(policy.layers)), context, None, noise, no_bridge)[0] for _ in range(2)
        ]
        assert torch.equal(*decoded), "turned once, not once more in place"
        assert torch.equal(context.state, torch.from_numpy(state)[None]), "the state that was measured"
        assert torch.equal(context.batch["observation.state"], given) and torch.equal(given, context.state)
