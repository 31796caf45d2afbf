"""`pip install .`: everything but the ROS nodes, for a GPU server without ROS. On a robot, colcon builds instead."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent


def lines(name: str) -> list[str]:
    text = (here / name).read_text(encoding="utf-8")
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]


def files_below(folder: str) -> list[tuple[str, list[str]]]:
    """Pair each installed folder below share/ with its files, relative to this one, as ``data_files`` wants them."""
    files = [path.relative_to(here) for path in sorted((here / folder).rglob("*")) if path.is_file()]
    return [(f"share/dysl_vla_ros/{path.parent}", [str(path)]) for path in files]


programs = [line.rpartition(" ") for line in lines("programs.txt")]
setup(
    name="dysl_vla_ros",
    version=re.search(r'__version__ = "(.+)"', (here / "dysl_vla_ros/__init__.py").read_text(encoding="utf-8"))[1],
    description="Vision-language-action policies that skip layers when the moment allows it, for ROS 2",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(
        include=["dysl_vla_ros", "dysl_vla_ros.*"],
        exclude=["dysl_vla_ros.nodes", "dysl_vla_ros.demo"],
    ),
    package_data={"": ["*.j2", "*.html", "*.css", "*.json", "*.yaml", "py.typed"]},
    # msg: explains our own messages in recordings that do not
    data_files=[
        pair for folder in ("config", "checkpoints/reference", "requirements", "msg") for pair in files_below(folder)
    ],
    install_requires=lines("requirements/runtime.txt") + lines("requirements/torch.txt"),
    extras_require={"simulation": lines("requirements/simulation.txt"), "onnx": lines("requirements/onnx.txt")},
    entry_points={"console_scripts": [program for program, _, place in programs if place == "bin"]},
)
