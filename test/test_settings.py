"""Settings are declared once: every number has a finite range, every default is allowed, the page is up to date."""

import dataclasses
import math
from pathlib import Path

import pytest

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.settings import GROUPS, WARMUP, GuidanceSettings, SafetySettings, build, check
from dysl_vla_ros.settings_table import table

FIELDS = [(group, field) for group in GROUPS for field in dataclasses.fields(group)]


@pytest.mark.parametrize(("group", "field"), FIELDS, ids=[f"{g.group}.{f.name}" for g, f in FIELDS])
def test_every_setting_has_a_meaning_a_finite_range_and_an_allowed_default(group, field):
    assert field.metadata["meaning"]
    assert check(field.name, field.default, field) == ""
    if type(field.default) in (int, float):
        assert math.isfinite(field.metadata["low"]) and math.isfinite(field.metadata["high"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 1e9])
def test_a_number_out_of_range_is_refused_with_range_and_unit(value):
    with pytest.raises(SettingError, match=r"safety.max_stamp_age must be from 0.02 to 60 s, not"):
        build(SafetySettings, {"max_stamp_age": value})


def test_every_fault_is_named_at_once():
    with pytest.raises(SettingError) as caught:
        build(GuidanceSettings, {"window": 0, "step": 1, "stride": "long", "wobble": 3})
    text = str(caught.value)
    for part in (
        "guidance.window must be from 1",
        "write 1.0, not 1",
        "one of '', 'paper'",
        "guidance.wobble is unknown",
    ):
        assert part in text


def test_only_values_that_stand_for_as_calibrated_are_replaced():
    calibrated = {"step": 0.2, "verify_threshold": 0.1, "dead_band": 0.01, "stride": "integral", "verify_on": "any"}
    resolved = GuidanceSettings(step=0.5, dead_band=-1.0).resolved(calibrated)
    assert resolved.step == 0.5 and resolved.dead_band == -1.0
    assert (resolved.verify_threshold, resolved.stride, resolved.verify_on) == (0.1, "integral", "any")


@pytest.mark.parametrize(
    ("said", "calibrated", "used"), [(-1, {}, WARMUP), (-1, {"warmup": 0}, 0), (1, {"warmup": 0}, 1)]
)
def test_the_warm_up_is_the_said_one_then_the_calibrated_one_then_the_usual_one(said, calibrated, used):
    assert GuidanceSettings(warmup=said).resolved(calibrated).warmup == used


def test_the_documented_table_is_the_declarations():
    page = Path(__file__).parents[1] / "docs" / "parameters.md"
    assert page.read_text(encoding="utf-8") == table(), (
        "run: python -m dysl_vla_ros.settings_table > docs/parameters.md"
    )
