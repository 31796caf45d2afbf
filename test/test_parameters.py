"""Parameters are those of the settings groups; a bad set is refused with every reason and changes nothing."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip("rclpy")

from ament_index_python.packages import get_package_share_directory  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from dysl_vla_ros.errors import SettingError  # noqa: E402
from dysl_vla_ros.nodes.parameters import FIELDS, INSTRUCTION, NodeParameters, Settings, descriptor  # noqa: E402
from dysl_vla_ros.readings import instruction_fault  # noqa: E402


class Bench:
    """A node that is never spun, with its parameters."""

    def __init__(self, context: Context, given: dict[str, object]) -> None:
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        self.node = Node("bench", context=context, parameter_overrides=overrides, use_global_arguments=False)
        self.configured = False
        self.changes = 0
        self.parameters = NodeParameters(self.node, lambda: self.configured, self._changed)

    def _changed(self, before: Settings, given: frozenset[str]) -> None:
        self.changes += 1

    def set(self, **values: object) -> str:
        """Set as the services do: refused as a whole first, then rclpy's own way; returns the reason."""
        parameters = [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]
        reason = self.parameters.refusal(parameters)
        if not reason:
            result = self.node.set_parameters_atomically(parameters)
            assert result.successful, result.reason
        return reason


@pytest.fixture(scope="module")
def context(ros_domain: int) -> Iterator[Context]:
    context = Context()
    context.init([], initialize_logging=False)
    yield context
    context.try_shutdown()


@pytest.fixture
def make(context: Context):
    benches = []

    def make_bench(**given: object) -> Bench:
        benches.append(Bench(context, {name.replace("__", "."): value for name, value in given.items()}))
        return benches[-1]

    yield make_bench
    for bench in benches:
        bench.node.destroy_node()


@pytest.fixture(scope="module")
def shared(context: Context) -> Iterator[Bench]:
    bench = Bench(context, {})
    yield bench
    bench.node.destroy_node()


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_parameter_is_described_with_unit_and_finite_range(shared, name):
    field, described = FIELDS[name], shared.node.describe_parameter(name)
    assert field.metadata["meaning"] in described.description
    assert field.metadata["unit"] in described.description
    ranges = [*described.floating_point_range, *described.integer_range]
    if isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
        assert math.isfinite(ranges[0].from_value) and math.isfinite(ranges[0].to_value)
    else:
        assert not ranges
    for choice in field.metadata["choices"]:
        assert repr(choice) in described.additional_constraints


def test_without_a_file_the_defaults_of_the_groups_are_in_force(make):
    assert make().parameters.settings == Settings()


def test_values_of_a_file_are_in_force(make):
    assert make(guidance__window=7, safety__max_linear_speed=1.5).parameters.settings.guidance.window == 7


def test_a_good_set_replaces_the_snapshot_and_the_one_taken_before_stays(make):
    bench = make()
    before = bench.parameters.settings
    assert bench.set(guidance__step=0.02, control__action_scale=0.5) == ""
    assert before == Settings() and bench.changes == 1
    assert (bench.parameters.settings.guidance.step, bench.parameters.settings.control.action_scale) == (0.02, 0.5)


REFUSED = {
    "guidance.step": [math.nan, math.inf, -math.inf, -0.1, 100.5, 1, "0.1", True, [0.1]],
    "guidance.window": [0, 101, 1.0, "5"],
    "guidance.stride": ["longest", 1],
    "skipping.rule": ["none", False],
    "skipping.enabled": ["true", 1],
    "skipping.threshold": [math.nan, 1.0001],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_a_bad_value_is_refused_by_name_and_changes_nothing(shared, name, value):
    before = shared.parameters.settings
    reason = shared.set(**{name.replace(".", "__"): value})
    assert reason.startswith(f"{name} must be ")
    assert shared.parameters.settings is before
    assert shared.node.get_parameter(name).value == FIELDS[name].default


def test_a_refusal_names_range_and_unit(shared):
    assert shared.set(safety__max_linear_speed=9.0) == "safety.max_linear_speed must be from 0.001 to 5 m/s, not 9.0"


def test_a_set_with_faults_names_all_of_them_and_applies_none(shared):
    before = shared.parameters.settings
    reason = shared.set(guidance__step=0.5, guidance__window=0, skipping__threshold=2.0, guidance__stirde="paper")
    for told in (
        "guidance.window must",
        "skipping.threshold must",
        "guidance.stirde is unknown; did you mean guidance.stride?",
    ):
        assert told in reason
    assert shared.parameters.settings is before


def test_rclpy_alone_refuses_too_whatever_way_a_set_takes(make):
    bench = make()
    results = bench.node.set_parameters(
        [Parameter("guidance.stride", value="longest"), Parameter("guidance.window", value=3)]
    )
    assert not results[0].successful and "'paper'" in results[0].reason
    assert results[1].successful and bench.parameters.settings.guidance.window == 3


def test_the_model_is_fixed_while_configured(make):
    bench = make(model__checkpoint="there")
    bench.configured = True
    assert bench.set(model__checkpoint="elsewhere") == (
        "model.checkpoint is fixed while the node is configured; deactivate and cleanup first"
    )
    assert bench.set(model__checkpoint="there", guidance__window=3) == ""  # a file loaded as a whole repeats it
    bench.configured = False
    assert bench.set(model__checkpoint="elsewhere") == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [("push\tit", "control character U+0009"), ("push \ufffd", "U+FFFD"), ("x" * 501, "501 characters")],
)
def test_a_text_that_cannot_be_heard_cannot_be_set_as_instruction(make, text, told):
    bench = make(control__instruction=text)
    assert bench.parameters.settings.control.instruction == ""
    with pytest.raises(SettingError, match=told.replace("+", r"\+")):
        bench.parameters.require_valid()
    reason = bench.set(control__instruction=text)
    assert reason.startswith("control.instruction: ") and told in reason
    assert bench.set(control__instruction=" open the drawer ") == ""


def test_a_set_that_contradicts_the_loaded_policy_is_refused(make):
    bench = make()
    bench.parameters.cross_check = lambda settings: "no" if settings.control.rate == 30.0 else ""
    assert bench.set(control__rate=30.0) == "no"
    assert bench.set(control__rate=40.0) == ""


def test_bad_values_of_a_file_are_refused_at_configure_all_at_once_and_can_be_fixed(make):
    bench = make(guidance__step=math.nan, guidance__window=5.0)
    assert bench.parameters.settings == Settings()
    with pytest.raises(SettingError) as refusal:
        bench.parameters.require_valid()
    for told in ("guidance.step must be", "guidance.window must be an integer", "model.checkpoint is empty"):
        assert told in str(refusal.value)
    assert bench.set(guidance__step=0.1, guidance__window=5, model__checkpoint="there") == ""
    bench.parameters.require_valid()


def test_an_unknown_name_in_a_file_is_told_with_the_nearest_one(make):
    assert make(guidance__stepp=0.1, speed=1.0).parameters.unknown_names() == [
        "parameter guidance.stepp is unknown and has no effect; did you mean guidance.step?",
        "parameter speed is unknown and has no effect; the groups are model, control, skipping, guidance, safety, "
        "diagnostics",
    ]


def test_a_fault_while_applying_leaves_the_executor_alive(make):
    bench = make()
    bench.parameters._on_change = lambda *_: 1 / 0
    assert bench.set(guidance__window=3) == ""  # nothing is raised


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.floats(), max_size=2),
)


@given(st.dictionaries(st.sampled_from([*FIELDS, "unknown"]), values, min_size=1, max_size=4))
@example({"safety.workspace_min_x": 0.0, "safety.workspace_max_x": 0.0})
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_set_is_either_refused_with_reasons_or_possible(shared, given_values):
    reason = shared.parameters.refusal([Parameter(name, value=value) for name, value in given_values.items()])
    possible = all(
        name in FIELDS
        and type(value) is type(FIELDS[name].default)
        and (isinstance(value, (bool, str)) or descriptor_allows(name, value))
        and (not FIELDS[name].metadata["choices"] or value in FIELDS[name].metadata["choices"])
        and (not FIELDS[name].metadata["form"][0] or re.fullmatch(FIELDS[name].metadata["form"][0], value))
        and (name != INSTRUCTION or instruction_fault(value.strip()) == "")
        for name, value in given_values.items()
    )
    possible = possible and all(low < high for low, high in edges(given_values))
    assert (reason == "") == possible


def edges(given_values: dict[str, object]) -> list[tuple[float, ...]]:
    """Return (low, high) of the workspace's axes, the defaults where nothing else is given."""
    pairs = [[f"safety.workspace_{end}_{axis}" for end in ("min", "max")] for axis in "xyz"]
    return [tuple(given_values.get(name, FIELDS[name].default) for name in pair) for pair in pairs]


def descriptor_allows(name: str, value: float) -> bool:
    described = descriptor(name)
    limits = [*described.floating_point_range, *described.integer_range][0]
    return limits.from_value <= value <= limits.to_value


CONFIG = Path(get_package_share_directory("dysl_vla_ros")) / "config"


def test_the_commented_file_gives_every_parameter_its_default():
    flat = flattened(yaml.safe_load((CONFIG / "dysl_vla.yaml").read_text()))
    assert flat == {name: field.default for name, field in FIELDS.items()}
    assert all(type(value) is type(FIELDS[name].default) for name, value in flat.items())


@pytest.mark.parametrize("overlay", ["dysl_vla.yaml", "simulated_arm.yaml"])
def test_a_shipped_file_is_taken_by_the_node_in_any_namespace(context, overlay):
    arguments = ["--ros-args", "--params-file", str(CONFIG / overlay)]
    node = Node("dysl_vla", namespace="left", context=context, cli_args=arguments, use_global_arguments=False)
    try:
        parameters = NodeParameters(node, lambda: False, lambda *_: None)
        assert parameters.unknown_names() == [] and not parameters._declaration_faults
        for name, value in flattened(yaml.safe_load((CONFIG / overlay).read_text())).items():
            assert node.get_parameter(name).value == value
    finally:
        node.destroy_node()


def flattened(document: dict) -> dict:
    groups = document["/**/dysl_vla"]["ros__parameters"]
    return {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}


@pytest.mark.parametrize("values", [{"guidance__step": 0.01}, {"safety__max_linear_speed": 0.1, "control__rate": 40.0}])
def test_a_set_costs_what_it_changes(make, monkeypatch, values):
    from dysl_vla_ros.nodes import parameters as module

    bench = make()
    calls: list[str] = []
    check, get = module.check, bench.node.get_parameter
    monkeypatch.setattr(module, "check", lambda name, *others: calls.append(name) or check(name, *others))
    monkeypatch.setattr(bench.node, "get_parameter", lambda name: calls.append(f"get {name}") or get(name))
    bench.parameters.cross_check = lambda settings: calls.append("cross-check") or ""
    assert bench.set(**values) == ""
    names = [name.replace("__", ".") for name in values]
    assert calls == names + (["cross-check"] if "control.rate" in names else [])
    for name, value in zip(names, values.values(), strict=True):
        group, _, key = name.partition(".")
        assert getattr(getattr(bench.parameters.settings, group), key) == value
