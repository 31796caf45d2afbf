"""The parameter files in config/: a real node takes each whole, and each explains itself."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dysl_vla_ros.settings import GROUPS
from harness import install_prefix

pytestmark = pytest.mark.ros

KEY = "/**/dysl_vla"
CONFIG = install_prefix() / "share" / "dysl_vla_ros" / "config"
FILES = [path for path in sorted(CONFIG.glob("*.yaml")) if KEY in (yaml.safe_load(path.read_text()) or {})]
FIELDS = {f"{group.group}.{name}": field for group in GROUPS for name, field in group.__dataclass_fields__.items()}


def everything(file: Path) -> dict[str, object]:
    """Return all values by their parameters' names."""

    def flat(prefix: str, entries: dict[str, object]) -> Iterator[tuple[str, object]]:
        for name, value in entries.items():
            yield from flat(f"{prefix}{name}.", value) if isinstance(value, dict) else [(f"{prefix}{name}", value)]

    return dict(flat("", yaml.safe_load(file.read_text())[KEY]["ros__parameters"]))


def values(file: Path) -> dict[str, object]:
    """Return those that are settings; others are said of the robot."""
    return {name: value for name, value in everything(file).items() if name in FIELDS}


def comments(file: Path) -> dict[str, str]:
    """Return the comment above each value, as one line."""
    found, group, above = {}, "", []
    for line in file.read_text().partition("ros__parameters:")[2].splitlines():
        text = line.strip()
        if text.startswith("#"):
            above.append(text.removeprefix("#").strip())
            continue
        if match := re.fullmatch(r"(\w+):(.*)", text):
            if not match[2]:
                group = match[1]
            else:
                found[f"{group}.{match[1]}"] = " ".join(above)
        above = []
    return {name: text for name, text in found.items() if name in FIELDS}


@pytest.fixture(scope="module")
def context(ros_domain: int) -> Iterator[object]:
    from rclpy.context import Context

    made = Context()
    made.init([], initialize_logging=False)
    yield made
    made.try_shutdown()


def test_there_is_a_file_for_each_kind_of_robot() -> None:
    assert {file.name for file in FILES} >= {
        "dysl_vla.yaml",
        "simulated_arm.yaml",
        "moveit_servo.yaml",
        "small_memory.yaml",
        "openvla_oft.yaml",
        "smolvla_so101.yaml",
        "pi05_so101.yaml",
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_real_node_takes_every_value_and_finds_nothing_unknown(file: Path, context: object) -> None:
    from dysl_vla_ros.nodes.vla_node import VlaNode

    # the checkpoint is the launch's to name
    arguments = ["--ros-args", "--params-file", str(file), "-p", "model.checkpoint:=somewhere"]
    node = VlaNode(namespace="left", context=context, cli_args=arguments, use_global_arguments=False)
    try:
        assert node._parameters_of_node.unknown_names() == []
        node._parameters_of_node.require_valid()
        for name, value in {**everything(file), "model.checkpoint": "somewhere"}.items():
            found = node.get_parameter(name).value
            assert (list(found) if isinstance(value, list) else found) == value
    finally:
        node.destroy_node()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_starts_with_its_command_and_each_number_has_its_range_unit_and_effect(file: Path) -> None:
    lines = file.read_text().splitlines()
    head = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    assert re.search(r"^#\s+ros2 (launch|run) dysl_vla_ros ", head, re.MULTILINE), head
    explained = comments(file)
    assert set(explained) == set(values(file))
    for name, value in values(file).items():
        assert explained[name], name
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        low, high, unit = (FIELDS[name].metadata[key] for key in ("low", "high", "unit"))
        assert f"[{low:g} to {high:g}{' ' + unit if unit else ''}]" in explained[name], name
        assert "]; " in explained[name] or name == "skipping.threshold", f"{name}: no effect"
