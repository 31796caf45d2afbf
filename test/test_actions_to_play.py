"""``control.actions_per_inference: 0``: many actions of a chunk while the motion is continuous, one near a drop."""

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dysl_vla_ros.comparison.methods.registry import read_word
from dysl_vla_ros.comparison.plan import Entry, entries_named
from dysl_vla_ros.control.chunk_time import latency_fault, require_playable
from dysl_vla_ros.control.commander import Commander
from dysl_vla_ros.errors import DataError, SettingError
from dysl_vla_ros.interfaces import JOINT_POSITION, ActionChunk, ActionSpec, FloatArray
from dysl_vla_ros.settings import AUTOMATIC, ControlSettings, GuidanceSettings, RuntimeSettings, SafetySettings, build
from dysl_vla_ros.skipping.guidance import PriorPostGuidance
from runtime_families import UNGUIDED, VERIFYING, families, nothing, observation, policy_of, runtime, still

H = 8
DELTA = ActionSpec(H, 0.05, False, (0.0,) * 4, (1.0,) * 4)
JOINTS = ActionSpec(
    H, 0.05, False, (0.0,) * 4, (1.0,) * 4, kind=JOINT_POSITION, names=("a", "b", "c", "grip"),
    units=("rad", "rad", "rad", "1"), gripper="grip",
)  # fmt: skip
GUIDED = GuidanceSettings(
    window=3, step=1.0, verify_threshold=0.5, dead_band=0.0, stride="paper", warmup=0, verify_on="any"
)
AUTO = replace(UNGUIDED, actions_per_inference=AUTOMATIC)
SAFETY = SafetySettings(max_linear_acceleration=1e3)

values = st.floats(-4.0, 4.0, width=32)
specs = st.sampled_from([DELTA, JOINTS])
positions = st.lists(values, min_size=4, max_size=10)
chunks = st.lists(values, min_size=1, max_size=H)
thresholds = st.floats(1e-3, 8.0)


def along_x(numbers: list[float]) -> FloatArray:
    """Return actions (n, 4) that differ in x alone."""
    actions = np.zeros((len(numbers), 4), np.float32)
    actions[:, 0] = numbers
    return actions


def guidance(threshold: float, played: list[float], spec: ActionSpec = DELTA, warmup: int = 0) -> PriorPostGuidance:
    made = PriorPostGuidance(((1, 4),), spec)
    made.configure(replace(GUIDED, verify_threshold=threshold, warmup=warmup), AUTOMATIC)
    made.observe(along_x(played))
    return made


# --- how many


@given(thresholds, positions, chunks, specs, st.integers(1, H))
def test_it_is_the_most_before_which_continuity_would_at_no_action_have_fallen_by_more(
    threshold: float, played: list[float], coming: list[float], spec: ActionSpec, most: int
) -> None:
    made, chunk = guidance(threshold, played, spec), along_x(coming)
    steady = [made.candidate_change(chunk[:count]) >= -threshold for count in range(1, min(most, len(chunk)) + 1)]
    expected = steady.index(False) if False in steady else len(steady)
    assert made.actions_to_play(chunk, most) == max(expected, 1)


@given(thresholds, thresholds, positions, chunks, specs)
def test_it_is_monotone_in_the_threshold(
    one: float, other: float, played: list[float], coming: list[float], spec: ActionSpec
) -> None:
    low, high = (guidance(each, played, spec).actions_to_play(along_x(coming), H) for each in sorted((one, other)))
    assert low <= high


@given(positions, chunks, specs, st.integers(1, H))
def test_without_a_limit_on_the_fall_it_is_the_most_that_fits(
    played: list[float], coming: list[float], spec: ActionSpec, most: int
) -> None:
    assert guidance(math.inf, played, spec).actions_to_play(along_x(coming), most) == min(most, len(coming))


@given(positions, chunks, specs)
def test_where_the_first_action_makes_continuity_fall_at_all_it_is_one_with_the_least_limit(
    played: list[float], coming: list[float], spec: ActionSpec
) -> None:
    made = guidance(5e-324, played, spec)
    assume(made.candidate_change(along_x(coming[:1])) < -1e-300)
    assert made.actions_to_play(along_x(coming), H) == 1


@pytest.mark.parametrize("fault", ["continuity unknown", "warm-up", "no threshold", "nothing left of the chunk"])
def test_it_is_one_where_continuity_says_nothing(fault: str) -> None:
    steady = [0.0, 0.1, 0.2, 0.3]
    assert guidance(1.0, steady).actions_to_play(along_x(steady), 4) == 4
    made = guidance(1.0, [0.0] if fault == "continuity unknown" else steady, warmup=int(fault == "warm-up"))
    if fault == "no threshold":
        made.configure(replace(GUIDED, verify=False, verify_threshold=0.0), AUTOMATIC)
    assert made.actions_to_play(along_x([] if fault.startswith("nothing") else steady), 4) == 1


@given(thresholds, positions, chunks)
def test_asking_changes_nothing(threshold: float, played: list[float], coming: list[float]) -> None:
    made = guidance(threshold, played)
    before = copy.deepcopy(vars(made))
    made.actions_to_play(along_x(coming), H)
    assert repr(vars(made)) == repr(before)


@given(st.lists(chunks, min_size=1, max_size=5), specs)
def test_the_window_and_what_is_judged_are_those_of_one_action(pieces: list[list[float]], spec: ActionSpec) -> None:
    automatic, one = (PriorPostGuidance(((1, 4),), spec) for _ in range(2))
    automatic.configure(GUIDED, AUTOMATIC)
    one.configure(GUIDED, 1)
    for piece in pieces:
        for made in (automatic, one):
            made.observe(along_x(piece))
        assert repr(automatic.continuity) == repr(one.continuity)
        assert automatic.continuity_change == one.continuity_change
        assert automatic.allow_points() == one.allow_points()


# --- a step says it


@families
def test_a_step_computes_the_same_whether_one_action_is_played_or_as_many_as_it_says(family: str) -> None:
    policy = policy_of(family)
    automatic, one = runtime(family), runtime(family)
    steady = replace(UNGUIDED, guidance=replace(UNGUIDED.guidance, verify_threshold=1e6))
    for seed in range(3):
        seen = observation(policy, seed)
        results = [
            tested.step(seen, still(policy), replace(steady, actions_per_inference=m))
            for tested, m in ((automatic, AUTOMATIC), (one, 1))
        ]
        assert np.array_equal(results[0].chunk.actions, results[1].chunk.actions)
        assert repr(results[0].trace) == repr(results[1].trace)
        assert [each.chunk.actions_to_play for each in results] == [policy.action.bridged, 1]


@families
def test_it_counts_from_the_first_action_that_will_be_played(family: str) -> None:
    policy = policy_of(family)
    steady = replace(AUTO, guidance=replace(AUTO.guidance, verify_threshold=1e6))
    horizon = policy.action.horizon
    for late in (0, horizon - 1, horizon + 3):
        result = runtime(family).step(observation(policy), still(policy), steady, first_index=late)
        assert result.chunk.actions_to_play == max(min(policy.action.bridged, horizon - late), 1)


@families
def test_under_the_rule_static_continuity_says_it_just_the_same(family: str) -> None:
    policy = policy_of(family)
    for threshold, most in ((1e6, policy.action.bridged), (1e-6, 1)):
        guided = replace(AUTO.guidance, verify_threshold=threshold, warmup=9)
        chosen = replace(AUTO, guidance=guided, skipping=replace(AUTO.skipping, rule="static"))
        result = runtime(family).step(observation(policy), still(policy), chosen)
        assert result.chunk.actions_to_play == most and not result.chunk.verified


@families
@pytest.mark.parametrize("why", ["full depth", "warm-up", "verified", "verification over budget", "nothing played"])
def test_a_step_that_guidance_doubts_is_played_for_one_action(family: str, why: str) -> None:
    policy = policy_of(family)
    steady = replace(AUTO, guidance=replace(AUTO.guidance, verify_threshold=1e6))
    chosen = {
        "full depth": replace(steady, skipping=replace(steady.skipping, rule="full")),
        "warm-up": replace(steady, guidance=replace(steady.guidance, warmup=1)),
        "verified": replace(VERIFYING, actions_per_inference=AUTOMATIC),
        "verification over budget": replace(VERIFYING, actions_per_inference=AUTOMATIC, budget_ms=1e-3),
    }.get(why, steady)
    played = nothing(policy) if why == "nothing played" else still(policy)
    result = runtime(family).step(observation(policy), played, chosen)
    assert result.chunk.verified is (why == "verified") and result.trace.budget_cut is why.endswith("budget")
    assert result.chunk.actions_to_play == 1


@families
@pytest.mark.parametrize("m", [1, 2])
def test_a_number_that_is_given_is_what_every_step_says(family: str, m: int) -> None:
    policy = policy_of(family)
    result = runtime(family).step(observation(policy), still(policy), replace(UNGUIDED, actions_per_inference=m))
    assert result.chunk.actions_to_play == m


# --- the commander plays it


def commander(m: int, latency: float = 0.0) -> Commander:
    made = Commander(DELTA, ControlSettings(actions_per_inference=m), SAFETY)
    made.latency = latency
    return made


def chunk(actions_to_play: int) -> ActionChunk:
    actions: NDArray[Any] = np.full((H, 4), [0.001, 0.0, 0.0, 0.5], np.float32)
    return ActionChunk(actions, 0.05, actions_to_play=actions_to_play)


@given(st.integers(1, H), st.integers(0, H))
def test_the_next_inference_is_due_after_what_the_chunk_says_or_earlier_for_the_answers_sake(
    said: int, late: int
) -> None:
    ours = commander(AUTOMATIC, latency=late * 0.05)
    ours.offer(chunk(said), 0, 0, None)
    count = 0
    while not ours.due:
        assert ours.tick() is not None
        count += 1
    assert count == max(min(said, H - late), 0)


@given(st.integers(1, H), st.lists(st.integers(1, H), min_size=1, max_size=4))
def test_where_m_is_given_what_a_chunk_says_changes_no_command_and_no_moment(m: int, said: list[int]) -> None:
    ours, theirs = commander(m), commander(m)
    for number, each in enumerate(said):
        for made, to_play in ((ours, each), (theirs, 1)):
            made.offer(chunk(to_play), made.actions_played, number, None)
        while not theirs.due:
            one, other = ours.tick(), theirs.tick()
            assert one is not None and other is not None and repr(vars(one)) == repr(vars(other))
            assert ours.due is theirs.due


@pytest.mark.parametrize("horizon", range(1, 12))
def test_an_answer_may_take_as_many_actions_as_are_played_at_most(horizon: int) -> None:
    spec = replace(DELTA, horizon=horizon)
    assert not latency_fault(spec.bridged * spec.time_step, spec)
    assert latency_fault((spec.bridged + 0.5) * spec.time_step, spec)


# --- whoever reads the setting


@pytest.mark.parametrize("m", [AUTOMATIC, 1, H])
def test_a_chunk_can_be_played_for(m: int) -> None:
    require_playable(build(ControlSettings, {"actions_per_inference": m}), DELTA)


@pytest.mark.parametrize("m", [-1, H + 1])
def test_a_chunk_cannot_be_played_for(m: int) -> None:
    with pytest.raises(SettingError, match=f"is {m}, but the policy's chunks have 8 actions: .* 8, or 0 for automatic"):
        require_playable(replace(ControlSettings(), actions_per_inference=m), DELTA)


@pytest.mark.parametrize("m", [-1, 65])
def test_a_number_out_of_range_is_refused_by_name(m: int) -> None:
    with pytest.raises(SettingError, match=f"control.actions_per_inference must be from 0 to 64, not {m}"):
        build(ControlSettings, {"actions_per_inference": m})


def test_a_table_has_a_row_of_its_own_for_it_beside_full_depth_at_one_action() -> None:
    assert read_word("dysl@auto") == ("dysl", AUTOMATIC, None)
    entries = entries_named(
        ["full", "dysl", "dysl@auto", "static@auto", "dysl@4"], RuntimeSettings().actions_per_inference
    )
    assert [entry.label for entry in entries] == ["full", "dysl", "dysl@auto", "static@auto", "dysl@4"]
    assert [entry.full for entry in entries] == [Entry("full", 1)] * 4 + [Entry("full", 4)]
    for word in ("dysl@automatic", "dysl@0", "dysl@65"):
        with pytest.raises(DataError, match="1 to 64, or auto, as in dysl@4"):
            read_word(word)
