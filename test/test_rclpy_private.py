"""What rclpy does not promise is used in one file alone, and is there in the rclpy that is installed."""

import ast
import importlib
import inspect
import pkgutil
from functools import cache
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("dysl_vla_ros.msg")

import dysl_vla_ros  # noqa: E402
from dysl_vla_ros import nodes, rclpy_private  # noqa: E402

ROOT = Path(__file__).parents[1]
PACKAGE = Path(dysl_vla_ros.__file__).parent
HERE = Path(rclpy_private.__file__)
# Of rclpy's own, without an underscore, and not in its documentation.
UNDOCUMENTED = {
    "service_take_request",
    "take_response",
    "take_message",
    "send_request",
    "handle",
    "transition_graph",
    "trigger_transition_by_id",
    "trigger_transition_by_label",
}


def private(name: str) -> bool:
    return name.startswith("_") and name.strip("_") != "" and not name.startswith("__")


def named(tree: ast.AST) -> set[str]:
    """Return every attribute that is read, set or defined there."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {each.id for each in targets if isinstance(each, ast.Name)}
    return found


@cache
def of_rclpy() -> frozenset[str]:
    """The private names in rclpy's own source."""
    sources = Path(rclpy.__file__).parent.rglob("*.py")
    return frozenset(n for path in sources for n in named(ast.parse(path.read_text(encoding="utf-8"))) if private(n))


def reached_into(tree: ast.AST) -> set[str]:
    """Return the attributes that are read of another object than ``self``; a method ``handle`` is not rclpy's."""
    own, called = {"self", "cls"}, {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id in own)
        if not (node.attr == "handle" and id(node) in called)
    }


def said(tree: ast.AST) -> set[str]:
    """Return every text: it may be given to ``getattr``."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_no_other_file_reaches_into_rclpy():
    assert {"_parameter_overrides", "_state_machine", "_take_service", "_futures", "_nodes_lock"} <= of_rclpy()
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py") if path != HERE}
    with_rclpy = {path: tree for path, tree in trees.items() if "rclpy" in path.read_text(encoding="utf-8")}
    assert len(with_rclpy) > 20, "the files were not found: nothing is tested"
    for path, tree in with_rclpy.items():
        found = reached_into(tree)
        assert not (found | said(tree)) & of_rclpy(), f"{path}: private of rclpy; move it to {HERE.name}"
        assert not found & UNDOCUMENTED, f"{path}: not in rclpy's documentation; move it to {HERE.name}"
    assert reached_into(ast.parse(HERE.read_text(encoding="utf-8"))) >= UNDOCUMENTED | {"_parameter_overrides"}


def classes() -> list[type]:
    """The classes of the nodes' package that inherit from one of rclpy's."""
    names = [each.name for each in pkgutil.iter_modules(nodes.__path__)]
    modules = [importlib.import_module(f"{nodes.__name__}.{name}") for name in names]
    found = {cls for module in modules for _, cls in inspect.getmembers(module, inspect.isclass)}
    ours = [cls for cls in found if cls.__module__.startswith(nodes.__name__)]
    return [cls for cls in ours if any(base.__module__.split(".")[0] == "rclpy" for base in cls.__mro__)]


def test_no_class_of_ours_has_a_private_name_that_its_class_of_rclpy_has_too():
    """Neither on purpose nor by accident: what is set under such a name would replace rclpy's own."""
    names = {cls.__name__: cls for cls in classes()}
    assert {"VlaNode", "SimNode", "BagRecorder", "PatientExecutor", "ServiceExecutor"} <= set(names)
    for cls in names.values():
        bases = [base for base in cls.__mro__ if base.__module__.split(".")[0] == "rclpy"]
        theirs = {n for base in bases for n in named(ast.parse(inspect.getsource(base))) if private(n)}
        assert theirs, cls
        clash = {n for n in named(ast.parse(inspect.getsource(cls))) if private(n)} & theirs
        assert not clash, f"{cls.__name__}: {clash}"


def test_the_versions_it_was_checked_with_are_those_that_are_pinned():
    for distribution in ("jazzy", "kilted"):
        pins = (ROOT / "requirements" / f"ros-{distribution}.txt").read_text(encoding="utf-8").split()
        version = next(pin.partition("==")[2] for pin in pins if pin.startswith("ros-rclpy"))
        assert f"{version} ({distribution.capitalize()})" in rclpy_private.__doc__


@pytest.mark.ros
def test_each_of_them_is_there_and_means_what_it_is_used_for(ros_domain):
    from rclpy.context import Context
    from rclpy.executors import Executor
    from rclpy.lifecycle import LifecycleNode
    from rclpy.parameter import Parameter
    from std_srvs.srv import Trigger

    context = Context()
    context.init([], initialize_logging=False)
    node = LifecycleNode(
        "private",
        context=context,
        enable_communication_interface=False,
        parameter_overrides=[Parameter("undeclared", value=3)],
    )
    try:
        assert rclpy_private.given_parameters(node)["undeclared"].value == 3
        machine = rclpy_private.StateMachine(node)
        assert machine.state == (1, "unconfigured") and (3, "active") in machine.states
        assert {each[1] for each in machine.transitions} == {"configure", "shutdown"} < {e[1] for e in machine.graph}
        node.trigger_configure()
        assert machine.state[1] == "inactive", "rclpy's triggers go through the machine that was put in"
        service = node.create_service(Trigger, "~/asked", lambda request, response: response)
        assert rclpy_private.take_requests(service, 4) == [(None, None)], "nobody has asked"
        assert callable(Executor._take_service)
    finally:
        node.destroy_node()
        context.try_shutdown()


def test_a_transition_event_is_stamped_by_either_name_of_its_field():
    """``timestamp`` up to Kilted, ``stamp`` from Lyrical on, as in every other message."""
    from lifecycle_msgs.msg import TransitionEvent
    from rclpy.time import Time
    from std_msgs.msg import Header

    time = Time(seconds=12, nanoseconds=34)
    assert rclpy_private.stamped(Header(), time).stamp == time.to_msg()
    event = rclpy_private.stamped(TransitionEvent(), time)
    fields = event.get_fields_and_field_types()
    assert event.stamp == time.to_msg() if "stamp" in fields else event.timestamp == time.nanoseconds
