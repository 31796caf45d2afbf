"""docs/new-family.md teaches by X-VLA: its code is that of the files, and every name in it is there."""

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "new-family.md").read_text(encoding="utf-8")
PLACES = [ROOT / name for name in re.findall(r"`((?:dysl_vla_ros|test|scripts)/[\w./]+)`", TEXT)]
QUOTED = [textwrap.dedent(block) for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)]
LIBRARYS = {"predict_action_chunk", "select_action", "save_pretrained"}  # LeRobot's own methods
FILES = [file for place in PLACES for file in (sorted(place.glob("*.py")) if place.is_dir() else [place])]


def lines() -> set[str]:
    return {line.strip() for file in FILES for line in file.read_text(encoding="utf-8").splitlines()}


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) < 150


def test_every_file_and_test_is_there() -> None:
    assert [place for place in PLACES if not place.exists()] == []
    for file, name in re.findall(r"`([\w/]+\.py)::(\w+)`", TEXT):
        assert f"def {name}(" in (ROOT / "test" / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("block", QUOTED, ids=lambda block: block.split("\n")[0][:30])
def test_code_that_is_shown_is_that_of_the_files(block: str) -> None:
    assert {line.strip() for line in block.splitlines() if line.strip()} - lines() == set()


def test_every_name_is_one_of_the_files_that_the_page_names() -> None:
    words = re.findall(r"`([A-Za-z_]\w+)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL))
    known = set(re.findall(r"\w+", "\n".join(lines())))
    assert words and set(words) - known - LIBRARYS == set()
