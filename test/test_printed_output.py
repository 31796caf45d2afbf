"""Output that a page shows is a command's and held here, is held by another test, or bears what version printed it.

A fenced block without a language that does not begin with a command is output. It bears one of three marks:

- ``<!-- prints: dysl_vla inspect FOLDER -->`` above it: the command is run here, and must print those lines. Behind
  ``; varies: PATTERN`` numbers, paths and names in capitals are not compared in lines in which the pattern is found;
- ``<!-- held by: test_file.py::test_name -->`` above it: that test states its text;
- ``printed by 0.1.0 of 2026-11-24`` in the paragraph above it.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import pytest

import warm_program
from harness import install_prefix
from test_docs import PAGES, ROOT
from test_robustness_document import functions_in

LIMIT = 180.0  # s for a command
PROGRAMS = {"colcon", "dysl_vla", "make", "pip", "python3", "ros2", "sed", "source", "torchrun"}
FENCE = re.compile(r"^ *```(?P<language>\w*)\n(?P<body>.*?)^ *```", re.MULTILINE | re.DOTALL)
PRINTS = re.compile(r"<!-- prints: (?P<command>.+?)(?:; varies: (?P<varies>.+))? -->")
HELD = re.compile(r"<!-- held by: (?P<file>\w+\.py)::(?P<test>\w+) -->")
VERSION = re.compile(r"printed by \d+\.\d+\.\d+ of \d{4}-\d\d-\d\d")


class Output(NamedTuple):
    """A block of output, with the paragraph above it."""

    page: str
    line: int
    above: str
    body: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def outputs(page: str, text: str) -> Iterator[Output]:
    """Yield every block of a page that shows what something printed."""
    for block in FENCE.finditer(text):
        first = block["body"].strip().partition("\n")[0].split(" ")[0]
        if not block["language"] and first not in PROGRAMS:
            above = text[: block.start()].rstrip().rpartition("\n\n")[2]
            yield Output(page, text[: block.start()].count("\n") + 1, above, block["body"])


ALL = [found for page in PAGES for found in outputs(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8"))]


def marks(output: Output) -> int:
    return sum(len(pattern.findall(output.above)) for pattern in (PRINTS, HELD, VERSION))


@pytest.mark.parametrize("output", ALL, ids=str)
def test_every_output_says_where_it_comes_from(output: Output) -> None:
    assert marks(output) == 1, f"{output} shows output; mark it as the head of this file says"


def test_outputs_are_found_and_a_block_without_a_mark_would_be() -> None:
    assert len(ALL) > 10 and sum(bool(PRINTS.search(each.above)) for each in ALL) >= 2
    (found,) = outputs("page", "It says:\n\n```\nlayers 5\n```\n\n```\nmake demo\n```\n\n```yaml\na: 1\n```\n")
    assert found.body == "layers 5\n" and not marks(found)
    (found,) = outputs("page", "So (printed by 0.1.0 of 2026-11-24):\n\n```\n$ dysl_vla replay\nfine\n```\n")
    assert marks(found) == 1


@pytest.mark.parametrize("output", [each for each in ALL if HELD.search(each.above)], ids=str)
def test_the_test_that_is_named_is_there(output: Output) -> None:
    held = HELD.search(output.above)
    assert held
    assert held["test"] in functions_in(ROOT / "test" / held["file"])


def masked(line: str, varies: str) -> str:
    """Return a line as it is compared: as it is, or without what another machine or moment prints otherwise."""
    line = re.sub("─+", "─", " ".join(line.split()))  # as wide as the widest figure
    if not varies or not re.search(varies, line):
        return line
    for pattern, name in ((r"/[\w./+-]+", "PATH"), (r"\b[A-Z][A-Z_]{4,}\b", "NAME"), (r"\d+(?:[.,]\d+)*", "#")):
        line = re.sub(pattern, name, line)
    return line


def shape(text: str, varies: str) -> list[str]:
    return [masked(line, varies) for line in text.splitlines() if line.strip()]


def test_a_shape_differs_by_a_word_a_line_and_a_number_that_does_not_vary() -> None:
    text = "layers 24\nfloor 2.5 ms in /opt/ws\n"
    assert shape(text, "^floor") == shape("layers  24\nfloor 17 ms in /work\n", "^floor")
    for other in ("layers 5\nfloor 2.5 ms in /opt\n", "layers 24\nfloor 2.5 s in /opt\n", "layers 24\n"):
        assert shape(text, "^floor") != shape(other, "^floor")


def run(command: str) -> str:
    program, *arguments = shlex.split(command)
    assert program == "dysl_vla"
    done = warm_program.run(
        [str(install_prefix() / "bin" / program), *arguments], LIMIT, capture_output=True, text=True, cwd=ROOT,
        stdin=subprocess.DEVNULL, env=os.environ | {"COLUMNS": "80"},
    )  # fmt: skip
    assert not done.stderr, done.stderr
    return done.stdout


PRINTED = [
    pytest.param(each, id=str(each), marks=[pytest.mark.ros] if "inspect" not in each.above else [])
    for each in ALL
    if PRINTS.search(each.above)
]


@pytest.mark.parametrize("output", PRINTED)
def test_the_command_prints_what_the_page_shows(output: Output, ros_domain: int) -> None:
    mark = PRINTS.search(output.above)
    assert mark
    varies = mark["varies"] or ""
    shown, printed = shape(output.body, varies), shape(run(mark["command"]), varies)
    if " doctor" in mark["command"]:
        shown, printed = of_one_machine(shown, printed)
    assert shown == printed


def of_one_machine(shown: list[str], printed: list[str]) -> tuple[list[str], list[str]]:
    """Return the doctor's lines of both without those whose level or distribution is this machine's own."""

    def findings(lines: list[str]) -> dict[str, str]:
        found = [re.match(r"(OK|WARN|FAIL) ([a-z]+(?: memory)?|ROS|RMW|QoS) ", line) for line in lines]
        return {match[2]: match.string.replace("jazzy", "kilted") for match in found if match}

    first, second = findings(shown), findings(printed)
    assert list(first) == list(second), "a line of the doctor is missing, or new"
    own = {subject for subject in first if first[subject].split()[0] != second[subject].split()[0]}
    assert own <= {"programs", "shared memory", "leftovers", "simulator"}, own
    return [[text for subject, text in each.items() if subject not in own] for each in (first, second)]  # type: ignore
