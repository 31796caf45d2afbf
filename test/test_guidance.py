"""Guidance follows METHOD's formulas: by hand. (test_guidance_episodes.py: against a second writing of them.)

The formulas (k window, m actions an inference, T translation, R rotation, g gripper, all normalised):
d_j = |T_j - T_(j-1)| + w_r |R_j - R_(j-1)| + w_g |g_j - g_(j-1)|; C = -(1/n) sum of the last n = min(k m, there are);
dC = C_t - C_(t-1), 0 until two values exist. Falling continuity moves an allow point later.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.interfaces import ActionSpec, FloatArray
from dysl_vla_ros.settings import GuidanceSettings
from dysl_vla_ros.skipping.guidance import PriorPostGuidance, measuring_only

PLAIN = ActionSpec(8, 0.05, False, (0.0,) * 4, (1.0,) * 4)  # normalised = physical
SCALED = ActionSpec(8, 0.05, False, (0.5, -1.0, 0.25, 0.5), (0.5, 2.0, 0.25, 0.5))
BLOCKS = ((1, 6), (7, 9))  # of 5 and of 2 layers
BASE = GuidanceSettings(
    window=5, step=1.0, verify_threshold=0.5, dead_band=-1.0, stride="paper", warmup=0, verify_on="first"
)
NOTHING = np.zeros((0, 4), dtype=np.float32)


def along_x(*positions: float) -> FloatArray:
    """Return actions (n, 4) that differ in x alone."""
    actions = np.zeros((len(positions), 4), dtype=np.float32)
    actions[:, 0] = positions
    return actions


def guidance(changed: GuidanceSettings = BASE, m: int = 1, spec: ActionSpec = PLAIN) -> PriorPostGuidance:
    made = PriorPostGuidance(BLOCKS, spec)
    made.configure(changed, m)
    return made


def after(made: PriorPostGuidance, *positions: float) -> PriorPostGuidance:
    """Observe one action an inference."""
    for position in positions:
        made.observe(along_x(position))
    return made


# --- continuity, by hand


def test_c_is_undefined_until_two_actions_were_played() -> None:
    made = guidance()
    assert math.isnan(made.continuity) and made.continuity_change == 0.0
    made.observe(NOTHING)
    assert math.isnan(made.continuity) and made.continuity_change == 0.0
    after(made, 0.0)
    assert math.isnan(made.continuity) and made.continuity_change == 0.0
    after(made, 2.0)
    assert made.continuity == -2.0


def test_dc_is_0_until_two_values_of_c_exist() -> None:
    made = after(guidance(), 0.0, 2.0)
    assert (made.continuity, made.continuity_change) == (-2.0, 0.0)
    after(made, 6.0)
    assert (made.continuity, made.continuity_change) == (-3.0, -1.0)


def test_the_window_holds_the_last_k_differences_at_m_1() -> None:
    made = after(guidance(replace(BASE, window=2)), 0.0, 8.0, 9.0, 12.0)  # differences 8, 1, 3
    assert made.continuity == -2.0
    assert made.continuity_change == 4.5 - 2.0


def test_the_window_holds_k_times_m_differences() -> None:
    made = guidance(replace(BASE, window=2), m=2)
    made.observe(along_x(0.0, 7.0))
    made.observe(along_x(8.0, 10.0))
    assert made.continuity == pytest.approx(-(7 + 1 + 2) / 3)
    made.observe(along_x(13.0, 17.0))  # differences 7, 1, 2, 3, 4: the last four count
    assert made.continuity == -2.5
    assert made.continuity_change == pytest.approx(-2.5 + 10 / 3)


def test_c_and_dc_are_computed_once_an_inference_however_many_actions_were_played() -> None:
    made = guidance(m=4)
    made.observe(along_x(0.0, 1.0, 2.0, 3.0))
    assert (made.continuity, made.continuity_change) == (-1.0, 0.0)
    made.observe(along_x(5.0, 7.0, 9.0))
    assert made.continuity == made.continuity_change - 1.0 == -1.5


def test_an_inference_before_which_nothing_was_played_changes_nothing() -> None:
    made = after(guidance(), 0.0, 2.0, 6.0)
    points = made.allow_points()
    made.observe(NOTHING)
    assert (made.continuity, made.continuity_change) == (-3.0, 0.0)
    assert made.allow_points() == points


def test_differences_are_taken_over_normalised_actions() -> None:
    made = guidance(spec=SCALED)
    made.observe(np.array([[0.0, 0.0, 0.0, 0.0]], dtype=np.float32))
    made.observe(np.array([[1.5, 8.0, 0.0, 0.0]], dtype=np.float32))  # 3 and 4 units
    assert made.continuity == -5.0


def test_rotation_and_gripper_have_their_own_weights() -> None:
    actions = np.zeros((2, 7), dtype=np.float32)
    actions[1] = [3.0, 0.0, 4.0, 0.0, 6.0, 8.0, 1.0]
    spec = ActionSpec(8, 0.05, True, (0.0,) * 7, (1.0,) * 7)
    for rotation, gripper in ((1.0, 1.0), (0.5, 3.0), (0.0, 0.0)):
        made = guidance(replace(BASE, rotation_weight=rotation, gripper_weight=gripper), spec=spec)
        made.observe(actions)
        assert made.continuity == -(5.0 + rotation * 10.0 + gripper * 1.0)


def test_without_rotation_its_weight_means_nothing() -> None:
    made = guidance(replace(BASE, rotation_weight=100.0, gripper_weight=2.0))
    made.observe(np.array([[0, 0, 0, 0], [1, 0, 0, 1]], dtype=np.float32))
    assert made.continuity == -3.0


def test_the_difference_across_an_underrun_is_not_counted_but_those_after_it_are() -> None:
    made = after(guidance(), 0.0, 1.0)
    made.observe(along_x(50.0, 53.0), gaps=(0,))
    assert made.continuity == -2.0
    made.observe(along_x(55.0))
    assert made.continuity == -2.0


def test_an_underrun_before_which_nothing_came_holds_for_the_next_actions() -> None:
    made = after(guidance(), 0.0, 1.0)
    made.observe(NOTHING, gaps=(0,))
    made.observe(along_x(50.0))
    assert (made.continuity, made.continuity_change) == (-1.0, 0.0)


def test_an_underrun_among_the_actions_parts_them_and_all_count_at_once() -> None:
    made = after(guidance(), 0.0, 1.0)
    made.observe(along_x(3.0, 50.0, 53.0, 90.0, 91.0), gaps=(1, 3))
    assert made.continuity == -(1.0 + 2.0 + 3.0 + 1.0) / 4
    made.observe(along_x(92.0, 95.0), gaps=(2,))
    made.observe(along_x(20.0, 26.0))
    assert made.continuity == -(3.0 + 1.0 + 1.0 + 3.0 + 6.0) / 5


def test_an_underrun_resets_neither_history_nor_points_nor_warm_up() -> None:
    made = after(guidance(replace(BASE, warmup=2)), 0.0, 2.0, 6.0, 7.0)
    points = made.allow_points()
    made.observe(along_x(90.0), gaps=(0,))
    assert made.allow_points() == points and not made.warming_up


def test_reset_is_as_new() -> None:
    used = after(guidance(replace(BASE, warmup=2)), 0.0, 2.0, 9.0, 30.0)
    used.reset()
    fresh = guidance(replace(BASE, warmup=2))
    for position in (5.0, 6.0, 9.0, 9.5):
        used.observe(along_x(position))
        fresh.observe(along_x(position))
        assert used.allow_points() == fresh.allow_points()
        assert used.continuity_change == fresh.continuity_change
        assert repr(used.continuity) == repr(fresh.continuity)


# --- prior, by hand: dC is -1 after 0, 2, 6


def test_falling_continuity_moves_the_points_later_and_rising_moves_them_earlier() -> None:
    made = after(guidance(), 0.0, 2.0, 6.0)
    assert made.allow_points() == (2, 8)
    after(made, 10.0, 15.0)  # differences 2, 4, 4, 5: C -3.33, then -3.75
    assert made.allow_points() == (4, 9)
    after(made, 15.0)  # a difference of 0: C rises by 0.75
    assert made.continuity_change == 0.75
    assert made.allow_points() == (3, 8)


@pytest.mark.parametrize(
    ("eta", "points"), [(1.0, (2, 8)), (0.5, (3, 9)), (0.3, (5, 9)), (0.01, (6, 9)), (50.0, (2, 8))]
)
def test_the_papers_stride_rounds_up_to_whole_layers(eta: float, points: tuple[int, int]) -> None:
    assert after(guidance(replace(BASE, step=eta)), 0.0, 2.0, 6.0).allow_points() == points


def test_a_whole_number_of_layers_is_not_rounded_up_by_float32() -> None:
    made = after(guidance(replace(BASE, step=0.1)), 0.0, 0.2, 0.8)  # dC -0.2
    assert made.allow_points() == (3, 9)


def test_each_block_clamps_its_own_point() -> None:
    made = after(guidance(replace(BASE, step=0.2)), 0.0, 2.0, 6.0)  # five layers
    assert made.allow_points() == (6, 9)
    after(made, 6.0)  # C from -3 to -2: five layers earlier
    assert made.allow_points() == (1, 7)


def test_the_integral_stride_adds_up_fractions() -> None:
    made = after(guidance(replace(BASE, stride="integral", step=2.5, window=1)), 0.0, 1.0)
    after(made, 3.0)  # dC -1: x 0.4
    assert made.allow_points() == (1, 7)
    after(made, 6.0)  # dC -1: x 0.8
    assert made.allow_points() == (2, 8)
    after(made, 8.0)  # dC +1: x 0.4
    assert made.allow_points() == (1, 7)


def test_the_integral_stride_clamps_before_it_goes_on() -> None:
    made = after(guidance(replace(BASE, stride="integral", step=1.0, window=1)), 0.0, 1.0, 101.0)  # dC -99
    assert made.allow_points() == (6, 9)
    after(made, 200.0)  # dC +1: from the clamp, not from 99
    assert made.allow_points() == (5, 8)


def test_with_fewer_skip_points_the_allow_point_behind_the_last_closes_the_block_and_is_clamped_there() -> None:
    made = PriorPostGuidance(BLOCKS, PLAIN, points=(1, 2))
    made.configure(BASE, 1)
    after(made, 0.0, 2.0)
    assert made.allow_points() == (1, 7)
    after(made, 6.0)  # dC -1: one layer later, behind the only point of the first block
    assert made.allow_points() == (6, 8)
    after(made, 10.0, 15.0)
    assert made.allow_points() == (6, 9)
    after(made, 15.0)  # a rise: from where they were clamped, not from further behind
    assert made.allow_points() == (1, 8)


@pytest.mark.parametrize("stride", ["paper", "integral"])
def test_a_change_below_the_dead_band_moves_nothing(stride: str) -> None:
    still = replace(BASE, dead_band=1.01, stride=stride)
    assert after(guidance(still), 0.0, 2.0, 6.0).allow_points() == (1, 7)
    assert after(guidance(replace(still, dead_band=1.0)), 0.0, 2.0, 6.0).allow_points() == (2, 8)


def test_without_the_prior_the_points_stay_at_the_first_layers() -> None:
    made = after(guidance(), 0.0, 2.0, 6.0)
    assert made.allow_points() == (2, 8)
    made.configure(replace(BASE, prior=False), 1)
    assert made.allow_points() == (1, 7)
    after(made, 90.0)
    made.configure(BASE, 1)
    assert made.allow_points() == (1, 7), "where the prior had them before it was switched off is forgotten"


def test_the_stride_may_change_between_inferences_and_the_points_stay() -> None:
    made = after(guidance(replace(BASE, stride="integral", step=0.6)), 0.0, 2.0, 6.0)  # x 1.67
    assert made.allow_points() == (3, 9)
    made.configure(BASE, 1)
    assert made.allow_points() == (3, 9)
    after(made, 10.0)  # dC -1/3: one whole layer from 2
    assert made.allow_points() == (4, 9)


def test_a_changed_window_or_weight_is_not_taken_for_a_change_of_the_motion() -> None:
    made = after(guidance(), 0.0, 1.0, 3.0, 7.0)
    points = made.allow_points()
    made.configure(replace(BASE, window=1, gripper_weight=9.0), 2)
    made.observe(NOTHING)
    assert made.continuity_change == 0.0
    assert made.allow_points() == points


# --- warm-up


def test_full_depth_until_warmup_inferences_have_been_made() -> None:
    made = guidance(replace(BASE, warmup=2))
    seen = []
    for position in (0.0, 2.0, 4.0):
        made.observe(along_x(position))
        seen.append((made.warming_up, made.allow_points()))
    assert seen == [(True, (6, 9)), (True, (6, 9)), (False, (1, 7))]


def test_no_warm_up_where_none_is_wanted() -> None:
    made = guidance(replace(BASE, warmup=0))
    made.observe(NOTHING)
    assert not made.warming_up and made.allow_points() == (1, 7)


def test_the_warm_up_closes_the_points_without_moving_the_prior() -> None:
    slow, eager = guidance(replace(BASE, warmup=3)), guidance()
    for position in (0.0, 2.0, 6.0, 7.0):
        after(slow, position)
        after(eager, position)
    assert slow.allow_points() == eager.allow_points()


# --- post, by hand


def test_the_candidates_change_counts_the_actions_that_will_be_played() -> None:
    made = after(guidance(), 0.0, 2.0, 4.0)
    assert made.candidate_change(along_x(6.0)) == 0.0
    assert made.candidate_change(along_x(9.0)) == -1.0
    assert made.candidate_change(along_x(9.0, 9.0)) == pytest.approx(2.0 - 9 / 4)
    assert made.candidate_change(NOTHING) == 0.0


def test_the_candidates_change_is_what_playing_it_brings() -> None:
    made = after(guidance(replace(BASE, window=2)), 0.0, 2.0, 4.0, 4.5)
    change = made.candidate_change(along_x(9.0))
    made.observe(along_x(9.0))
    assert made.continuity_change == change


def test_nothing_is_verified_while_c_is_undefined() -> None:
    made = after(guidance(), 0.0)
    assert made.candidate_change(along_x(90.0)) == 0.0
    assert made.needs_verification(along_x(90.0)) == ""


def test_a_first_drop_is_verified_and_a_second_is_not() -> None:
    made = after(guidance(), 0.0, 2.0, 4.0)
    assert made.needs_verification(along_x(9.0)) == "first drop"
    after(made, 9.0)  # dC -1 now
    assert made.candidate_change(along_x(30.0)) < -0.5
    assert made.needs_verification(along_x(30.0)) == ""


def test_any_drop_is_verified_where_that_is_wanted() -> None:
    made = after(guidance(replace(BASE, verify_on="any")), 0.0, 2.0, 4.0)
    assert made.needs_verification(along_x(9.0)) == "any drop"
    after(made, 9.0)
    assert made.needs_verification(along_x(30.0)) == "any drop"
    assert made.needs_verification(along_x(9.0)) == ""


def test_a_fall_of_exactly_eta1_is_not_verified_and_counts_as_no_drop_before() -> None:
    at_the_edge = replace(BASE, verify_threshold=1.0)
    assert after(guidance(at_the_edge), 0.0, 2.0, 4.0).needs_verification(along_x(9.0)) == ""
    made = after(guidance(at_the_edge), 0.0, 2.0, 6.0)  # dC is -1
    assert made.needs_verification(along_x(30.0)) == "first drop"


def smooth(**settings: Any) -> PriorPostGuidance:
    """Return guidance whose motion never makes continuity fall, one inference played."""
    return after(guidance(replace(BASE, **settings)), 0.0)


def reasons(made: PriorPostGuidance, corrections: Sequence[float]) -> list[str]:
    """Play on without a change of continuity; each verified inference changes its action by the next correction."""
    found, left = [], list(corrections)
    while left or not found or found[-1]:
        found.append(made.needs_verification(along_x(0.0)))
        if found[-1]:
            made.verified(left.pop(0))
        made.observe(along_x(0.0))
    return found


def test_an_action_is_verified_in_turn_after_as_many_unverified_ones() -> None:
    assert reasons(smooth(verify_every=3), [0.0, 9.0]) == ["", "", "", "in turn", "", "", "", "in turn", ""]
    assert reasons(smooth(verify_every=1), [0.0, 0.0]) == ["", "in turn", "", "in turn", ""]
    assert reasons(smooth(), []) == [""]


def test_verification_goes_on_while_it_finds_the_skipped_action_apart() -> None:
    found = reasons(smooth(verify_every=2, verify_while=0.1), [0.2, 0.11, 0.1])
    assert found == ["", "", "in turn", "still apart", "still apart", ""]
    assert reasons(smooth(verify_while=0.1), []) == [""]  # something must be verified first


def test_a_reset_forgets_what_verification_found() -> None:
    made = smooth(verify_while=0.1)
    made.verified(5.0)
    assert made.needs_verification(along_x(0.0)) == "still apart"
    made.reset()
    assert after(made, 0.0).needs_verification(along_x(0.0)) == ""


def test_nothing_that_will_not_be_played_is_verified() -> None:
    made = smooth(verify_while=0.1, verify_every=1)
    made.verified(5.0)
    assert made.needs_verification(along_x()) == ""


def test_without_verification_no_drop_is_named() -> None:
    made = after(guidance(replace(BASE, verify=False)), 0.0, 2.0, 4.0)
    assert made.needs_verification(along_x(900.0)) == ""
    assert made.candidate_change(along_x(900.0)) < -1.0


def test_asking_changes_nothing() -> None:
    made = after(guidance(), 0.0, 2.0, 4.0)
    before = copy.deepcopy(vars(made))
    made.needs_verification(along_x(90.0, 3.0))
    made.candidate_change(along_x(90.0))
    made.allow_points()
    assert repr(vars(made)) == repr(before)


# --- settings


def test_a_value_that_is_neither_set_nor_calibrated_is_refused_and_nothing_changes() -> None:
    made = after(guidance(), 0.0, 2.0, 6.0)
    before = repr(vars(made))
    with pytest.raises(SettingError) as refusal:
        made.configure(GuidanceSettings(), 1)
    for name in ("guidance.step", "guidance.stride", "guidance.verify_threshold", "guidance.verify_on"):
        assert name in str(refusal.value)
    assert repr(vars(made)) == before


def test_what_is_switched_off_needs_no_value() -> None:
    made = guidance(measuring_only(GuidanceSettings(warmup=0)))
    assert after(made, 0.0, 2.0, 6.0).allow_points() == (1, 7)
    assert made.continuity_change == -1.0


def test_calibrated_values_serve_where_settings_are_open() -> None:
    calibrated = {"step": 0.5, "verify_threshold": 0.5, "dead_band": 0.0, "stride": "paper", "verify_on": "any"}
    made = guidance(GuidanceSettings(warmup=0).resolved(calibrated))
    assert after(made, 0.0, 2.0, 6.0).allow_points() == (3, 9)
