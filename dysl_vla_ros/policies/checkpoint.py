"""Folders of weights: ``config.json`` names every other file with its SHA-256, weights are safetensors.

A flipped bit or a NaN in a safetensors file loads without a word; hence the hashes and one look at every value. Only
what holds tensors imports torch: a folder that is not there is refused before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.files import LFS_POINTER, Fill, sha256, written_together
from dysl_vla_ros.json_files import build_from, read_object

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMAT_VERSION = 1
POINTER = "a git-lfs pointer"  # see looks_like
MEND = "name another folder, or get the files again (with git: `git lfs pull` where they are LFS pointers)"


@dataclass(frozen=True)
class Spent:
    """What a model was trained with, where a folder's ``config.json`` says it; there may be more."""

    steps: int | None = None
    seconds: int | float | None = None
    base_steps: int = 0
    base_seconds: float = 0.0


@dataclass(frozen=True)
class Noted:
    """What the ``config.json`` of either kind of folder may say beside what is loaded."""

    training: Spent = Spent()
    package_version: str = ""


def read_config(folder: Path, what: str = "checkpoint") -> dict[str, Any]:
    """Read and check a folder's ``config.json`` without reading the weights.

    Raises:
        CheckpointError: no such folder or file, no JSON, another format version.
    """
    path = folder / "config.json"
    if not str(folder) or not folder.is_dir():
        raise CheckpointError(f"{what} '{folder}' is not a folder; {MEND}")
    try:
        config = read_object(path, MEND)
    except FileNotFoundError as error:
        other = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
        raise CheckpointError(f"{what} '{folder}' has no config.json (there is {other}); {MEND}") from error
    if "format_version" not in config and isinstance(config.get("type"), str) and "input_features" in config:
        raise CheckpointError(
            f"{path}: a checkpoint of LeRobot's (type {config['type']!r:.40}), which the node and `dysl_vla inspect`, "
            "`calibrate` and `distill` read and no other command yet: name it in model.checkpoint and LeRobot's Python "
            "in model.python"
        )
    version = config.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version is {version!r}, this version reads {FORMAT_VERSION}; "
            "use the release that wrote it, or make the files again"
        )
    build_from(Noted, config, "", path, MEND, lenient=True)
    return config


def needed_object(path: Path, why: str = "") -> dict[str, Any]:
    """Read a JSON object without which a folder cannot be loaded; ``why`` says what the file is there for.

    Raises:
        CheckpointError: it is missing, or no JSON object.
    """
    try:
        return read_object(path, MEND)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing{f' ({why})' if why else ''}; {MEND}") from error


def total_training(training: Any) -> tuple[int | None, float | None]:
    """Return the optimiser steps and the seconds that the ``training`` of a ``config.json`` tells; None: it does not.

    Those of a base that was gone on from count; where they are not told, nothing is.
    """
    told = training if isinstance(training, dict) else {}
    if "base" in told and not {"base_steps", "base_seconds"} <= told.keys():
        return None, None
    steps, seconds = told.get("steps"), told.get("seconds")
    return (
        None if steps is None else steps + told.get("base_steps", 0),
        None if seconds is None else seconds + told.get("base_seconds", 0),
    )


def read_checkpoint(folder: Path, what: str = "checkpoint") -> dict[str, Any]:
    """Read ``config.json`` and check every file that it names against its hash.

    A file may be a link to anywhere, as `colcon build --symlink-install` and download caches lay them: its hash says
    whether it is the one that is meant. A name may not lead out of the folder.

    Raises:
        CheckpointError: as :func:`read_config`; a file missing, outside the folder, or other than it was written.
    """
    config = read_config(folder, what)
    files = config.get("files")
    if not isinstance(files, dict) or not files:
        raise CheckpointError(f"{folder / 'config.json'} names no files with their hashes; {MEND}")
    for name, expected in files.items():
        path = folder / str(name)
        if Path(name).name != name:
            raise CheckpointError(f"{folder / 'config.json'}: file '{name}' must lie in the folder itself; refused")
        if not name.endswith((".safetensors", ".json")):
            raise CheckpointError(f"{path}: only .safetensors and .json are read; pickles could run code")
        if not isinstance(expected, str):
            said = f"files.{name} is {expected!r:.60}, expected a SHA-256"
            raise CheckpointError(f"{folder / 'config.json'}: {said}; {MEND}")
        if not path.is_file():
            raise CheckpointError(f"{path} {_why_missing(path)}; {MEND}")
        found = sha256(path)
        if found != expected:
            raise CheckpointError(
                f"{path} ({path.stat().st_size} bytes, {looks_like(path)}) is not the file that was written: "
                f"its SHA-256 begins {found[:12]}, {folder / 'config.json'} says {expected[:12]}; {MEND}"
            )
    return config


def _why_missing(path: Path) -> str:
    if path.is_symlink():
        return f"is a link to {path.readlink()}, where no file is"
    if path.exists():
        return "is a folder, not a file" if path.is_dir() else "is a pipe or device, not a file"
    return "is missing"


def looks_like(path: Path) -> str:
    """Say in two words what a file that should be safetensors is."""
    with path.open("rb") as source:
        head = source.read(64)
    if head.startswith(LFS_POINTER):
        return POINTER
    if head.startswith(b"PK") or head.startswith(b"\x80"):
        return "a pickle or zip"
    return "empty" if not head else "damaged or of another version"


def read_tensors(path: Path, device: str = "cpu", dtype: "torch.dtype | None" = None) -> "dict[str, Tensor]":
    """Read a safetensors file and look at every value once. Its bytes are mapped, not copied, where nothing is cast.

    Args:
        path: the file.
        device: where the tensors are to lie.
        dtype: of the floating-point ones; None: float32.

    Raises:
        CheckpointError: no safetensors, or a value that is not finite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path, device=device)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is {looks_like(path)}: {error}; {MEND}") from error
    for name, tensor in tensors.items():
        require_finite(path, name, tensor)
    dtype = dtype or torch.float32
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}


def require_finite(path: Path, name: str, tensor: "Tensor") -> None:
    """Look at every value of a file's tensor once.

    Raises:
        CheckpointError: one is not finite.
    """
    import torch

    # NaN and infinity are among the least and the greatest, which are found without a copy
    if tensor.is_floating_point() and tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
        raise CheckpointError(f"{path}: tensor '{name}' holds NaN or infinity; {MEND}")


def fill_tensors(tensors: "dict[str, Tensor]", metadata: dict[str, str] | None = None) -> Fill:
    """Return what writes tensors as safetensors; a full disk is an OSError then, as with every other file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    def fill(path: Path) -> None:
        try:
            save_file(tensors, path, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from error

    return fill


def write_checkpoint(
    folder: Path,
    config: dict[str, Any],
    weights: "dict[str, dict[str, Tensor]]",
    beside: Mapping[str, Any] | None = None,
    outdated: Sequence[str] = (),
) -> None:
    """Write weights (file name -> tensors, as fp16) and the config that names them: all, or what was there stays.

    Args:
        folder: made where it is missing.
        config: of ``config.json``, but for the hashes.
        weights: file name -> tensors.
        beside: further JSON files that belong to them, name -> values.
        outdated: names of earlier files that these make untrue: removed.

    Raises:
        DataError: the folder cannot be written to, or the disk is full.
    """
    import torch

    with written_together() as files:
        for name in outdated:
            files.remove(folder / name)
        for name, values in (beside or {}).items():
            files.add_json(folder / name, values)
        hashes = {}
        for name, tensors in weights.items():
            half = {key: value.detach().cpu().to(torch.float16).contiguous() for key, value in tensors.items()}
            hashes[name] = sha256(files.add(folder / name, fill_tensors(half)))
        files.add_json(folder / "config.json", {"format_version": FORMAT_VERSION, **config, "files": hashes})
