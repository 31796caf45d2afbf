"""A command line that is wrong is refused before torch, the simulator or a model library are loaded.

Every verb of `dysl_vla` is run in one fresh interpreter: its help, each of its paths that is not there, and numbers
that make no sense. What was loaded by then is looked at after each; the first that loads what takes seconds is named.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dysl_vla_ros.commands.main import VERBS, available_verbs, build_parser
from harness import install_prefix
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

SLOW = ("torch", "transformers", "mujoco", "metaworld", "matplotlib.pyplot")
PROGRAM = """
import contextlib, io, json, sys
from dysl_vla_ros.commands.main import main
for line in json.load(sys.stdin):
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = main(line)
        except SystemExit as ended:
            code = ended.code
    loaded = [name for name in %r if name in sys.modules]
    print(json.dumps([code, error.getvalue().strip() or out.getvalue().strip(), loaded]), flush=True)
    if loaded:
        break
"""
# what a verb needs to be taken, as far as its check goes, and the options that name what must be there already
GOOD = {
    "demo": ["demo", "--out", "OUT"],
    "demonstrations": ["demonstrations", "OUT"],
    "train": ["train", "DATA", "OUT", "--tasks", "reach"],
    "calibrate": ["calibrate", "BASE", "DATA"],
    "floors": ["floors", "BASE", "DATA", "--out", "OUT"],
    "distill": ["distill", "BASE", "DATA"],
    "tune": ["tune", "BAG", "--checkpoint", "BASE", "--target-ms", "5"],
    "evaluate": ["evaluate", "BASE", "--methods", "full"],
    "replay": ["replay", "BAG", "--checkpoint", "BASE", "--out", "OUT"],
    "monitor": ["monitor"],
    "doctor": ["doctor"],
    "export": ["export", "BASE"],
    "convert": ["convert", "BASE"],
    "inspect": ["inspect", "BASE"],
}
READ = {
    "demo": ["--checkpoint"],
    "demonstrations": ["--policy"],
    "train": ["--teacher", "--base"],
    "calibrate": ["--params"],
    "distill": ["--go-on-from", "--params"],
    "floors": ["--beside"],
    "tune": ["--adapters", "--params"],
    "evaluate": ["--adapters", "--params", "--paper-adapters", "--shallow", "--shallow-distilled"],
    "replay": ["--adapters", "--params", "--against"],
    "export": ["--dysl"],
    "inspect": ["--adapters", "--params"],
}
OTHER = {  # paths that are written to, or that may be missing, or that go with another one
    ("demo", "out"), ("demo", "record"), ("demonstrations", "folder"), ("demonstrations", "adapters"),
    ("train", "output"), ("floors", "out"), ("tune", "out"), ("evaluate", "json"), ("evaluate", "out"),
    ("export", "output"), ("replay", "out"), ("replay", "rerun"), ("calibrate", "adapters"), ("distill", "adapters"),
    ("doctor", "checkpoint"),  # a line of its report
}  # fmt: skip
WRONG = {  # further arguments that no model is needed to refuse, and what the line says
    "demo": [["--episodes", "0"], ["--tasks", "fly"]],
    "demonstrations": [["--episodes", "0"], ["--tasks", "fly"], ["--first-scene", "99999999"]],
    "train": [["--steps", "0"], ["--tasks", "fly"]],
    "calibrate": [["--observations", "0"], ["--static-ratio", "2"], ["--seeds", "0"], ["--target-layers", "0"],
                  ["--actions-per-inference", "-1"], ["--topic", "image"], ["--tasks", "fly"], ["--jobs", "0"]],
    "floors": [["--evaluate", "1", "--evaluate-tasks", "board-held-out"],
               ["--batch-size", "0"], ["--bottleneck", "0"], ["--topic", "image"], ["--tasks", "fly"],
               ["--device", "gpu"]],
    "distill": [["--batch-size", "0"], ["--learning-rate", "nan"], ["--bottleneck", "0"], ["--variants", "-1"],
                ["--large-error", "inf"], ["--seeds", "0"], ["--topic", "image"], ["--tasks", "fly"]],
    "tune": [["--trials", "1"], ["--topic", "image"], ["--target-ms", "nan"]],
    "evaluate": [["--seeds", "0"], ["--methods", "full", "magic"], ["--methods", "dysl@0"], ["--threshold", "7"],
                 ["--condition", "weather"], ["--tasks", "fly"], ["--max-linear-seam", "-1"], ["--delay", "nan"],
                 ["--device", "gpu"], ["--real-time", "0"], ["--chunk", "0"], ["--chunk", "1", "8"],
                 ["--real-time", "2", "--delay", "0.1"]],
    "replay": [["--every", "0"], ["--topic", "image"], ["--max-deviation", "-1"]],
    "monitor": [["--node", "9 lives"], ["--node", ""]],
    "doctor": [["--live", "-1"]],
    "export": [["--weights", "int4"]],
    "convert": [[]],  # BASE is none of OpenVLA-OFT's
    "inspect": [["--threads", "-1"]],
}  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("early")
    base = make_tiny_checkpoint(folder / "base")
    (base / "dysl").mkdir()
    (base / "dysl" / "static_layers.json").write_text("{}")
    make_tiny_dysl(folder / "dysl", base)
    (folder / "data" / "reach").mkdir(parents=True)
    for number in range(6):
        (folder / "data" / "reach" / f"{number:03}.npz").touch()
    (folder / "bag").mkdir()
    (folder / "bag" / "bag.mcap").touch()
    return {"BASE": base, "DATA": folder / "data", "BAG": folder / "bag", "OUT": folder / "out", "AT": folder}


def refusals(places: dict[str, Path]) -> list[tuple[list[str], str]]:
    """Return every command line that must be refused, and what its one line must name."""
    nowhere = str(places["AT"] / "nowhere" / "at_all")
    found = []
    for verb, words in GOOD.items():
        line = [str(places.get(word, word)) for word in words]
        for number, word in enumerate(words):
            if word in ("BASE", "DATA", "BAG"):
                found.append(([*line[:number], nowhere, *line[number + 1 :]], nowhere))
        found += [([*line, option, nowhere], nowhere) for option in READ.get(verb, [])]
        found += [([*line, *wrong], "") for wrong in WRONG[verb]]
    return found


def test_every_path_that_a_verb_takes_is_looked_at_here() -> None:
    """A new verb or option cannot be left out by forgetting it."""
    assert set(GOOD) == set(WRONG) == set(VERBS)
    for verb in VERBS:
        parser = build_parser(available_verbs(), verb)
        (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        for action in verbs.choices[verb]._actions:
            if action.type is Path and action.option_strings:
                known = (verb, action.dest) in OTHER or set(action.option_strings) & {*READ.get(verb, ()), *GOOD[verb]}
                assert known, f"{verb}: {action.dest} is in neither READ nor OTHER"


@pytest.mark.ros
def test_help_and_every_refusal_come_before_torch_and_the_simulator(places: dict[str, Path]) -> None:
    lines = [["--help"], ["--version"], ["fly"], *([verb, "--help"] for verb in VERBS)]
    helps, wrong = len(lines), refusals(places)
    lines += [line for line, _ in wrong]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM % (SLOW,)], input=json.dumps(lines), capture_output=True, text=True, timeout=120,
        check=False, cwd=install_prefix(),
    )  # fmt: skip
    told = [json.loads(line) for line in done.stdout.splitlines()]
    for line, (_, said, loaded) in zip(lines, told, strict=False):
        assert not loaded, f"{line} loads {loaded}: {said}"
        assert "Traceback" not in said
    assert len(told) == len(lines), done.stderr
    assert [code for code, _, _ in told[:helps]] == [0, 0, 2, *[0] * len(VERBS)]
    for (line, names), (code, said, _) in zip(wrong, told[helps:], strict=True):
        assert code == 2 and said.startswith(f"dysl_vla {line[0]}: error: ") and "\n" not in said, (line, said)
        assert names in said, (line, said)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_the_terminal_cannot_show_is_replaced_and_raises_nothing(places: dict[str, Path], encoding: str) -> None:
    """In output, in errors and in what the user gave, on a terminal that knows no more than this encoding."""
    folder = places["AT"] / "ordner_\u5341_\u2713"
    folder.mkdir(exist_ok=True)
    lines = [["inspect", str(folder / "\u65e0")]]
    if encoding == "ascii":  # the doctor takes longer, and prints to stdout
        lines.append(["doctor", "--checkpoint", str(folder)])
    for line in lines:
        done = subprocess.run(
            [str(install_prefix() / "bin" / "dysl_vla"), *line], capture_output=True, timeout=60, check=False,
            env=os.environ | {"PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "0"}, cwd=install_prefix(),
        )  # fmt: skip
        said = (done.stdout + done.stderr).decode(encoding)
        assert "Traceback" not in said and "ordner_?_?" in said, said
