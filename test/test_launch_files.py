"""The launch file: every argument leads somewhere, everything it names exists; really launched where `launch` is."""

import ast
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dysl_vla_ros.settings import GROUPS
from harness import RosPeer, descendants, install_prefix, is_alive, wait_until

pytestmark = pytest.mark.ros

ARGUMENTS = {"checkpoint", "params_file", "image", "wrist_image", "autostart"}
CONFIGURE_LIMIT = 60.0  # s


@pytest.fixture(scope="module")
def tree() -> ast.Module:
    return ast.parse((install_prefix() / "share/dysl_vla_ros/launch/dysl_vla.launch.py").read_text())


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == name]


def keyword(call: ast.Call, name: str) -> object:
    return next((ast.literal_eval(word.value) for word in call.keywords if word.arg == name), None)


def test_nothing_is_imported_but_launch_launch_ros_and_this_package(tree: ast.Module) -> None:
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in imported}
    assert roots - set(sys.stdlib_module_names) == {"launch", "launch_ros", "dysl_vla_ros"}


def test_every_argument_is_declared_with_a_description_and_read(tree: ast.Module) -> None:
    declared = calls(tree, "DeclareLaunchArgument")
    assert {ast.literal_eval(call.args[0]) for call in declared} == ARGUMENTS
    for call in declared:
        assert keyword(call, "description"), ast.unparse(call)
        assert isinstance(keyword(call, "default_value"), str), ast.unparse(call)
    function = next(node for node in tree.body if getattr(node, "name", "") == "node_and_transitions")
    texts = [node.value for node in ast.walk(function) if isinstance(node, ast.Constant)]
    assert {text for text in texts if isinstance(text, str)} >= ARGUMENTS


def test_program_node_topics_and_parameters_exist(tree: ast.Module) -> None:
    (node,) = calls(tree, "LifecycleNode")
    program = install_prefix() / "lib" / str(keyword(node, "package")) / str(keyword(node, "executable"))
    assert os.access(program, os.X_OK), program
    assert keyword(node, "name") == "dysl_vla"
    remapped = next(word.value for word in node.keywords if word.arg == "remappings")
    assert isinstance(remapped, ast.List)
    assert [ast.literal_eval(pair.elts[0]) for pair in remapped.elts if isinstance(pair, ast.Tuple)] == [
        "image",
        "wrist_image",
    ]
    known = {f"{group.group}.{name}" for group in GROUPS for name in group.__dataclass_fields__}
    given = {
        ast.literal_eval(key) for entry in ast.walk(tree) if isinstance(entry, ast.Dict) for key in entry.keys if key
    }
    assert given == {"model.checkpoint"}
    assert given <= known


def test_the_transitions_have_the_numbers_of_lifecycle_msgs(tree: ast.Module) -> None:
    from lifecycle_msgs.msg import Transition

    numbers = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "(CONFIGURE, ACTIVATE)"
    )
    assert numbers == (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)


needs_launch = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None,
    reason="`launch` and `launch_ros` are not on any package registry: run this test where ROS 2 is installed",
)


@contextmanager
def launched(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    output = folder / "output.txt"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("launch_dysl_vla.py")), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "ROS_LOG_DIR": str(folder / "log"), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    try:
        yield process, output
    finally:
        below = descendants(process.pid)
        process.kill()
        process.wait(10.0)
        for left in filter(is_alive, below):
            os.kill(left.pid, signal.SIGKILL)


def ended(process: subprocess.Popen[bytes], output: Path) -> None:
    wait_until(lambda: process.poll() is not None, 30.0, f"the end of the launch; its output:\n{output.read_text()}")


@needs_launch
def test_a_launch_configures_and_activates_and_leaves_nothing_behind(peer: RosPeer, tmp_path: Path) -> None:
    from tiny_checkpoint import make_tiny_checkpoint

    checkpoint = make_tiny_checkpoint(tmp_path / "checkpoint")
    with launched(tmp_path, f"checkpoint:={checkpoint}", "image:=/color/image_raw") as (process, output):
        wait_until(lambda: peer.state("/dysl_vla", CONFIGURE_LIMIT) == "active", CONFIGURE_LIMIT, "the state active")
        wait_until(lambda: peer.node.count_subscribers("/color/image_raw") == 1, 10.0, "the camera's subscriber")
        assert peer.get_parameter("/dysl_vla", "model.checkpoint", 10.0) == str(checkpoint)
        below = descendants(process.pid)
        assert len(below) >= 2, "the node and its policy worker"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: launch leaves it to the terminal to reach the node
        ended(process, output)
        wait_until(lambda: not [left for left in below if is_alive(left)], 10.0, "the end of node and worker")
        assert process.returncode == 0, output.read_text()


@needs_launch
def test_without_autostart_the_node_waits_unconfigured(peer: RosPeer, tmp_path: Path) -> None:
    with launched(tmp_path, "autostart:=false") as (process, output):
        assert peer.state("/dysl_vla", 30.0) == "unconfigured"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: launch leaves it to the terminal to reach the node
        ended(process, output)
        assert "configure" not in output.read_text()


@needs_launch
def test_a_failed_configure_ends_the_launch_and_says_why(ros_domain: int, tmp_path: Path) -> None:
    with launched(tmp_path, f"checkpoint:={tmp_path}/nowhere") as (process, output):
        ended(process, output)
        text = output.read_text()
    assert "could not be configured" in text
    assert "nowhere" in text
    assert "Traceback" not in text
