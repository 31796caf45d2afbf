"""The layouts of Foxglove and PlotJuggler, and the aggregator's analyzers: what they name is what our nodes publish.

Topics and types come from the graph, where the real nodes run; fields from the generated message classes.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import layout_files
from harness import NodeProcess, RosPeer, install_prefix, wait_until
from vla_rig import COMMAND_TOPICS, LIMIT, NODE, running_rig

pytestmark = pytest.mark.ros

CONFIG = install_prefix() / "share" / "dysl_vla_ros" / "config"
FOXGLOVE = (CONFIG / "foxglove_layout.json").read_text(encoding="utf-8")
PLOTJUGGLER = (CONFIG / "plotjuggler_layout.xml").read_text(encoding="utf-8")
ANALYZERS = CONFIG / "diagnostic_analyzers.yaml"
# Of diagnostic_aggregator (ros2 branch): the types that we use, and what we use of what a GenericAnalyzer reads.
GENERIC, GROUP = "diagnostic_aggregator/GenericAnalyzer", "diagnostic_aggregator/AnalyzerGroup"
OF_GENERIC = {"type", "path", "regex", "timeout", "discard_stale"}


@pytest.fixture(scope="module")
def published(ros_domain: int, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Topic to type of everything that the node, configured, and the simulated robot publish."""
    from tiny_checkpoint import make_tiny_checkpoint

    checkpoint = make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    with running_rig({"model.checkpoint": str(checkpoint)}) as rig, NodeProcess("sim_node") as simulator:
        rig.bring_to("inactive")
        simulator.wait_for_output("ready", LIMIT)

        def seen() -> dict[str, str]:
            of_node = rig.peer.node.get_publisher_names_and_types_by_node
            there = {NODE, "sim"} & set(rig.peer.node.get_node_names())
            return {topic: kind for name in there for topic, (kind, *_) in of_node(name, "/")}

        wait_until(lambda: {*COMMAND_TOPICS, "/image", "/sim/state"} <= set(seen()), LIMIT, "every publisher")
        return seen()


# -- layouts ---------------------------------------------------------------------------------------------------------


def faults_of_foxglove(text: str, published: Mapping[str, str]) -> list[str]:
    paths = layout_files.foxglove_paths(layout_files.read_foxglove(text))
    return [found for path in paths if (found := layout_files.fault(path, published))]


def faults_of_plotjuggler(text: str, published: Mapping[str, str]) -> list[str]:
    root = layout_files.read_plotjuggler(text)
    faults = [f"nobody publishes {topic}" for topic in layout_files.streamed_topics(root) if topic not in published]
    return faults + [
        found for path in layout_files.plotjuggler_paths(root) if (found := layout_files.fault(path, published))
    ]


def test_every_panel_of_foxglove_has_a_place_and_shows_what_is_published(published: dict[str, str]) -> None:
    layout = layout_files.read_foxglove(FOXGLOVE)
    assert sorted(layout_files.panels_shown(layout)) == sorted(layout["configById"])
    assert {panel.partition("!")[0] for panel in layout["configById"]} >= {
        "Image", "Plot", "StateTransitions", "DiagnosticSummary", "RawMessages",
    }  # fmt: skip
    assert faults_of_foxglove(FOXGLOVE, published) == []


def test_every_curve_of_plotjuggler_is_published(published: dict[str, str]) -> None:
    assert faults_of_plotjuggler(PLOTJUGGLER, published) == []
    curves = list(layout_files.plotjuggler_paths(layout_files.read_plotjuggler(PLOTJUGGLER)))
    assert {path.topic for path in curves} == set(
        layout_files.streamed_topics(layout_files.read_plotjuggler(PLOTJUGGLER))
    ), "what is subscribed to is shown"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("skip_report.layer_calls", "skip_report.layers_run", "has no field layers_run"),
        ("twist.twist.linear.x", "twist.twist.linear.w", "has no field twist.linear.w"),
        ("/dysl_vla/gripper.data", "/dysl_vla/grip.data", "nobody publishes /dysl_vla/grip"),
        ("skip_report.executed[:]", "skip_report.layer_calls[:]", "no array"),
        ("skip_report.controller_outputs[:]", "skip_report.model_hash[:]", "no array"),
        ('"imageTopic": "/image"', '"imageTopic": "/ee_pose"', "is geometry_msgs/msg/PoseStamped"),
        ('"value": "/dysl_vla/action.stop_reason"', '"value": "/dysl_vla/action.gripper"', "is a double"),
        ('"topicToRender": "/diagnostics"', '"topicToRender": "/dysl_vla/action"', "EndEffectorAction"),
    ],
)
def test_a_name_that_is_wrong_in_foxglove_would_be_found(published: dict[str, str], before, after, told) -> None:
    assert before in FOXGLOVE
    faults = faults_of_foxglove(FOXGLOVE.replace(before, after), published)
    assert faults and all(told in fault for fault in faults)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("skip_report/continuity_change", "skip_report/change", "has no field change"),
        ("/dysl_vla/twist/twist/linear/x", "/dysl_vla/twist/twist/x", "has no field twist.x"),
        ("/dysl_vla/gripper", "/dysl_vla/grip", "nobody publishes /dysl_vla/grip"),
        ("skip_report/seam", "skip_report/model_hash", "is a string"),
        ("skip_report/seam", "skip_report/executed", "is a UnboundedSequence"),
    ],
)
def test_a_name_that_is_wrong_in_plotjuggler_would_be_found(published: dict[str, str], before, after, told) -> None:
    assert before in PLOTJUGGLER
    faults = faults_of_plotjuggler(PLOTJUGGLER.replace(before, after), published)
    assert faults and all(told in fault for fault in faults)


def test_an_element_of_an_array_can_be_a_curve(published: dict[str, str]) -> None:
    text = PLOTJUGGLER.replace("skip_report/seam", "skip_report/executed[3]")
    assert faults_of_plotjuggler(text, published) == []


# -- analyzers -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def context(ros_domain: int) -> Iterator[Any]:
    from rclpy.context import Context

    made = Context()
    made.init([], initialize_logging=False)
    yield made
    made.try_shutdown()


def parameters_of_aggregator(context: Any, namespace: str) -> dict[str, Any]:
    """Return what the aggregator's node is given: it is called "analyzers" and declares what it finds."""
    from rclpy.node import Node

    node = Node(
        "analyzers",
        namespace=namespace,
        context=context,
        cli_args=["--ros-args", "--params-file", str(ANALYZERS)],
        use_global_arguments=False,
        automatically_declare_parameters_from_overrides=True,
        start_parameter_services=False,
    )
    try:
        return {name: parameter.value for name, parameter in node.get_parameters_by_prefix("").items()}
    finally:
        node.destroy_node()


def generic_analyzers(parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each GenericAnalyzer's parameters by its name, ``vla.analyzers.policy``."""
    names = [name.removesuffix(".type") for name, value in parameters.items() if value == GENERIC]
    return {
        name: {key.removeprefix(f"{name}."): parameters[key] for key in parameters if key.startswith(f"{name}.")}
        for name in names
    }


def matching(name: str, parameters: Mapping[str, Any]) -> list[str]:
    """Return the analyzers that take a status, as GenericAnalyzer::match does: the whole name must match."""
    return [
        analyzer
        for analyzer, own in generic_analyzers(parameters).items()
        if any(re.fullmatch(pattern, name) for pattern in own["regex"])
    ]


@pytest.mark.parametrize("namespace", ["", "/left"])
def test_the_aggregator_reads_its_file_in_any_namespace(context: Any, namespace: str) -> None:
    parameters = parameters_of_aggregator(context, namespace)
    types = {name.removesuffix(".type"): value for name, value in parameters.items() if name.endswith(".type")}
    assert set(types.values()) == {GENERIC, GROUP}
    for name, kind in types.items():
        assert isinstance(parameters[f"{name}.path"], str) and parameters[f"{name}.path"]
        group, _, _ = name.rpartition(".analyzers.")
        assert not group or types[group] == GROUP
        if kind == GENERIC:
            own = generic_analyzers(parameters)[name]
            assert set(own) <= OF_GENERIC
            assert isinstance(own["regex"], list) and isinstance(own["timeout"], float)
            assert isinstance(own.get("discard_stale", True), bool)
    assert isinstance(parameters["pub_rate"], float) and isinstance(parameters["path"], str)


@pytest.mark.parametrize("namespace", ["/", "/left", "/cell/left"])
def test_every_status_of_the_node_belongs_to_one_analyzer(context: Any, namespace: str) -> None:
    from dysl_vla_ros.nodes.diagnostics import PARTS
    from dysl_vla_ros.nodes.vla_node import VlaNode

    parameters = parameters_of_aggregator(context, "")
    node = VlaNode(namespace=namespace, context=context, use_global_arguments=False)
    try:
        array = node._status.build(node.state, "", node._parameters_of_node.settings, {}, 0, None)
    finally:
        node.destroy_node()
    names = [status.name for status in array.status]
    assert len(names) == len(PARTS) and names[0] == f"{namespace}/{NODE}: inference".lstrip("/")
    for name in names:
        assert len(matching(name, parameters)) == 1, name


@pytest.mark.parametrize("namespace", ["", "/left"])
def test_the_status_of_the_recorder_belongs_to_one_analyzer(
    context: Any, peer: RosPeer, tmp_path: Path, namespace: str
) -> None:
    from diagnostic_msgs.msg import DiagnosticArray

    peer.listen("/diagnostics", DiagnosticArray)
    with NodeProcess("bag_recorder", {"folder": str(tmp_path / "bag")}, namespace=namespace):
        (status,) = peer.wait_for("/diagnostics", None, LIMIT, "the recorder's status").status
    assert status.name == f"{namespace}/bag_recorder: recording".lstrip("/")
    assert matching(status.name, parameters_of_aggregator(context, "")) == ["vla.analyzers.recording"]


@pytest.mark.parametrize(
    "name", ["camera: inputs", "my_dysl_vla: inputs", "dysl_vla: inputs of another", "left/dysl_vla/arm: commands"]
)
def test_statuses_of_others_belong_to_none(context: Any, name: str) -> None:
    assert matching(name, parameters_of_aggregator(context, "")) == []
