"""Finds the storage files of a bag: a folder of rosbag2, with or without metadata.yaml, or one file by itself."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dysl_vla_ros.bags import mcap_storage, sqlite_storage
from dysl_vla_ros.bags.unpacking import unpack_file
from dysl_vla_ros.errors import BagError, DataError
from dysl_vla_ros.files import LFS_POINTER, require_writable

STORED = (".mcap", ".db3")
PACKED = tuple(f"{ending}.zstd" for ending in STORED)


def is_bag(path: Path) -> bool:
    """Tell whether something is a bag, by its content: a storage file, or a folder with one or with metadata."""
    if path.is_dir():
        return any(own.name == "metadata.yaml" or own.name.endswith(STORED + PACKED) for own in path.iterdir())
    return path.is_file() and path.name.endswith(STORED + PACKED)


@dataclass
class BagFolder:
    """What belongs to a bag."""

    path: Path
    files: list[Path]  # in the order of recording
    missing: list[str] = field(default_factory=list)  # named in metadata.yaml, but not there
    message_count: int | None = None  # by metadata.yaml


def find_files(path: Path) -> BagFolder:
    """List a bag's storage files.

    Files that the metadata does not name are taken as well: a writer that was killed had not named its last ones.

    Raises:
        BagError: nothing there that could be read.
    """
    if not path.exists():
        raise BagError(f"there is no bag at {path}: no such file or folder; check the path")
    if path.is_file():
        return BagFolder(path, [path])
    metadata = _metadata(path / "metadata.yaml")
    try:
        present = {entry.name: entry for entry in path.iterdir() if entry.name.endswith(STORED + PACKED)}
    except OSError as error:
        raise BagError(f"cannot read the bag {path}: {error.strerror or error}") from error
    for name in [name for name in present if name.endswith(PACKED)]:
        if name.removesuffix(".zstd") in present:  # packing it was broken off, or the original was not yet removed
            del present[name]
    named = [Path(name).name for name in metadata.get("relative_file_paths") or []]
    ordered = [name for name in named if name in present]
    ordered += sorted(present.keys() - set(ordered), key=_natural)
    missing = [name for name in named if name not in present and name.removesuffix(".zstd") not in present]
    if not ordered:
        lacks = (
            f"{', '.join(missing)} named in metadata.yaml is missing" if missing else "it holds no .mcap or .db3 file"
        )
        raise BagError(f"{path} is no bag that can be read: {lacks}; name a folder of `ros2 bag record`")
    count = metadata.get("message_count")
    return BagFolder(path, [path / name for name in ordered], missing, count if isinstance(count, int) else None)


def require_new(folder: Path) -> None:
    """Make the folder for a new bag, and see that it is empty and can be written to.

    Raises:
        BagError: it is not.
    """
    try:
        require_writable(folder)
    except DataError as error:
        raise BagError(str(error)) from error
    if any(folder.iterdir()):
        raise BagError(f"{folder} is not empty: name a new folder for the bag")


def open_file(path: Path, unpack_into: Path) -> "mcap_storage.McapFile | sqlite_storage.SqliteFile":
    """Open and scan one storage file.

    Args:
        path: .mcap or .db3, perhaps with .zstd behind.
        unpack_into: folder for what was compressed as a whole file.

    Raises:
        BagError: it cannot be read at all.
    """
    try:
        require_content(path)
        fault = ""
        source = path
        if path.name.endswith(PACKED):
            source = unpack_into / path.name.removesuffix(".zstd")
            fault = unpack_file(path, source)
            if not source.stat().st_size:
                raise BagError(f"{fault}: nothing")
        kind = _kind(path, source)
        opened = mcap_storage.McapFile(path, source) if kind == "mcap" else sqlite_storage.SqliteFile(path, source)
    except OSError as error:
        raise BagError(f"cannot read {path}: {error.strerror or error}") from error
    if fault:
        opened.damage.insert(0, fault)
    return opened


def require_content(path: Path) -> None:
    """Refuse what holds nothing.

    Raises:
        BagError: an empty file, a pointer of git-lfs in place of one, or no file at all.
    """
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise BagError(f"{path} is {'a folder' if path.is_dir() else 'a pipe or device'}, not a file")
    with path.open("rb") as file:
        head = file.read(len(LFS_POINTER))
    if not head:
        raise BagError(f"{path} is empty (0 bytes): nothing was written to it")
    if head == LFS_POINTER:
        raise BagError(f"{path} is a git-lfs pointer, not the file itself: run `git lfs pull`")


def _kind(path: Path, source: Path) -> str:
    """Tell what a file is by its first bytes, or by its name where those are damaged."""
    with source.open("rb") as file:
        head = file.read(16)
    if head.startswith(mcap_storage.MAGIC):
        return "mcap"
    if head == sqlite_storage.MAGIC:
        return "sqlite3"
    if head.startswith(b"#ROSBAG"):
        raise BagError(f"{path} is a bag of ROS 1; convert it: `rosbags-convert --src {path.name} --dst FOLDER`")
    if source.name.endswith(".mcap"):
        return "mcap"
    what = (
        "a damaged database: its first bytes are wrong" if source.name.endswith(".db3") else "neither mcap nor sqlite3"
    )
    raise BagError(f"{path} is {what}; name a folder of `ros2 bag record`, a .mcap or a .db3 file")


def _metadata(path: Path) -> dict[str, Any]:
    """Read metadata.yaml; {} where there is none.

    Raises:
        BagError: it is there and cannot be understood.
    """
    mend = "fix it, or remove it: the bag is read without it"
    if not path.is_file():
        return {}
    require_content(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise BagError(f"{path} is no YAML ({reason:.200}); {mend}") from error
    information = content.get("rosbag2_bagfile_information") if isinstance(content, dict) else None
    if not isinstance(information, dict):
        raise BagError(f"{path} has no 'rosbag2_bagfile_information'; {mend}")
    names = information.get("relative_file_paths", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):  # aliases may grow when written
        raise BagError(f"'relative_file_paths' in {path} is not a list of names; {mend}")
    return information


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort x_10 behind x_9."""
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", name)]
