"""As :mod:`tiny_pi0`, of pi0.5."""

from pathlib import Path
from typing import Any

import tiny_pi0
from lerobot.policies.pi05.configuration_pi05 import PI05Config
from tiny_pi0 import FLOW_STEPS, write_hub

__all__ = ["FLOW_STEPS", "write", "write_hub"]


def write(folder: Path, hub: Path, **changed: Any) -> Any:
    """Write a checkpoint of pi0.5."""
    return tiny_pi0.write(folder, hub, (PI05Config, tiny_pi0.pi05.PI05Policy), **changed)
