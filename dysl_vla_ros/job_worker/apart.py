"""What the user says of another project's checkpoint and of where it is computed. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Apart:
    """Of another project's checkpoint: what its files do not say, and where it is computed."""

    params: Path | None = None  # ROS 2 parameter file with the robot's contract and ``model`` settings
    python: str = ""  # the interpreter in which its library lives; "": ``model.python`` of ``params``, else this one
    together: int = 4  # frames of a pass at most: more are quicker and take more memory
