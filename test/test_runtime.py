"""One step: full depth is the policy's own output, a verified step equals a full one, the trace says what hooks saw."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dysl_vla_ros.errors import CheckpointError, NonFiniteActionError, ObservationError, SettingError
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import FULL_DEPTH, GuidanceSettings, RuntimeSettings, SkippingSettings
from dysl_vla_ros.skipping.depth_rules import FullDepth, StaticOnly
from dysl_vla_ros.skipping.guidance import PriorPostGuidance
from runtime_families import (
    CALIBRATED,
    FAMILIES_UNDER_TEST,
    PARTITION,
    UNGUIDED,
    VERIFYING,
    Recorded,
    families,
    nothing,
    observation,
    own_output,
    policy_of,
    runtime,
    still,
)

# --- full depth


@families
@pytest.mark.parametrize("why", ["no DySL folder", "skipping disabled", "warm-up", "controllers closed"])
def test_at_full_depth_the_chunk_is_the_policys_own_bit_for_bit(family: str, why: str) -> None:
    policy = policy_of(family)
    tested = Runtime(policy, None) if why == "no DySL folder" else runtime(family)
    chosen = {
        "skipping disabled": replace(UNGUIDED, skipping=SkippingSettings(rule="full")),
        "warm-up": replace(UNGUIDED, guidance=replace(UNGUIDED.guidance, warmup=1)),
        "controllers closed": replace(UNGUIDED, skipping=SkippingSettings(threshold=1.0)),
    }.get(why, RuntimeSettings())
    seen = observation(policy)
    expected = own_output(policy, seen)
    result = tested.step(seen, nothing(policy), chosen)
    assert np.array_equal(result.chunk.actions, expected)
    assert result.chunk.actions.dtype == np.float32
    assert result.trace.executed == (True,) * 8
    assert result.trace.layer_calls == 8
    assert result.trace.full_depth_reason == ("" if why == "controllers closed" else why)
    assert not result.chunk.verified


@families
def test_the_warm_up_lasts_its_inferences_and_begins_again_at_a_reset(family: str) -> None:
    tested, policy = runtime(family), policy_of(family)
    chosen = replace(UNGUIDED, guidance=replace(UNGUIDED.guidance, warmup=2))

    def reasons(count: int) -> list[str]:
        return [
            tested.step(observation(policy, seed), nothing(policy), chosen).trace.full_depth_reason
            for seed in range(count)
        ]

    assert reasons(4) == ["warm-up", "warm-up", "", ""]
    tested.reset()
    assert reasons(3) == ["warm-up", "warm-up", ""]


# --- skipping


@families
@pytest.mark.parametrize("seed", range(6))
def test_the_trace_says_what_hooks_on_the_layers_saw(family: str, seed: int) -> None:
    policy, tested = policy_of(family), runtime(family, eagerness=0.0)
    for number, chosen in enumerate((UNGUIDED, VERIFYING)):
        seen = observation(policy, seed + number)
        with Recorded(family, policy) as calls:
            trace = tested.step(seen, still(policy), chosen).trace
        if family == "stateful":
            del calls[:8]  # its prepare runs the model's own forward first
        assert trace.layer_calls == len(calls)
        assert trace.executed == tuple(layer in calls for layer in range(8))
        for point, (first, end) in zip(trace.skip_points, PARTITION.blocks, strict=True):
            assert point == -1 or first <= point < end


@families
def test_a_skipped_step_is_cheaper_and_says_where_it_skipped(family: str) -> None:
    policy = policy_of(family)
    trace = runtime(family).step(observation(policy), nothing(policy), UNGUIDED).trace
    assert trace.skip_points == (1, 5)
    assert trace.executed == tuple(layer in PARTITION.static for layer in range(8))
    assert trace.layer_calls == 3
    assert trace.controller_outputs == pytest.approx((0.99988, 0.99988), abs=1e-5)
    assert trace.allow_points == (1, 5)


@families
def test_a_threshold_acts_on_the_next_step(family: str) -> None:
    policy, tested = policy_of(family), runtime(family)
    calls = [
        tested.step(
            observation(policy), nothing(policy), replace(UNGUIDED, skipping=SkippingSettings(threshold=threshold))
        ).trace.layer_calls
        for threshold in (0.5, 1.0, 0.5)
    ]
    assert calls == [3, 8, 3]


@families
def test_guidance_settings_and_m_act_on_the_next_step(family: str) -> None:
    policy, tested = policy_of(family), runtime(family)
    moving = policy.action.denormalise(
        np.outer([0.0, 9.0, 10.0], np.eye(policy.action.dimensions)[0]).astype(np.float32)
    )
    seen, narrow = observation(policy), replace(UNGUIDED, guidance=replace(UNGUIDED.guidance, window=1))
    assert tested.step(seen, moving, narrow).trace.continuity == pytest.approx(-1.0, abs=1e-3)
    wider = replace(narrow, actions_per_inference=2)
    assert tested.step(seen, nothing(policy), wider).trace.continuity == pytest.approx(-5.0, abs=1e-3)
    verified = [tested.step(seen, still(policy, 9), chosen).trace.verified for chosen in (VERIFYING, UNGUIDED)]
    assert verified == [True, False]


@families
def test_the_prior_keeps_blocks_closed_after_continuity_fell(family: str) -> None:
    policy, tested = policy_of(family), runtime(family)
    chosen = RuntimeSettings(guidance=GuidanceSettings(verify=False, warmup=0, window=1))
    tested.step(observation(policy), still(policy), chosen)
    moved = still(policy, 1) + np.float32(policy.action.scale)  # one unit in every dimension
    trace = tested.step(observation(policy), moved, chosen).trace
    assert trace.continuity_change < -1.0
    assert trace.allow_points == (4, 7)
    assert trace.layer_calls == 8 and all(math.isnan(output) for output in trace.controller_outputs)


@families
def test_a_constant_floor_is_one_setting_whatever_guidance_says(family: str) -> None:
    policy, tested, floor = policy_of(family), runtime(family, -9.0), runtime(family, -9.0)
    floor.rule_override = lambda points: StaticOnly(PARTITION, floor.dysl.modules)
    chosen = RuntimeSettings(SkippingSettings(rule="static"), GuidanceSettings(window=1, warmup=5, verify_every=1))
    played = still(policy)
    for seed in range(3):
        result = tested.step(observation(policy, seed), played, chosen)
        wanted = floor.step(observation(policy, seed), played, UNGUIDED)
        assert np.array_equal(result.chunk.actions, wanted.chunk.actions)
        assert result.trace.executed == tuple(layer in PARTITION.static for layer in range(8))
        assert not result.trace.verified and result.trace.allow_points == (1, 5)
        played = result.chunk.actions[:1]


def test_an_empty_rule_is_the_folders_own_and_the_old_name_of_full_still_counts() -> None:
    policy, tested = policy_of("reference"), runtime("reference", -9.0)
    tested = Runtime(policy, replace(tested.dysl, config={"rule": "static"}))
    calls = [
        tested.step(observation(policy), nothing(policy), replace(UNGUIDED, skipping=skipping)).trace.layer_calls
        for skipping in (SkippingSettings(), SkippingSettings(rule="dysl"), SkippingSettings(enabled=False))
    ]
    assert calls == [3, 8, 8]


# --- verification


@families
@pytest.mark.parametrize("seed", range(4))
def test_a_verified_step_equals_a_full_step_bit_for_bit(family: str, seed: int) -> None:
    policy, tested = policy_of(family), runtime(family, eagerness=9.0)
    seen = observation(policy, seed)
    expected = own_output(policy, seen)
    result = tested.step(seen, still(policy), VERIFYING)
    assert result.trace.verified and result.chunk.verified and result.trace.verify_reason == "any drop"
    assert np.array_equal(result.chunk.actions, expected)
    assert result.trace.executed == (True,) * 8
    assert result.trace.layer_calls == 3 + 7  # the floor, then everything from layer 1 on
    assert result.trace.skip_points == (1, 5)
    assert result.trace.candidate_change < 0.0


@families
def test_nothing_is_verified_where_nothing_was_skipped_or_nobody_wants_it(family: str) -> None:
    policy, seen = policy_of(family), observation(policy_of(family))
    unwanted = replace(VERIFYING, guidance=replace(VERIFYING.guidance, verify=False))
    for tested, chosen in ((runtime(family, -9.0), VERIFYING), (runtime(family), unwanted)):
        trace = tested.step(seen, still(policy), chosen).trace
        assert trace.candidate_change < -1e-6
        assert not trace.verified and trace.verify_reason == ""


@families
@pytest.mark.parametrize(("m", "first_index"), [(1, 0), (4, 2)])
def test_the_correction_is_the_distance_of_the_actions_that_would_be_played(
    family: str, m: int, first_index: int
) -> None:
    policy, seen = policy_of(family), observation(policy_of(family))
    chosen = [replace(settings, actions_per_inference=m) for settings in (UNGUIDED, VERIFYING)]
    draft, final = (runtime(family).step(seen, still(policy), settings, first_index=first_index) for settings in chosen)
    assert math.isnan(draft.trace.correction) and final.trace.verified
    rows = slice(first_index, first_index + m)
    one, other = (policy.action.normalise(result.chunk.actions[rows]) for result in (draft, final))
    assert final.trace.correction == pytest.approx(float(np.abs(one - other).mean()))
    assert final.trace.correction > 0.0


def test_the_decoding_state_is_that_of_the_pass_that_counts() -> None:
    policy = policy_of("stateful")
    verifying, full, skipping = runtime("stateful"), Runtime(policy, None), runtime("stateful")
    episode = [observation(policy, seed) for seed in range(4)]
    for number, seen in enumerate(episode):
        expected = own_output(policy, *episode[: number + 1])
        verified = verifying.step(seen, still(policy), VERIFYING)
        assert verified.trace.verified
        assert np.array_equal(verified.chunk.actions, expected)
        assert np.array_equal(full.step(seen, still(policy), RuntimeSettings()).chunk.actions, expected)
        assert not np.array_equal(skipping.step(seen, still(policy), UNGUIDED).chunk.actions, expected)


@families
@pytest.mark.parametrize(("m", "first_index"), [(1, 0), (1, 2), (2, 1), (4, 4), (1, 99)])
def test_the_candidate_is_what_will_be_played_before_the_next_inference(family: str, m: int, first_index: int) -> None:
    policy, tested = policy_of(family), runtime(family)
    chosen = replace(UNGUIDED, actions_per_inference=m)
    result = tested.step(observation(policy), still(policy), chosen, first_index=first_index)
    alone = PriorPostGuidance((), policy.action)
    alone.configure(chosen.guidance, m)
    alone.observe(still(policy))
    candidate = result.chunk.actions[first_index : first_index + m]
    assert result.trace.candidate_change == alone.candidate_change(candidate)
    assert (result.trace.candidate_change == 0.0) is (first_index == 99)


# --- what was played


@families
def test_played_actions_reach_guidance_once_each(family: str) -> None:
    policy, tested = policy_of(family), runtime(family)
    alone = PriorPostGuidance(PARTITION.blocks, policy.action)
    alone.configure(GuidanceSettings().resolved(CALIBRATED), 2)
    chosen = RuntimeSettings(actions_per_inference=2)
    played, underruns = nothing(policy), [(), (), (0,), (1,), (0, 2)]
    for seed, gaps in enumerate(underruns):
        result = tested.step(observation(policy, seed), played, chosen, gaps)
        alone.observe(played, gaps)
        assert repr(result.trace.continuity) == repr(alone.continuity)
        assert result.trace.continuity_change == alone.continuity_change
        assert result.trace.allow_points == alone.allow_points()
        played = result.chunk.actions[:2]


@families
@pytest.mark.parametrize("shape", [(4,), (2, 3), (1, 2, 4)])
def test_played_actions_of_another_shape_are_refused(family: str, shape: tuple[int, ...]) -> None:
    policy, tested = policy_of(family), runtime(family)
    with pytest.raises(ObservationError, match="played actions of shape"):
        tested.step(observation(policy), np.zeros(shape, dtype=np.float32), UNGUIDED)


@pytest.mark.parametrize("gaps", [(3,), (-1,), (1, 0), (1, 1)])
def test_gaps_that_are_no_places_are_refused(gaps: tuple[int, ...]) -> None:
    policy, tested = policy_of("reference"), runtime("reference")
    with pytest.raises(ObservationError, match="must be ascending places from 0 to 2"):
        tested.step(observation(policy), still(policy)[:2], UNGUIDED, gaps)


@families
def test_played_actions_that_are_not_finite_are_refused_and_not_observed(family: str) -> None:
    policy, tested = policy_of(family), runtime(family)
    bad = still(policy)
    bad[1, 0] = math.nan
    with pytest.raises(ObservationError, match="finite"):
        tested.step(observation(policy), bad, UNGUIDED)
    assert math.isnan(tested.step(observation(policy), nothing(policy), UNGUIDED).trace.continuity)


# --- faults


@families
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_action_that_is_not_finite_is_refused_and_the_next_good_step_works(family: str, value: float) -> None:
    policy = FAMILIES_UNDER_TEST[family].make()
    tested, untouched = runtime(family, policy=policy), runtime(family)
    bias = FAMILIES_UNDER_TEST[family].head(policy).bias.data
    seen, kept = observation(policy), bias[3].item()
    bias[3] = value
    with pytest.raises(NonFiniteActionError, match="NaN or infinity in . of .*first in action 0"):
        tested.step(seen, still(policy), UNGUIDED)
    bias[3] = kept
    again = tested.step(seen, nothing(policy), UNGUIDED)
    assert np.array_equal(again.chunk.actions, untouched.step(seen, nothing(policy), UNGUIDED).chunk.actions)
    assert again.trace.continuity == 0.0, "what was played before the failed step is observed, once"


@families
def test_a_picture_that_is_missing_fails_the_step_and_loses_nothing_that_was_played(family: str) -> None:
    policy, tested = policy_of(family), runtime(family)
    seen = observation(policy)
    with pytest.raises(ObservationError):
        tested.step(replace(seen, images={}), still(policy, 2), UNGUIDED)
    assert tested.step(seen, nothing(policy), UNGUIDED).trace.continuity == 0.0


@families
def test_an_empty_instruction_is_refused(family: str) -> None:
    policy = policy_of(family)
    with pytest.raises(ObservationError, match="instruction"):
        runtime(family).step(replace(observation(policy), instruction="  "), nothing(policy), UNGUIDED)


@families
def test_a_setting_that_is_open_fails_the_step_by_name_and_loses_nothing_that_was_played(family: str) -> None:
    policy = policy_of(family)
    tested = Runtime(policy, replace(runtime(family).dysl, calibrated={}))
    with pytest.raises(SettingError, match=r"guidance\.step .*guidance\.verify_on"):
        tested.step(observation(policy), still(policy), RuntimeSettings())
    assert tested.step(observation(policy), nothing(policy), UNGUIDED).trace.continuity == 0.0


# --- the rest


@families
def test_two_runtimes_that_see_the_same_say_the_same(family: str) -> None:
    policy = policy_of(family)

    def episode() -> list[str]:
        tested, played, said = runtime(family, eagerness=0.0), nothing(policy), []
        for seed in range(6):
            result = tested.step(observation(policy, seed), played, RuntimeSettings())
            said.append(repr((result.trace, result.chunk.actions.tobytes())))
            played = result.chunk.actions[:1]
        return said

    assert episode() == episode()


@families
def test_a_reset_forgets_everything(family: str) -> None:
    policy, used, fresh = policy_of(family), runtime(family), runtime(family)
    for seed in range(3):
        used.step(observation(policy, seed), still(policy, seed), UNGUIDED)
    used.reset()
    for seed in range(3):
        one, two = (each.step(observation(policy, seed), nothing(policy), VERIFYING) for each in (used, fresh))
        assert repr(one.trace) == repr(two.trace)
        assert np.array_equal(one.chunk.actions, two.chunk.actions)


@families
def test_warming_up_leaves_no_trace_in_the_episode(family: str) -> None:
    policy, warmed, cold = policy_of(family), runtime(family), runtime(family)
    warmed.warm_up()
    one, two = (each.step(observation(policy), still(policy), VERIFYING) for each in (warmed, cold))
    assert repr(one.trace) == repr(two.trace)
    assert np.array_equal(one.chunk.actions, two.chunk.actions)


@families
def test_weights_that_give_nan_do_not_pass_the_warm_up(family: str) -> None:
    policy = FAMILIES_UNDER_TEST[family].make()
    FAMILIES_UNDER_TEST[family].head(policy).bias.data[0] = math.nan
    with pytest.raises(CheckpointError, match="warm-up: .*NaN or infinity"):
        Runtime(policy, None).warm_up()


@families
def test_an_experiments_rule_stands_in_for_the_papers(family: str) -> None:
    policy, tested = policy_of(family), runtime(family, eagerness=-9.0)
    tested.rule_override = lambda points: StaticOnly(PARTITION, tested.dysl.modules)
    chosen = replace(UNGUIDED, guidance=replace(UNGUIDED.guidance, warmup=1))
    calls = [tested.step(observation(policy), nothing(policy), chosen).trace.layer_calls for _ in range(2)]
    assert calls == [8, 3]
    bare = Runtime(policy, None)
    bare.rule_override = lambda points: FullDepth()
    assert bare.step(observation(policy), nothing(policy), UNGUIDED).trace.full_depth_reason == ""


@families
def test_timings_add_up(family: str) -> None:
    policy = policy_of(family)
    timings = runtime(family).step(observation(policy), still(policy), VERIFYING).timings
    parts = (timings.vision, timings.stack, timings.head, timings.verify)
    assert min(parts) > 0.0
    assert sum(parts) <= timings.total
    assert runtime(family).step(observation(policy), nothing(policy), UNGUIDED).timings.verify == 0.0


@families
def test_the_description_says_what_may_be_skipped(family: str) -> None:
    policy = policy_of(family)
    said, bare = runtime(family).description, Runtime(policy, None).description
    assert (said.layers_total, said.static_layers, said.blocks) == (8, (0, 4, 7), ((1, 4), (5, 7)))
    assert (bare.layers_total, bare.static_layers, bare.blocks) == (8, tuple(range(8)), ())
    assert said.calibrated == CALIBRATED and bare.calibrated == {}
    assert (said.family, said.weights_hash, said.action) == (policy.family, policy.weights_hash, policy.action)


@families
def test_in_bfloat16_a_step_skips_verifies_and_comes_near_to_float32(family: str) -> None:
    policy = FAMILIES_UNDER_TEST[family].make(torch.bfloat16)
    assert policy.dtype == torch.bfloat16
    exact, rough = runtime(family), runtime(family, policy=policy)
    rough.warm_up()
    seen = observation(policy)
    for chosen in (UNGUIDED, VERIFYING, FULL_DEPTH):
        one, two = (tested.step(seen, still(policy), chosen) for tested in (exact, rough))
        assert (two.trace.executed, two.trace.verified) == (one.trace.executed, one.trace.verified)
        assert two.chunk.actions.dtype == np.float32
        scale = np.asarray(policy.action.scale)
        apart = np.abs((one.chunk.actions - two.chunk.actions) / scale).mean()
        assert 0.0 < apart < 0.1 * np.abs(policy.action.normalise(one.chunk.actions)).max()
