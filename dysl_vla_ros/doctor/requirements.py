"""The tested ranges of ``requirements/*.txt``, and what is installed. Only the forms that those files use are read."""

import importlib.metadata
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

# Distributions by another name than their module: a robot's Debian packages have no metadata of that name.
MODULES = {
    "opencv-python-headless": "cv2",
    "PyYAML": "yaml",
    "pillow": "PIL",
    "Jinja2": "jinja2",
}
_LINE = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?P<ranges>[<>=!,0-9. ]*)$")
_RANGE = re.compile(r"(>=|<=|==|<|>)\s*([0-9.]+)")


class Requirement(NamedTuple):
    """One line of a requirements file."""

    name: str
    ranges: tuple[tuple[str, tuple[int, ...]], ...]  # (">=", (2, 13))
    text: str  # the ranges as written

    def fits(self, version: str) -> bool:
        """Tell whether a version lies in the tested range."""
        found = release(version)
        return all(_compare(found, operator, wanted) for operator, wanted in self.ranges)


def read(path: Path) -> list[Requirement]:
    """Read a requirements file; comments, markers and empty lines are left out."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].partition(";")[0].strip()
        if match := _LINE.match(text):
            ranges = tuple((operator, release(version)) for operator, version in _RANGE.findall(match["ranges"]))
            found.append(Requirement(match["name"], ranges, match["ranges"].strip()))
    return found


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version: ``2.13.0+cpu`` gives (2, 13, 0)."""
    match = re.match(r"[0-9.]*[0-9]", version)
    return tuple(map(int, match.group().split("."))) if match else ()


def _compare(found: tuple[int, ...], operator: str, wanted: tuple[int, ...]) -> bool:
    length = max(len(found), len(wanted))
    left, right = (numbers + (0,) * (length - len(numbers)) for numbers in (found, wanted))
    return {">=": left >= right, "<=": left <= right, "==": left == right, "<": left < right, ">": left > right}[
        operator
    ]


def installed(name: str) -> str | None:
    """Return the installed version of a distribution, "" where only its module is there, None where nothing is."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        module = MODULES.get(name, name.replace("-", "_"))
        return "" if importlib.util.find_spec(module) is not None else None
