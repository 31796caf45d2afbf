"""Parameter files outside ROS: read as the node would be given them, refused by name, written to read back."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.params_file import fits, params_text, read_params_file

CONFIG = Path(__file__).parents[1] / "config"


def written(folder, text):
    path = folder / "params.yaml"
    path.write_text(text)
    return path


def test_the_shipped_defaults_are_the_defaults():
    settings = read_params_file(CONFIG / "dysl_vla.yaml")
    assert all(group == type(group)() for group in settings.groups.values())
    assert len(settings.given) > 30


def test_names_nested_or_dotted_in_any_namespace_mean_the_same(tmp_path):
    texts = (
        "/**:\n  ros__parameters:\n    guidance: {step: 0.5}\n",
        "dysl_vla:\n  ros__parameters:\n    guidance.step: 0.5\n",
        "/left/dysl_vla:\n  ros__parameters:\n    guidance:\n      step: 0.5\n",
        "left:\n  dysl_vla:\n    ros__parameters:\n      guidance.step: 0.5\n",
        "/**/dysl_vla: {ros__parameters: {use_sim_time: true, guidance.step: 0.5}}\nsim: {ros__parameters: {a: 1}}\n",
    )
    for text in texts:
        read = read_params_file(written(tmp_path, text))
        assert read.runtime.guidance.step == 0.5 and read.given == ("guidance.step",)


def test_a_later_entry_counts_over_an_earlier_one(tmp_path):
    text = "/**: {ros__parameters: {skipping.threshold: 0.4}}\ndysl_vla: {ros__parameters: {skipping.threshold: 0.6}}"
    assert read_params_file(written(tmp_path, text)).runtime.skipping.threshold == 0.6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "cannot be read as YAML"),
        ("", "has no ros__parameters"),
        ("guidance:\n  step: 1.0\n", "has no ros__parameters"),
        ("dysl_vla:\n  ros__parameters: 3\n", "ros__parameters of /dysl_vla holds 3"),
        ("sim:\n  ros__parameters:\n    a: 1\n", "parameters for /sim, none for the node dysl_vla"),
        ("/**:\n  ros__parameters:\n    guidance.stepp: 0.1\n", "did you mean guidance.step"),
        ("/**:\n  ros__parameters:\n    guidance.step: 1\n", "write 1.0, not 1"),
        ("/**:\n  ros__parameters:\n    skipping.threshold: .nan\n", "skipping.threshold must be from 0 to 1"),
    ],
)
def test_what_the_node_would_not_take_is_refused(tmp_path, text, said):
    with pytest.raises(SettingError, match="params.yaml") as caught:
        read_params_file(written(tmp_path, text))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_every_fault_is_named_at_once(tmp_path):
    path = written(tmp_path, "/**: {ros__parameters: {guidance.window: 0, wobble: 1, safety.auto_resume: 3}}")
    with pytest.raises(SettingError) as caught:
        read_params_file(path)
    assert all(part in str(caught.value) for part in ("guidance.window", "wobble is unknown", "safety.auto_resume"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingError, match="nowhere.yaml cannot be read"):
        read_params_file(tmp_path / "nowhere.yaml")


@given(step=st.floats(1e-9, 100.0), window=st.integers(1, 100), stride=st.sampled_from(["paper", "integral"]))
def test_what_is_written_reads_back_to_the_last_bit(tmp_path_factory, step, window, stride):
    values = {"guidance.step": step, "guidance.window": window, "guidance.stride": stride, "skipping.enabled": True}
    text = params_text(values, "made by a test\n\nsecond")
    assert text.startswith("# made by a test\n#\n# second\n")
    read = read_params_file(written(tmp_path_factory.mktemp("file"), text))
    guidance = read.runtime.guidance
    assert (guidance.step, guidance.window, guidance.stride) == (step, window, stride)
    assert set(read.given) == set(values)
    assert type(next(iter(yaml.safe_load(text).values()))["ros__parameters"]["guidance"]["step"]) is float


def test_a_file_for_several_nodes_of_the_name_is_refused_and_wildcards_go_with_the_one_that_is_named(tmp_path):
    left = "/left/dysl_vla: {ros__parameters: {guidance.step: 0.5}}\n"
    with pytest.raises(SettingError, match="/left/dysl_vla, /right/dysl_vla, and nothing says which"):
        read_params_file(written(tmp_path, left + "/right/dysl_vla: {ros__parameters: {guidance.step: 0.7}}\n"))
    other = "/right/*: {ros__parameters: {guidance.step: 0.7}}\n/*/*: {ros__parameters: {guidance.window: 7}}\n"
    read = read_params_file(written(tmp_path, left + other))
    assert (read.runtime.guidance.step, read.runtime.guidance.window) == (0.5, 7)


SECTIONS = (
    "dysl_vla", "/dysl_vla", "/left/dysl_vla", "/**", "/*", "/**/dysl_vla", "/*/dysl_vla", "/left/*", "/left/**",
    "/*/*", "/**/left/dysl_vla", "/dysl", "/other",
)  # fmt: skip


@pytest.mark.ros
@pytest.mark.parametrize("namespace", ["", "/left", "/arms/left"])
def test_a_section_fits_a_node_exactly_where_ros_gives_it_the_parameters(tmp_path, namespace):
    rclpy = pytest.importorskip("rclpy")
    from rclpy.context import Context
    from rclpy.node import Node

    context = Context()
    rclpy.init(context=context, domain_id=0)
    try:
        for section in SECTIONS:
            path = written(tmp_path, f"{section}:\n  ros__parameters:\n    guidance.step: 0.5\n")
            arguments = ["--ros-args", "--params-file", str(path)]
            node = Node(
                "dysl_vla", namespace=namespace, cli_args=arguments, context=context, start_parameter_services=False
            )
            reached = "guidance.step" in node._parameter_overrides
            node.destroy_node()
            assert fits(f"/{section.strip('/')}", f"{namespace}/dysl_vla") == reached, section
    finally:
        rclpy.shutdown(context=context)


def test_nothing_is_written_that_the_node_would_refuse():
    with pytest.raises(SettingError, match="guidance.window must be from 1"):
        params_text({"guidance.window": 0}, "")
