"""Where and with what figures were made: the processor, the versions, the commit."""

import contextlib
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dysl_vla_ros import __version__

PACKAGES = ("torch", "onnxruntime", "transformers", "numpy", "mujoco", "metaworld")


def processor() -> str:
    """Name the processor, for whoever compares milliseconds."""
    name = platform.processor() or platform.machine()
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return name


def machine() -> str:
    """Return the processor and the number of its cores."""
    return f"{processor()}, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python and of what computes and simulates."""
    found = {"dysl_vla_ros": __version__, "python": ".".join(map(str, sys.version_info[:3]))}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the commit of the checkout that this package runs from, with a + where files were changed; None: unknown.

    An installed copy knows no checkout; then it is the current folder's, if that is one of this package.
    """
    for folder in (Path(__file__).resolve().parents[2], Path.cwd()):
        if not (folder / "package.xml").is_file() or not (folder / "dysl_vla_ros").is_dir():
            continue
        try:
            head, changed = (
                subprocess.run(
                    ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=True
                ).stdout.strip()
                for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return head + ("+" if changed else "")
    return None
