"""Where the package's files lie: below an ament prefix, below Python's own, or in the checkout."""

import os
import sys
from pathlib import Path

PACKAGE = "dysl_vla_ros"


def prefixes() -> list[Path]:
    """Return where the package may be installed, the likeliest first."""
    ament = [Path(entry) for entry in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if entry]
    return [*ament, Path(sys.prefix)]


def share_folder() -> Path:
    """Return the folder that holds ``config``, ``checkpoints`` and ``requirements``."""
    for prefix in prefixes():
        folder = prefix / "share" / PACKAGE
        if (folder / "config").is_dir():
            return folder
    return Path(__file__).resolve().parents[2]  # a checkout, or an installation without these


def library_folder() -> Path | None:
    """Return the folder of the nodes' programs, None where they are not installed."""
    return next((f for prefix in prefixes() if (f := prefix / "lib" / PACKAGE).is_dir()), None)
