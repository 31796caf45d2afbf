"""Full depth is the library's own result, whatever was skipped before; the library's object is never changed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, PARTITION, Calls, library_actions, load, modules, observation, plans

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.runtime.folder import DyslFolder
from dysl_vla_ros.runtime.noise import FRESH, noise_seed
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import FULL_DEPTH, GuidanceSettings, RuntimeSettings
from dysl_vla_ros.skipping.depth_rules import FixedPlan, FullDepth
from dysl_vla_ros.skipping.stack import SkippableStack
from dysl_vla_ros.skipping.streams import no_bridge
from foreign_adapters import require_own_adapters_alone

families = pytest.mark.parametrize("family", FAMILIES)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def played(count: int = 0) -> np.ndarray:
    return np.zeros((count, 6), dtype=np.float32)


@families
@dtypes
def test_with_skipping_closed_a_chunk_is_what_select_action_plays(family: str, dtype: Any, loaded: Any) -> None:
    policy = loaded(family, dtype)
    runtime = Runtime(policy, None)
    for number in range(2):
        seen = observation(number)
        chunk = runtime.step(seen, played(), FULL_DEPTH).chunk.actions
        theirs = library_actions(policy, seen, noise_seed(FRESH, 0, number) % 2**63)
        assert chunk.shape == (8, 6) and np.array_equal(chunk, theirs)
        assert np.ptp(chunk, axis=0).min() > 0.0, "a chunk that stands still proves nothing"


@families
@dtypes
def test_after_any_skip_full_depth_has_the_same_bits_and_flags_are_what_hooks_saw(
    family: str, dtype: Any, loaded: Any
) -> None:
    policy = loaded(family, dtype)
    stack, own, passes = SkippableStack(policy.layers), modules(policy), FAMILIES[family].passes
    with torch.inference_mode():
        noise = policy.noise([5])
        hidden, context = policy.prepare([observation(4)], noise)
        full, _ = policy.decode(stack.run(hidden, context, FullDepth()), context, None, noise, no_bridge)
        skipped = {}
        for positions in plans():
            hidden, context = policy.prepare([observation(4)], noise)
            with Calls(family, policy) as calls:
                result = stack.run(hidden, context, FixedPlan(PARTITION, own, positions))
                skipped[positions], _ = policy.decode(result, context, None, noise, own.bridge)
            calls.require(result.executed, passes)
            if result.resume_point is None:
                assert torch.equal(skipped[positions], full)
                continue
            again, _ = policy.decode(result, context, None, noise, own.bridge)
            assert torch.equal(again, skipped[positions]), "a context carries any passes one after the other"
            second, _ = policy.decode(stack.resume(result.resume_point, context), context, None, noise, own.bridge)
            assert torch.equal(second, full)
            assert not torch.equal(skipped[positions], full)
        assert len(skipped) == 6


@families
def test_a_verified_step_is_the_step_at_full_depth(family: str, loaded: Any) -> None:
    policy = loaded(family)
    own = modules(policy)
    for layer in PARTITION.dynamic:
        own.controller(layer).offset.fill_(9.0)  # skips wherever it may
    calibrated = {"step": 0.2, "verify_threshold": 1e-6, "dead_band": 0.0, "stride": "integral", "verify_on": "any"}
    runtime = Runtime(policy, DyslFolder(PARTITION, own, {}, calibrated))
    full = Runtime(policy, None)
    settings = RuntimeSettings(guidance=GuidanceSettings(prior=False, warmup=0))
    still = np.repeat(played(1) + policy.action.center, 3, axis=0).astype(np.float32)
    verified = False
    for number in range(3):
        given = still if number else played()
        one, other = (it.step(observation(number), given, s) for it, s in ((runtime, settings), (full, FULL_DEPTH)))
        verified |= one.trace.verified
        assert not one.trace.verified or np.array_equal(one.chunk.actions, other.chunk.actions)
    assert verified


@families
def test_the_librarys_object_and_random_state_are_as_before(family: str, written: Any) -> None:
    folder = written(family)
    untouched = FAMILIES[family].library(folder)
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    policy = load(folder)
    assert torch.equal(torch.rand(3), expected)
    stack, own, noise = SkippableStack(policy.layers), modules(policy), policy.noise([3])
    with torch.inference_mode():
        before = policy.reference_chunk(observation(), 3)
        for positions in (plans()[0], plans()[-1]):
            hidden, context = policy.prepare([observation()], noise)
            policy.decode(
                stack.run(hidden, context, FixedPlan(PARTITION, own, positions)), context, None, noise, own.bridge
            )
        after = policy.reference_chunk(observation(), 3)
        frame = policy.preprocessor({**policy._frame(observation()), "task": ["pick up the red cube"]})
        torch.manual_seed(3)
        assert torch.equal(untouched.predict_action_chunk(frame, noise=noise), after) and torch.equal(before, after)
    mine, theirs = policy.policy.state_dict(), untouched.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert [name for name, _ in policy.policy.named_modules()] == [name for name, _ in untouched.named_modules()]


@families
def test_a_library_that_computes_other_bits_is_refused_with_its_versions(
    family: str, written: Any, loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, folder = loaded(family), written(family)
    kind = type(policy.policy)
    own = kind.predict_action_chunk
    # loading ends with this check: of one family that is seen from outside, the others have the same loader
    check = (lambda: load(folder)) if family == "smolvla" else policy.check_against_library
    monkeypatch.setattr(kind, "predict_action_chunk", lambda *a, **k: own(*a, **k) * (1 + 2**-20))
    with pytest.raises(CheckpointError, match=r"differs from the library's .* lerobot 0\.6.*, torch .*, transformers"):
        check()
    monkeypatch.setattr(kind, "predict_action_chunk", lambda *a, **k: 1 / 0)
    with pytest.raises(CheckpointError, match=r"ZeroDivisionError.*lerobot 0\.6"):
        check()


@families
def test_options_reach_the_library(family: str, written: Any, loaded: Any) -> None:
    folder = written(family)
    policy = load(folder, flow_steps=2, tokenizer=str(folder.parent / "hub"))
    assert policy.streams[1].passes == FAMILIES[family].passes - 1, "of three steps one less"
    usual = loaded(family)
    assert usual.streams[1].passes == FAMILIES[family].passes
    assert policy.base_hash != usual.base_hash and policy.weights_hash == usual.weights_hash
    assert usual.cameras == ("observation.images.top", "observation.images.wrist"), "the checkpoint's first one paces"
    assert sum(len(weights) for weights in usual.parts().values()) == len(list(usual.policy.parameters()))
    assert usual.check_instruction("pick " * 300)[0].startswith("the instruction has ")


@families
def test_adapters_of_another_policy_are_refused(family: str, written: Any, loaded: Any, tmp_path: Path) -> None:
    require_own_adapters_alone(loaded(family), written(family), tmp_path)
