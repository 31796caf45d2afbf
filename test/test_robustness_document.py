"""docs/robustness.md: every row says what happens, what the node does, and names tests that exist and hold it."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from test_docs import ROOT, broken_links

PAGE = ROOT / "docs" / "robustness.md"
TESTS = ROOT / "test"
NAMED = re.compile(r"`((?:lerobot/)?test_\w+\.py)::(test_\w+)`")
HEADER = "| what happens | what the node does | test that holds it |"


def sections(text: str) -> dict[str, list[list[str]]]:
    """Return heading to the cells of the rows below it, those that head a table left out."""
    parts = re.split(r"^## +(.+)$", text, flags=re.MULTILINE)
    found = {}
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        lines = [line for line in body.splitlines() if line.startswith("|")]
        assert lines[:2] == [HEADER, "|---|---|---|"], heading
        found[heading] = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines[2:]]
    return found


@cache
def functions_in(file: Path) -> frozenset[str]:
    """Return the names of the functions that a file defines; none where there is no such file."""
    if not file.is_file():
        return frozenset()
    nodes = ast.parse(file.read_text(encoding="utf-8")).body
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef))


def faults(row: list[str]) -> Iterator[str]:
    """Return what is wrong with a row."""
    if len(row) != 3 or not all(row):
        yield f"{row}: not three cells"
        return
    if not re.fullmatch(rf"{NAMED.pattern}(?:, {NAMED.pattern})*", row[2]):
        yield f"{row[0]}: its last cell must be tests alone, `test_file.py::test_function`, with commas between"
    named = NAMED.findall(row[2])
    for file, function in named:
        if function not in functions_in(TESTS / file):
            yield f"{row[0]}: there is no {file}::{function}"
    if len(set(named)) < len(named):
        yield f"{row[0]}: one test is named twice"


SECTIONS = sections(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_row_has_three_cells_and_names_tests_that_exist(section: str) -> None:
    assert SECTIONS[section]
    assert [fault for row in SECTIONS[section] for fault in faults(row)] == []


def test_no_row_is_there_twice() -> None:
    happenings = [row[0] for rows in SECTIONS.values() for row in rows]
    assert sorted(set(happenings)) == sorted(happenings)


def test_every_link_of_the_page_leads_somewhere() -> None:
    assert list(broken_links(PAGE, PAGE.read_text(encoding="utf-8"))) == []


HERE = f"`{Path(__file__).name}::test_no_row_is_there_twice`"


@pytest.mark.parametrize(
    ("row", "count"),
    [
        (["it rains", "wet", HERE], 0),
        (["it rains", HERE], 1),
        (["it rains", "", HERE], 1),
        (["it rains", "wet", HERE, ""], 1),
        (["it rains", "wet", "no test"], 1),
        (["it rains", "wet", HERE.strip("`")], 1),
        (["it rains", "wet", f"{HERE}, {HERE}"], 1),
        (["it rains", "wet", HERE.replace("twice", "thrice")], 1),
        (["it rains", "wet", HERE.replace("test_robustness", "test_nowhere")], 1),
        (["it rains", "wet", "`test_robustness_document.py::faults`"], 1),
    ],
)
def test_a_row_that_is_wrong_would_be_found(row: list[str], count: int) -> None:
    assert len(list(faults(row))) == count
