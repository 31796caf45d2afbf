"""Write a family's tiny checkpoint and what it names on a hub: python write_checkpoint.py FAMILY FOLDER."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    family, folder = sys.argv[1], Path(sys.argv[2])
    tiny = importlib.import_module(f"tiny_{family}")
    tiny.write_hub(folder / "hub")
    tiny.write(folder / "checkpoint", folder / "hub")
