"""The launch files: every argument leads somewhere, everything they name exists, two robots do not hear each other.

What needs `launch` itself is in test_launch.py.
"""

import ast
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.launching.arguments import (
    LIFE,
    REPLAY_ARGUMENTS,
    TOPICS,
    VLA,
    VLA_ARGUMENTS,
    Argument,
    Program,
    demo_arguments,
    demo_programs,
    number,
    parameter_files,
    shipped_checkpoint,
    truth,
    vla_program,
)
from dysl_vla_ros.settings import GROUPS
from harness import NodeProcess, RosPeer, install_prefix, wait_until
from vla_rig import Robot

pytestmark = pytest.mark.ros

SHARE = install_prefix() / "share" / "dysl_vla_ros"
FILES = sorted((SHARE / "launch").glob("*.launch.py"))
# What `launch` is told and no program: read in dysl_vla_ros/launching/actions.py.
READ_BY_LAUNCH = {"autostart", "respawn", "respawn_max"}
KNOWN = {f"{group.group}.{name}" for group in GROUPS for name in group.__dataclass_fields__} | {"use_sim_time"}
LIMIT = 30.0  # s
# For a busy machine.
PATIENT = {"safety.max_arrival_age": 1.0, "safety.max_stamp_age": 2.0, "model.threads": 1, "model.step_timeout": 10.0}


def defaults(arguments: Mapping[str, Argument]) -> dict[str, str]:
    return {name: argument.default for name, argument in arguments.items()}


def another(name: str, argument: Argument, folder: Path) -> str:
    """Return a value of an argument that is not its default."""
    if name == "params_file":
        return str(SHARE / "config" / "dysl_vla.yaml")
    if argument.choices:
        return next(choice for choice in argument.choices if choice.lower() != argument.default)
    return {"seed": "7", "scene_rate": "2.0", "record": str(folder / "bag")}.get(name, "another")


def programs(file: str, values: Mapping[str, str]) -> list[Program]:
    """Return what a launch file starts."""
    if file == "demo.launch.py":
        others, policy = demo_programs(values)
        return [*others, policy]
    return [vla_program(values, use_sim_time=True if file == "replay.launch.py" else None)]


ARGUMENTS = {
    "dysl_vla.launch.py": VLA_ARGUMENTS,
    "demo.launch.py": demo_arguments(),
    "replay.launch.py": REPLAY_ARGUMENTS,
}


def test_the_files_are_these() -> None:
    assert {file.name for file in FILES} == set(ARGUMENTS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_is_imported_but_launch_and_this_package_and_the_arguments_are_its_own(file: Path) -> None:
    tree = ast.parse(file.read_text())
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names) == {"launch", "dysl_vla_ros"}
    assert "launch_testing" not in imported
    table = {"dysl_vla.launch.py": "VLA_ARGUMENTS", "demo.launch.py": "demo_arguments()"}
    read = [ast.unparse(node.args[-1]) for node in ast.walk(tree) if called(node, "declared", "values_of")]
    assert read == [table.get(file.name, "REPLAY_ARGUMENTS")] * 2


def called(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in names


def test_the_arguments_that_users_were_promised_are_there() -> None:
    assert set(VLA_ARGUMENTS) >= {
        "checkpoint", "adapters", "params_file", "namespace", "image", "wrist_image", "instruction", "autostart",
        "use_sim_time", "device", "log_level", "respawn",
    }  # fmt: skip
    assert "use_sim_time" not in REPLAY_ARGUMENTS, "a replay is on the recording's time, or it is none"
    for file, arguments in ARGUMENTS.items():
        for name, argument in arguments.items():
            assert len(argument.description) > 10, (file, name)
            assert not argument.choices or argument.default in argument.choices, (file, name)


@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file, arguments in ARGUMENTS.items() for name in arguments if name not in LIFE]
)
def test_every_argument_leads_somewhere(file: str, name: str, tmp_path: Path) -> None:
    plain = defaults(ARGUMENTS[file])
    changed = {**plain, name: another(name, ARGUMENTS[file][name], tmp_path)}
    assert changed != plain
    assert programs(file, changed) != programs(file, plain)


def test_the_arguments_that_launch_itself_is_told_are_read_by_it() -> None:
    source = ast.parse((Path(sys.modules[vla_program.__module__].__file__ or "").parent / "actions.py").read_text())
    read = {ast.literal_eval(node.args[1]) for node in ast.walk(source) if called(node, "truth", "number")}  # type: ignore[attr-defined]
    assert read == READ_BY_LAUNCH == set(LIFE) - {"log_level"}
    for file, arguments in ARGUMENTS.items():
        for program in programs(file, {**defaults(arguments), "log_level": "debug"}):
            assert program.ros_arguments == ("--log-level", "debug")


def declared_by(program: Program) -> set[str]:
    """Return the parameters that the source of a program without settings groups declares."""
    source = Path(sys.modules[vla_program.__module__].__file__ or "").parents[1] / "nodes" / f"{program.executable}.py"
    calls = [node for node in ast.walk(ast.parse(source.read_text())) if called(node, "self._parameter")]
    assert calls, source
    return {ast.literal_eval(call.args[0]) for call in calls}  # type: ignore[attr-defined]


@pytest.mark.parametrize("file", sorted(ARGUMENTS))
def test_programs_and_parameters_exist(file: str, tmp_path: Path) -> None:
    values = {name: another(name, argument, tmp_path) for name, argument in ARGUMENTS[file].items()}
    for program in programs(file, values):
        assert os.access(install_prefix() / "lib" / "dysl_vla_ros" / program.executable, os.X_OK)
        assert set(program.parameters) <= (KNOWN if program.executable == "vla_node" else declared_by(program))
        assert all(Path(path).is_file() for path in program.parameter_files)


def test_the_shipped_checkpoint_is_where_the_demo_looks() -> None:
    files = [shipped_checkpoint() / name for name in ("config.json", "model.safetensors", "dysl/adapters.safetensors")]
    assert all(file.is_file() for file in files), "links too, as `colcon build --symlink-install` lays them"
    _, policy = demo_programs(defaults(demo_arguments()))
    assert policy.parameters["model.checkpoint"] == str(shipped_checkpoint())


def test_the_demo_takes_the_tasks_own_instruction_unless_one_is_given() -> None:
    values = defaults(demo_arguments())
    _, policy = demo_programs({**values, "task": "drawer-open"})
    assert policy.parameters["control.instruction"] == "open the drawer"
    _, policy = demo_programs({**values, "task": "drawer-open", "instruction": "press the button"})
    assert policy.parameters["control.instruction"] == "press the button"


def test_a_replay_hears_the_recording_and_nobody_hears_the_replay() -> None:
    program = vla_program(defaults(REPLAY_ARGUMENTS), use_sim_time=True)
    assert program.parameters["use_sim_time"] is True
    assert program.namespace == "replay"
    heard = {topic for topic in TOPICS.values() if not topic.startswith("~")}
    assert program.remappings == tuple((topic, f"/{topic}") for topic in TOPICS.values() if topic in heard)


def test_relative_paths_and_the_home_folder_are_those_of_whoever_launches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    values = {**defaults(VLA_ARGUMENTS), "checkpoint": "policy", "adapters": "~/dysl"}
    given = vla_program(values).parameters
    assert given["model.checkpoint"] == str(tmp_path / "policy")
    assert given["model.adapters"] == str(tmp_path / "home" / "dysl")


def test_a_file_of_the_package_needs_no_path_and_a_users_own_of_that_name_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parameter_files("moveit_servo.yaml") == (str(SHARE / "config" / "moveit_servo.yaml"),)
    own = tmp_path / "moveit_servo.yaml"
    own.write_text("")
    assert parameter_files("moveit_servo.yaml") == (str(own),)


def test_a_wrong_argument_is_refused_by_name() -> None:
    values = defaults(VLA_ARGUMENTS)
    with pytest.raises(
        SettingError, match=r"there is no file .*/nowhere\.yaml; the package's own are .*moveit_servo\.yaml"
    ):
        vla_program({**values, "params_file": "nowhere.yaml"})
    with pytest.raises(SettingError, match="there is no file") as told:  # it is the aggregator's, not the node's
        vla_program({**values, "params_file": "diagnostic_analyzers.yaml"})
    assert "own are" in str(told.value) and "analyzers" not in str(told.value).partition("own are")[2]
    with pytest.raises(SettingError, match="respawn must be true or false, not 'perhaps'"):
        truth({"respawn": "perhaps"}, "respawn")
    with pytest.raises(SettingError, match="respawn_max must be a whole number, not '1.5'"):
        number({"respawn_max": "1.5"}, "respawn_max", int)
    with pytest.raises(SettingError, match="respawn_max must be at least 0, not -1"):
        number({"respawn_max": "-1"}, "respawn_max", int, low=0)
    with pytest.raises(SettingError, match="seed must be a whole number, not 'x'"):
        demo_programs({**defaults(demo_arguments()), "seed": "x"})


def parameters_in(folder: Path, section: str, **values: Any) -> str:
    """Write a parameter file with one section; ``group__name=value``."""
    path = folder / "own.yaml"
    named = {name.replace("__", "."): value for name, value in values.items()}
    path.write_text(yaml.safe_dump({section: {"ros__parameters": named}}))
    return str(path)


@pytest.mark.parametrize(
    ("section", "namespace", "pushed", "node"),
    [
        ("dysl_vla", "left", "", "/left/dysl_vla"),
        ("/dysl_vla", "left", "", "/left/dysl_vla"),
        ("/left/dysl_vla", "", "", "/dysl_vla"),
        ("/left/dysl_vla", "left", "cell", "/cell/left/dysl_vla"),
        ("/cell/left/dysl_vla", "/left", "cell", "/left/dysl_vla"),
        ("camera", "", "", "/dysl_vla"),
    ],
)
def test_a_params_file_for_no_node_of_the_launch_is_refused_with_what_would_fit(
    tmp_path: Path, section: str, namespace: str, pushed: str, node: str
) -> None:
    values = {**defaults(VLA_ARGUMENTS), "namespace": namespace}
    file = parameters_in(tmp_path, section, safety__max_linear_speed=0.05)
    with pytest.raises(SettingError) as refused:
        vla_program({**values, "params_file": file}, pushed=pushed)
    for part in ("params_file: ", file, f"/{section.strip('/')}", f"name {node}, or /**/dysl_vla"):
        assert part in str(refused.value)
    for fitting in (node, "/**/dysl_vla", "/**"):
        file = parameters_in(tmp_path, fitting, safety__max_linear_speed=0.05)
        assert vla_program({**values, "params_file": file}, pushed=pushed).parameter_files == (file,)


def test_what_ros2_param_dump_wrote_is_refused_under_the_replay_s_namespace(tmp_path: Path) -> None:
    values = {**defaults(REPLAY_ARGUMENTS), "params_file": parameters_in(tmp_path, "/dysl_vla", guidance__step=0.1)}
    with pytest.raises(SettingError, match="name /replay/dysl_vla, or"):
        vla_program(values, use_sim_time=True)


@pytest.mark.parametrize("file", sorted(set(ARGUMENTS) - {"replay.launch.py"}))
def test_an_argument_that_was_not_given_overrides_nothing_of_the_file(file: str, tmp_path: Path) -> None:
    written = {"use_sim_time": True, "model__checkpoint": "/own", "control__instruction": "open the drawer"}
    own = parameters_in(tmp_path, "/**/dysl_vla", **written)
    program = programs(file, {**defaults(ARGUMENTS[file]), "params_file": own})[-1]
    assert program.parameters == {}
    chosen = {"checkpoint": "/other", "instruction": "press the button"}
    program = programs(file, {**defaults(ARGUMENTS[file]), "params_file": own, **chosen})[-1]
    assert program.parameters == {"model.checkpoint": "/other", "control.instruction": "press the button"}


# -- with real nodes -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_checkpoint import make_tiny_checkpoint

    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def started(program: Program, **parameters: Any) -> NodeProcess:
    remappings = {**dict(program.remappings), "__node": program.name}
    return NodeProcess(
        program.executable, {**program.parameters, **parameters}, remappings, namespace=f"/{program.namespace}"
    )


def endpoints(peer: RosPeer, namespace: str) -> tuple[set[str], set[str]]:
    """Return the topics that `dysl_vla` publishes or subscribes to, and the services that it serves."""
    node, name, namespace = peer.node, VLA, f"/{namespace}"
    topics = {topic for topic, _ in node.get_publisher_names_and_types_by_node(name, namespace)}
    topics |= {topic for topic, _ in node.get_subscriber_names_and_types_by_node(name, namespace)}
    return topics, {service for service, _ in node.get_service_names_and_types_by_node(name, namespace)}


@pytest.mark.slow
def test_two_robots_in_two_namespaces_do_not_hear_each_other(peer: RosPeer, checkpoint: Path) -> None:
    from std_msgs.msg import String

    from dysl_vla_ros.msg import EndEffectorAction

    shared = {"/diagnostics", "/parameter_events", "/rosout", "/clock"}
    given = {**defaults(VLA_ARGUMENTS), "checkpoint": str(checkpoint)}
    left, right = (vla_program({**given, "namespace": name}) for name in ("left", "right"))
    with started(left, **PATIENT), started(right, **PATIENT), RosPeer(namespace="/left") as left_robot:
        for name in ("left", "right"):
            peer.listen(f"/{name}/dysl_vla/action", EndEffectorAction)
            for transition in ("configure", "activate"):
                assert peer.change_state(f"/{name}/dysl_vla", transition, 60.0)
            wanted = {f"/{name}/{topic}" for topic in ("image", "instruction", "dysl_vla/twist")}
            wait_until(lambda: wanted <= endpoints(peer, name)[0], LIMIT, f"{wanted} among its topics")  # noqa: B023
            topics, services = endpoints(peer, name)
            assert all(topic.startswith(f"/{name}/") for topic in topics - shared), topics
            assert services and all(service.startswith(f"/{name}/") for service in services), services
        robot = Robot(left_robot)
        try:
            left_robot.publisher("instruction", String)
            left_robot.wait_for_subscriber("instruction", LIMIT, count=1)
            left_robot.publish("instruction", String(data="push the puck"))
            moved = peer.wait_for("/left/dysl_vla/action", lambda action: action.inference > 5, LIMIT, "motion")
            assert not moved.stop_reason
        finally:
            robot.close()
        assert not peer.received("/right/dysl_vla/action"), "it has seen nothing, so it says nothing"


def test_arguments_reach_the_node(peer: RosPeer, checkpoint: Path) -> None:
    topics = {name: f"/arm/{name}" for name in TOPICS}
    values = {**defaults(VLA_ARGUMENTS), **topics, "checkpoint": str(checkpoint), "instruction": "open the drawer"}
    with started(vla_program({**values, "use_sim_time": "true"})):
        assert peer.change_state("/dysl_vla", "configure", 60.0)
        for name, value in (
            ("model.checkpoint", str(checkpoint)),
            ("control.instruction", "open the drawer"),
            ("use_sim_time", True),
        ):
            assert peer.get_parameter("/dysl_vla", name, LIMIT) == value
        declared = set(topics.values()) - {"/arm/joint_states"}  # the tiny policy declares no joints
        wait_until(lambda: declared <= endpoints(peer, "")[0], LIMIT, f"{declared} among the node's topics")


def test_the_node_warns_of_a_parameter_file_of_which_nothing_reached_it(tmp_path: Path) -> None:
    file = parameters_in(tmp_path, "/left/dysl_vla", safety__max_linear_speed=0.05)
    with NodeProcess("vla_node", {"model.threads": 1}, parameter_file=Path(file)) as node:
        node.wait_for_output("so that it would have no effect", LIMIT)
        assert f"{file} has parameters for /left/dysl_vla, none for the node /dysl_vla" in node.output
        assert node.output.count("no effect") == 1, "the other file reaches it"
