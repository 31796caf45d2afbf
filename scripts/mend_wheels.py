"""Mend the CMake files of the ROS wheels: they name the machine that the wheels were built on.

Their exported targets point at /opt/python/cpXYZ-cpXYZ for Python's and numpy's headers, and CMake stops at "Imported
target includes non-existent path". Both are rewritten to this environment's own. Run by scripts/setup.sh; idempotent.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy

REPLACEMENTS = (
    (re.compile(r'/opt/python/[^/;"]+/include/python[0-9.]+'), sysconfig.get_path("include")),
    (re.compile(r'/opt/python/[^;"]+/site-packages/numpy/(?:_core|core)/include'), numpy.get_include()),
)


def mend(text: str) -> str:
    """Return a CMake file's text with this environment's header folders in it."""
    for pattern, folder in REPLACEMENTS:
        text = pattern.sub(lambda _, folder=folder: folder, text)
    return text


def main() -> None:
    """Mend every CMake file below the environment's share/ folder."""
    for path in sorted(Path(sys.prefix, "share").rglob("*.cmake")):
        text = path.read_text(encoding="utf-8")
        if (mended := mend(text)) != text:
            path.write_text(mended, encoding="utf-8")
            print(f"mended {path}")


main()
