"""README, CHANGELOG and docs/: what they point to is there. Links and headings, files, parameters, arguments, verbs."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dysl_vla_ros.commands.main import VERBS
from dysl_vla_ros.robot_contract import ENTRIES
from dysl_vla_ros.settings import GROUPS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
PAGES += [ROOT / "checkpoints" / "reference" / "README.md"]
FIELDS = {f"{group.group}.{name}" for group in GROUPS for name in group.__dataclass_fields__}
FIELDS |= {*ENTRIES, "safety.joint"}  # what is said of the robot
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
FOLDERS = (
    "test|config|docs|scripts|benchmarks|launch|msg|requirements|checkpoints|nodes|control|worker|runtime|skipping"
)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def broken_links(page: Path, text: str) -> Iterator[str]:
    """Return the links of a page's text that lead nowhere; those to other hosts are not looked at."""
    for target in re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        if not path.exists():
            yield f"{target}: there is no such file"
        elif anchor and anchor not in anchors(path):
            yield f"{target}: {path.name} has no such heading"


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    assert list(broken_links(page, page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("link", ["docs/nowhere.md", "docs/inputs.md#nowhere", "#nowhere", "docs/images/nowhere.png"])
def test_a_link_that_leads_nowhere_would_be_found(link: str) -> None:
    assert len(list(broken_links(ROOT / "README.md", f"see [this]({link})"))) == 1


def test_every_page_can_be_reached_from_the_readme() -> None:
    known, new = {ROOT / "README.md"}, {ROOT / "README.md"}
    while new:
        texts = {page: FENCE.sub("", page.read_text(encoding="utf-8")) for page in new if page.suffix == ".md"}
        targets = {
            (page.parent / target).resolve()
            for page, text in texts.items()
            for target in re.findall(r"\]\(([^)\s#:]+)[^)\s:]*\)", text)
        }
        new = targets - known
        known |= new
    assert {page for page in PAGES if page.parent.name == "docs"} <= known


@each_page
def test_every_file_that_is_named_is_there(page: Path) -> None:
    named = re.findall(rf"`((?:{FOLDERS})/[\w./-]+\.\w+)`", page.read_text(encoding="utf-8"))
    absent = [name for name in named if not ((ROOT / name).exists() or (ROOT / "dysl_vla_ros" / name).exists())]
    assert absent == []


@each_page
def test_every_parameter_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    groups = "|".join(group.group for group in GROUPS)
    named = set(re.findall(rf"(?<![\w/.-])((?:{groups})\.[a-z_]+)\b", text)) | set(
        re.findall(r"ros2 param set /dysl_vla (\S+)", text)
    )
    assert {name for name in named if not name.endswith((".py", ".md", ".yaml"))} - FIELDS == set()


@each_page
def test_every_verb_and_target_that_is_named_exists(page: Path) -> None:
    code = "\n".join(re.findall(r"`+([^`]+)`+", page.read_text(encoding="utf-8")))
    assert set(re.findall(r"(?<![\w/])dysl_vla ([a-z]+)\b", code)) - set(VERBS) == set()
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", code, re.MULTILINE)) - targets == set()


@pytest.mark.ros
@each_page
def test_every_argument_of_a_launch_file_that_is_named_exists(page: Path) -> None:
    from dysl_vla_ros.launching.arguments import REPLAY_ARGUMENTS, VLA_ARGUMENTS, demo_arguments

    arguments = {
        "dysl_vla.launch.py": VLA_ARGUMENTS,
        "demo.launch.py": demo_arguments(),
        "replay.launch.py": REPLAY_ARGUMENTS,
    }
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for file, given in re.findall(r"ros2 launch dysl_vla_ros (\S+)([^\n`]*)", text):
        assert set(re.findall(r"(\w+):=", given)) - set(arguments[file]) == set()
