"""Which part may import which: the arrows of docs/architecture.md, held by reading every import statement.

And what that is for, held by really importing: the node's process never loads torch, the method never loads ROS, the
worker never loads the simulator.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import dysl_vla_ros

PACKAGE = Path(dysl_vla_ros.__file__).parent
# Importable by everybody, and importing nothing but each other.
BASE = {
    "errors",
    "files",
    "interfaces",
    "joint_units",
    "json_files",
    "load_limit",
    "params_file",
    "parent_process",
    "policy_options",
    "poses",
    "readings",
    "robot_contract",
    "ros_environment",
    "settings",
    "settings_table",
    "stop_signals",
    "transport",
    "typed_values",
}
# Part -> the parts it may import; what those may import it may import as well. The longest matching name counts.
ARROWS = {
    "skipping": set(),
    "runs": set(),
    "engines": set(),
    "engines.torch": {"engines"},
    "engines.onnx": {"engines", "policies", "runtime.folder"},
    "engines.onnx.exporting": {"engines.onnx", "runtime"},
    "policies": {"skipping", "engines.torch"},
    "runtime.folder": {"policies"},
    "runtime": {"policies", "engines", "engines.onnx", "runtime.folder"},
    "control": set(),
    "simulation": set(),
    "rclpy_private": set(),
    "worker": set(),
    "worker.server": {"worker", "runtime"},
    "worker.__main__": {"worker.server"},
    "nodes": {"worker.client", "control", "rclpy_private"},
    "nodes.sim_node": {"nodes", "simulation"},
    "nodes.bag_recorder": {"nodes", "bags"},
    "records": set(),
    "reports": {"records"},
    "evaluation": {"control", "simulation", "runtime", "records", "runs"},
    "comparison": {"evaluation", "calibration", "reports"},
    "floors": {"evaluation", "distillation", "comparison", "reports"},
    "training": {"runtime", "simulation", "runs"},
    "bags": set(),
    "recordings": {"bags", "control", "runtime", "runs"},
    "replay": {"recordings", "reports", "job_worker"},
    "calibration": {"runtime", "records", "runs"},
    "distillation": {"runtime", "calibration"},
    "job_worker": {"worker", "worker.client", "distillation", "calibration"},
    "job_worker.server": {"job_worker", "worker.server"},
    "job_worker.__main__": {"job_worker.server", "worker.__main__"},
    "jobs": {"distillation", "calibration", "recordings", "training", "evaluation", "floors", "job_worker"},
    "launching": {"simulation.tasks", "rclpy_private"},
    "terminal": set(),
    "monitor": {"terminal"},
    "doctor": {"runtime", "monitor", "control"},
    "demo": {"nodes", "bags", "evaluation", "reports", "simulation", "terminal"},
    "commands": {
        "demo",
        "nodes",
        "worker",
        "comparison",
        "floors",
        "jobs",
        "bags",
        "replay",
        "simulation",
        "monitor",
        "doctor",
        "engines.onnx.exporting",
    },
}
WITHOUT_TORCH = ("nodes", "control", "worker.client")
# The only ones that may import rclpy.
ABOVE_ROS = ("rclpy_private", "nodes", "launching.lifecycle_link", "demo", "monitor", "doctor", "commands")
GENERATED = {"msg", "srv"}


def module_name(path: Path) -> str:
    """Return a file's name below the package: ``skipping.stack``, ``skipping`` for its __init__.py, "" for ours."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.relative_to(PACKAGE).parts[0] not in GENERATED
}


@cache
def imports(module: str) -> frozenset[str]:
    """Return the full names of all modules that a module imports, anywhere in it."""
    path = MODULES[module]
    package = ".".join(["dysl_vla_ros", *path.relative_to(PACKAGE).parts[:-1]])
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                start = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*start, *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            inside = [name for name in names if name.removeprefix("dysl_vla_ros.") in MODULES]
            found |= set(inside) if len(inside) == len(names) else {base, *inside}
    return frozenset(found)


def own_imports(module: str) -> set[str]:
    """Return the modules of this package that a module imports, named below the package."""
    return {name.removeprefix("dysl_vla_ros.") for name in imports(module) if name.startswith("dysl_vla_ros.")}


def part_of(module: str) -> str:
    """Return the entry of ARROWS (or the base module) that a module belongs to."""
    pieces = module.split(".")
    names = [".".join(pieces[:length]) for length in range(len(pieces), 0, -1)]
    return next((name for name in names if name in ARROWS), pieces[0])


def reachable(part: str) -> set[str]:
    """Return what a part may import, the arrows of its targets included."""
    found, open_ends = {part}, [part]
    while open_ends:
        new = ARROWS.get(open_ends.pop(), set()) - found
        found |= new
        open_ends += new
    return found


def may_import(module: str, other: str) -> bool:
    """Tell whether the arrows allow ``module`` to import ``other``."""
    if part_of(other) in BASE:
        return True
    if other.split(".")[0] in GENERATED:
        return module.split(".")[0] in ABOVE_ROS
    allowed = reachable(part_of(module)) if part_of(module) in ARROWS else set()
    return part_of(other) in allowed or other in allowed  # the latter: one module of a part, as worker.client


def test_every_part_has_its_arrows_and_every_arrow_its_part() -> None:
    parts = {part_of(module) for module in MODULES if module}
    assert parts <= set(ARROWS) | BASE, "a new part: say in ARROWS and docs/architecture.md what it may import"
    assert {"skipping", "nodes", "control", "worker", "commands"} <= parts, "modules were not found: nothing is tested"
    assert sum(len(own_imports(module)) for module in MODULES) > 50, "the imports were not found: nothing is tested"


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_imports_follow_the_arrows(module: str) -> None:
    forbidden = sorted(other for other in own_imports(module) if not may_import(module, other))
    assert not forbidden, f"{module} imports {', '.join(forbidden)}"


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_what_a_module_does_as_a_program_stands_last(module: str) -> None:
    body = ast.parse(MODULES[module].read_text(encoding="utf-8")).body
    guards = [index for index, own in enumerate(body) if isinstance(own, ast.If) and "__main__" in ast.dump(own.test)]
    assert guards in ([], [len(body) - 1]), "what stands below is not defined when it runs"


@pytest.mark.parametrize(
    ("module", "other", "allowed"),
    [
        ("skipping.stack", "skipping.partition", True),
        ("skipping.stack", "policies.interface", False),
        ("runtime.step", "skipping.stack", True),
        ("runtime.step", "nodes.vla_node", False),
        ("runtime.step", "engines.engine", True),
        ("engines.onnx.policy", "runtime.folder", True),
        ("engines.onnx.policy", "runtime.step", False),
        ("nodes.vla_node", "worker.client", True),
        ("nodes.vla_node", "worker.server", False),
        ("nodes.vla_node", "simulation.scene", False),
        ("nodes.sim_node", "simulation.scene", True),
        ("worker.server", "simulation.scene", False),
        ("worker.client", "runtime.step", False),
        ("control.commander", "interfaces", True),
        ("control.commander", "msg", False),
        ("nodes.outputs", "msg", True),
        ("launching.arguments", "simulation.tasks", True),
        ("launching.arguments", "simulation.scene", False),
        ("interfaces", "skipping.stack", False),
    ],
)
def test_the_rule_itself_tells_right_from_wrong(module: str, other: str, allowed: bool) -> None:
    assert may_import(module, other) is allowed


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_nothing_below_the_nodes_imports_rclpy(module: str) -> None:
    if not module.startswith(ABOVE_ROS):
        assert not {name for name in imports(module) if name.split(".")[0] == "rclpy"}


def loaded_by(module: str) -> set[str]:
    """Import a module in a fresh process and return the top-level names of everything that was loaded."""
    code = f"import sys, dysl_vla_ros.{module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    # from the folder that holds the tested package: `-c` looks into the current one first, which may be a checkout
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=PACKAGE.parent
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def below(part: str) -> list[str]:
    return [module for module in MODULES if f"{module}.".startswith(f"{part}.")]


@pytest.mark.parametrize(
    "module",
    [
        "control.commander",
        "control.freshness",
        "worker.client",
        "skipping.guidance",
        "runtime.step",
        "runtime.folder",
        "policies.reference_config",
        "engines.onnx.loading",
        "launching.arguments",
        "bags.reader",
        "bags.recording",
    ],
)
def test_loads_neither_torch_nor_ros(module: str) -> None:
    assert not loaded_by(module) & {"torch", "transformers", "rclpy", "mujoco"}


@pytest.mark.ros
def test_the_node_loads_no_torch_and_no_simulator() -> None:
    assert not loaded_by("nodes.vla_node") & {"torch", "transformers", "mujoco", "metaworld"}


def test_the_worker_loads_no_ros_and_no_simulator() -> None:
    loaded = loaded_by("worker.server")
    assert "msgpack" in loaded
    assert not loaded & {"rclpy", "mujoco", "metaworld"}


@pytest.mark.parametrize("part", WITHOUT_TORCH)
def test_no_statement_imports_torch_where_it_must_not_be(part: str) -> None:
    modules = below(part)
    assert modules
    for module in modules:
        assert not {name.split(".")[0] for name in imports(module)} & {"torch", "transformers", "safetensors"}, module


def test_nothing_of_the_simulation_can_be_reached_from_the_worker() -> None:
    found, open_ends = set(), ["worker.server", "worker.__main__"]
    while open_ends:
        for other in own_imports(open_ends.pop()):
            if other in MODULES and other not in found:
                found.add(other)
                open_ends.append(other)
    assert "runtime.step" in found, "the way from the worker to the runtime was not found: nothing is tested"
    assert not [module for module in found if module.startswith(("simulation", "nodes", "evaluation"))]
