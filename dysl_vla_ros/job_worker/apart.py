"""What the user says of another project's checkpoint and of where it is computed. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from dysl_vla_ros.errors import DataError


@dataclass(frozen=True)
class Apart:
    """Of another project's checkpoint: what its files do not say, and where it is computed."""

    params: Path | None = None  # ROS 2 parameter file with the robot's contract and ``model`` settings
    python: str = ""  # the interpreter in which its library lives; "": ``model.python`` of ``params``, else this one
    together: int = 4  # frames of a pass at most: more are quicker and take more memory


def require_params(checkpoint: str | Path, params: Path | None) -> None:
    """Refuse another project's checkpoint without a parameter file.

    Raises:
        DataError: says what to name.
    """
    if not params:
        raise DataError(
            f"{checkpoint} is another project's checkpoint, whose files do not say what its values mean: name the "
            "node's parameter file with --params (`dysl_vla inspect` prints the block to fill in)"
        )
