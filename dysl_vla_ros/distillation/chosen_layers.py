"""``static_layers.json``: which layers stay, as ``dysl_vla calibrate`` has chosen them and distillation reads them."""

from dataclasses import dataclass
from pathlib import Path

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.json_files import build_from, read_object

STATIC_LAYERS = "static_layers.json"


@dataclass(frozen=True)
class ChosenLayers:
    """Of the file what distillation needs."""

    base_sha256: str
    choice: str
    static: tuple[int, ...]


def require_choice(folder: Path) -> None:
    """Refuse a folder in which no static layers were chosen.

    Raises:
        CheckpointError: there is no choice.
    """
    if not (folder / STATIC_LAYERS).is_file():
        raise CheckpointError(f"{folder / STATIC_LAYERS} is missing; run `dysl_vla calibrate` first")


def read_choice(folder: Path, weights_hash: str) -> ChosenLayers:
    """Read what was chosen.

    Raises:
        CheckpointError: it is not there, cannot be read, or was made for another base.
    """
    path, again = folder / STATIC_LAYERS, "run `dysl_vla calibrate` again"
    require_choice(folder)
    values = read_object(path, again)
    choice: ChosenLayers = build_from(ChosenLayers, values, "", path, again, lenient=True)
    if choice.base_sha256 != weights_hash:
        raise CheckpointError(
            f"{path} was made for the base {choice.base_sha256[:12]}, this one is {weights_hash[:12]}; {again}"
        )
    return choice
