"""How many files a reader opens who follows an image, a parameter or `dysl_vla distill`: counted in real runs.

A file that is new on a way makes a test here fail: put it into the list, or better into a file that is there.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import files_passed
from dysl_vla_ros.commands.main import main
from files_passed import WAYS, Way, files_on, files_that_ran
from harness import wait_until
from tiny_bag import write_tiny_bag
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint, make_tiny_dysl
from vla_rig import LIMIT, NODE, gentle, running_rig

TOOL = Path(files_passed.__file__)
LOADED = 120.0  # s for a worker that imports torch under the tracer
LARGEST = {"image": 25, "parameter": 10, "distill": 22}
PASSED = {
    "image": {
        *("nodes/source_watch.py", "nodes/inputs.py", "control/input_judge.py", "control/pairing.py"),
        *("nodes/pictures.py", "readings/pictures.py", "readings/images.py", "nodes/control_loop.py"),
        *("nodes/inference.py", "worker/client.py", "worker/messages.py", "worker/server.py", "runtime/step.py"),
        *("policies/reference.py", "policies/interface.py", "policies/last_layer.py", "interfaces.py"),
        *("skipping/stack.py", "skipping/depth_rules/dysl.py", "skipping/modules.py", "skipping/guidance.py"),
        *("nodes/session.py", "control/commander.py", "control/limits.py", "nodes/outputs.py"),
    },
    "parameter": {
        *("nodes/vla_node.py", "nodes/parameters.py", "nodes/control_loop.py", "nodes/inference.py"),
        *("worker/client.py", "worker/messages.py", "worker/server.py", "runtime/step.py", "skipping/guidance.py"),
    },
    "distill": {
        *("commands/distill.py", "commands/argument_checks.py", "jobs/distill.py", "jobs/learning_data.py"),
        *("recordings/learning_data.py", "recordings/moments.py", "json_files.py", "runtime/folder.py"),
        *("distillation/chosen_layers.py", "distillation/initial_weights.py", "distillation/activations.py"),
        *("distillation/stages.py", "distillation/passes.py", "distillation/judging.py", "skipping/modules.py"),
        *("distillation/stage_report.py",),
    },
}
SHORT = ("--observations", "40", "--hidden-steps", "6", "--action-steps", "6", "--joint-steps", "6", "--no-compile")


def traces(folder: Path) -> list[Path]:
    return [path for path in folder.glob("trace.*") if path.suffix != ".part"]


def assert_on_the_way(name: str, found: list[str]) -> None:
    new = sorted(set(found) - PASSED[name])
    assert not new, f"new on the way of {name}: {', '.join(new)}"
    assert len(PASSED[name]) <= LARGEST[name]


MODULES = {
    "first": "from dysl_vla_ros import look, second\ndef take(it):\n    look.at(it)\n    return second.make(it)",
    "second": "from dysl_vla_ros import third\ndef make(thing):\n    return len(third.keep(thing))",
    "third": "def keep(thing):\n    return [thing]",
    "look": "def at(thing):\n    return None",
    "other": "def nothing():\n    return 1",
}


def test_what_hands_a_thing_on_counts_and_what_only_looks_does_not(tmp_path: Path) -> None:
    package = tmp_path / "dysl_vla_ros"
    package.mkdir()
    for name, text in (MODULES | {"__init__": ""}).items():
        (package / f"{name}.py").write_text(text)
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom dysl_vla_ros import first, other\n"
        "class Thing: ...\nfirst.take(Thing())\nother.nothing()"
    )
    subprocess.run([sys.executable, str(TOOL), str(tmp_path / "trace"), str(program)], check=True, timeout=LIMIT)
    found = files_on(Way(frozenset({"Thing"})), traces(tmp_path))
    assert found == ["first.py", "second.py", "third.py"]
    assert files_on(Way(frozenset({"Thing"}), ("look.py",)), traces(tmp_path)) == sorted([*found, "look.py"])
    assert files_on(Way(frozenset({"float"})), traces(tmp_path)) == []
    assert files_that_ran(traces(tmp_path)) == ["first.py", "look.py", "other.py", "second.py", "third.py"]


def script(path: Path, *words: str) -> str:
    """Write a program that starts these words under the tracer; return its path."""
    begin, out = path.parent / "begin", path.parent / "trace"
    path.write_text(f'#!/bin/sh\nexec {words[0]} {TOOL} --from {begin} {out} {" ".join(words[1:])} "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.ros
@pytest.mark.slow
def test_an_image_and_a_parameter_pass_no_more_files_than_are_listed(ros_domain: int, tmp_path: Path) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "base")
    make_tiny_dysl(checkpoint / "dysl", checkpoint)
    patient = {"model.load_timeout": LOADED, "safety.max_arrival_age": 3.0, "safety.max_stamp_age": 4.0}
    worker = {"model.python": script(tmp_path / "python", sys.executable)}
    node = script(tmp_path / "vla_node", sys.executable, "-m", "dysl_vla_ros.nodes.vla_node")
    with running_rig(gentle(checkpoint) | patient | worker, program=node, end=False) as rig:
        assert rig.peer.change_state(NODE, "configure", 2 * LOADED)
        rig.move()
        (tmp_path / "begin").touch()

        def reaches(name: str, *ends: str) -> None:
            wait_until(
                lambda: set(ends) <= set(files_on(WAYS[name], traces(tmp_path))), LIMIT, f"{', '.join(ends)} on {name}"
            )

        reaches("image", "nodes/inputs.py", "worker/server.py", "runtime/step.py", "nodes/outputs.py")
        assert rig.set(guidance__step=0.2) == (True, "")
        reaches("parameter", "nodes/parameters.py", "worker/server.py", "skipping/guidance.py")
        rig.wait_for_motion()
    assert_on_the_way("image", files_on(WAYS["image"], traces(tmp_path)))
    assert_on_the_way("parameter", files_on(WAYS["parameter"], traces(tmp_path)))


@pytest.mark.slow
def test_distilling_passes_no_more_files_than_are_listed(tmp_path: Path) -> None:
    bag = write_tiny_bag(tmp_path / "bag", ticks=8, episodes=(INSTRUCTION, "open the drawer") * 2)
    checkpoint = make_tiny_checkpoint(tmp_path / "base")
    assert main(["calibrate", str(checkpoint), str(bag), "--observations", "40", "--static", "spread"]) == 0
    program = tmp_path / "program.py"
    program.write_text("import sys\nfrom dysl_vla_ros.commands.main import main\nsys.exit(main(sys.argv[1:]))")
    words = [str(TOOL), str(tmp_path / "trace"), str(program), "distill", str(checkpoint), str(bag), *SHORT]
    subprocess.run([sys.executable, *words, "--no-calibrate"], check=True, timeout=LOADED)
    found = files_on(WAYS["distill"], traces(tmp_path))
    assert {"commands/distill.py", "distillation/stages.py", "runtime/folder.py"} <= set(found)
    assert_on_the_way("distill", found)
