"""A ROS parameter file says under which settings a recording is replayed; what it misspells is refused."""

from pathlib import Path

import pytest

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.replay.parameters import ReplayParameters, read_parameters

CONFIG = Path(__file__).parents[1] / "config"
FILES = sorted(path for path in CONFIG.glob("*.yaml") if "/**/dysl_vla:" in path.read_text())


def read(tmp_path, text):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    return read_parameters(path)


def refusal(tmp_path, text):
    with pytest.raises(SettingError) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nested_and_pointed_names_say_the_same(tmp_path):
    nested = read(tmp_path, "/**/dysl_vla:\n  ros__parameters:\n    guidance:\n      step: 0.02\n      window: 7\n")
    pointed = read(tmp_path, "dysl_vla:\n  ros__parameters:\n    guidance.step: 0.02\n    guidance.window: 7\n")
    assert nested == pointed
    assert (nested.runtime.guidance.step, nested.runtime.guidance.window) == (0.02, 7)
    assert (nested.runtime.skipping.rule, nested.full_depth.skipping.rule) == ("", "full")


def test_a_later_entry_goes_over_an_earlier_one_and_other_nodes_are_left_alone(tmp_path):
    text = "/**:\n  ros__parameters:\n    control.actions_per_inference: 2\n"
    text += "camera:\n  ros__parameters:\n    skipping.enabled: false\n"
    text += "/arm/dysl_vla:\n  ros__parameters:\n    control.actions_per_inference: 4\n"
    settings = read(tmp_path, text)
    assert settings.runtime.actions_per_inference == 4 and settings.skipping.enabled


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_parameter_file_that_is_shipped_can_be_replayed_under(path):
    assert isinstance(read_parameters(path), ReplayParameters)


def test_every_fault_is_named_at_once_with_the_nearest_name(tmp_path):
    text = "dysl_vla:\n  ros__parameters:\n    guidance.stepp: 0.1\n    skipping.threshold: 3.0\n    control.rate: 20\n"
    said = refusal(tmp_path, text)
    assert "guidance.stepp is unknown; did you mean guidance.step?" in said
    assert "skipping.threshold must be from 0 to 1, not 3.0" in said and "control.rate must be a number" in said


def test_what_is_no_parameter_file_is_said(tmp_path):
    assert "has no ros__parameters" in refusal(tmp_path, "guidance:\n  step: 1.0\n")
    assert "parameters for /camera, none for the node dysl_vla" in refusal(
        tmp_path, "camera:\n  ros__parameters:\n    rate: 1\n"
    )
    assert "cannot be read as YAML" in refusal(tmp_path, "a: [1\n")
    with pytest.raises(SettingError, match="cannot be read"):
        read_parameters(tmp_path / "nowhere.yaml")
