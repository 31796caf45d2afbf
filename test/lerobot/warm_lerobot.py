"""Workers with LeRobot imported, off one interpreter of .venv-lerobot: see :mod:`warm_worker`.

Its models of pi0 are small, as a ``sitecustomize`` would make them in a worker that starts by itself.
Arguments: FOLDER for tiny checkpoints, one a family, which are written first; FAMILY...; the socket's name.
"""

import importlib
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))  # behind: of the modules there, those of this folder are ours
    folder, *families, address = sys.argv[1:]
    for family in families:
        tiny = importlib.import_module(f"tiny_{family}")
        tiny.write_hub(Path(folder) / family / "hub")
        tiny.write(Path(folder) / family / "checkpoint", Path(folder) / family / "hub")
    from warm_worker import serve

    serve(address, lambda: None)
    os._exit(0)  # at the end of so much that was imported the interpreter takes seconds
