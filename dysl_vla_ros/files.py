"""Files that are whole or not there: written beside the target, flushed to disk, renamed."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dysl_vla_ros.errors import DataError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary sibling of ``path``, then flush it and rename it into place.

    A fault at any moment, a full disk included, leaves an earlier file of that name as it was.

    Raises:
        DataError: the folder cannot be made or written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}; name a folder that you may write to"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}; free space or name another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(folder: Path, mend: str = "name another folder") -> None:
    """Make a folder and find out now, not after hours of work, whether files can be written to it.

    Raises:
        DataError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror or error}; {mend}") from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN is refused, as other JSON readers refuse it."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def shared(relative: str) -> Path:
    """Return a file or folder that comes with the package (``checkpoints/reference``): as installed, else a checkout's.

    Raises:
        DataError: it was installed without it.
    """
    here = Path(__file__).absolute()
    places = [parent / "share" / "dysl_vla_ros" / relative for parent in here.parents]
    places.append(here.resolve().parents[1] / relative)
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise DataError(f"{relative} did not come with this installation of dysl_vla_ros; name one of your own")
    return found
