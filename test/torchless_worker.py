"""A Python in which torch cannot be imported: what a robot has whose worker runs ONNX Runtime alone."""

import sys
from pathlib import Path

ABSENT = ("torch", "transformers", "safetensors", "accelerate", "optuna", "simplejpeg", "onnx")
PRELUDE = f"""
import importlib.metadata, importlib.util, runpy, sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


def absent(name):
    return name.partition(".")[0] in {ABSENT}


sys.meta_path.insert(0, Absent())
find_spec, version = importlib.util.find_spec, importlib.metadata.version


def found(name, package=None):
    return None if absent(name) else find_spec(name, package)


def known(name):
    if absent(name):
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)


importlib.util.find_spec, importlib.metadata.version = found, known
assert sys.argv[1] == "-m", sys.argv
module = sys.argv[2]
sys.argv[:3] = [module]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def torchless_python(folder: Path) -> str:
    """Return an interpreter for ``model.python``; ``folder``: for its two files."""
    prelude, script = folder / "torchless.py", folder / "torchless_python"
    prelude.write_text(PRELUDE)
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{prelude}" "$@"\n')
    script.chmod(0o755)
    return str(script)
