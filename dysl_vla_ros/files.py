"""Files that are whole or not there: written beside the target, flushed to disk, renamed."""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dysl_vla_ros.errors import DataError

Fill = Callable[[Path], None]  # writes the file that it is given
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
LFS_POINTER = b"version https://git-lfs"  # what such a pointer in place of a file begins with
FREE_SPACE = "free space or name another folder"


def write_atomically(path: Path, write: Fill) -> None:
    """Let ``write`` fill a temporary sibling of ``path``, then flush it and rename it into place.

    A fault at any moment, a full disk included, leaves an earlier file of that name as it was.

    Raises:
        DataError: the folder cannot be made or written to, or the disk is full.
    """
    with written_together() as files:
        files.add(path, write)


class Together:
    """Files that are written beside their targets and take their names when all of them are on the disk."""

    def __init__(self) -> None:
        self._pending: list[tuple[Path, Path]] = []
        self._outdated: list[Path] = []

    def remove(self, path: Path) -> None:
        """Remove an earlier file that the others make untrue, when they take their places, before them."""
        self._outdated.append(path)

    def add(self, path: Path, write: Fill) -> Path:
        """Let ``write`` fill a temporary sibling of ``path`` and flush it; return where it lies until then.

        Raises:
            DataError: the folder cannot be made or written to, or the disk is full.
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
        self._pending.append((temporary, path))
        try:
            write(temporary)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o644)
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror or error}; {FREE_SPACE}") from error
        return temporary

    def add_text(self, path: Path, text: str) -> None:
        """Add ``text`` as :func:`write_text` writes it."""
        self.add(path, lambda temporary: _fill_text(temporary, text))

    def add_json(self, path: Path, value: Any) -> None:
        """Add ``value`` as :func:`write_json` writes it."""
        self.add_text(path, _json_text(value))

    def take_places(self) -> None:
        """Rename all, in the order in which they were added.

        Raises:
            DataError: one cannot be; it and those behind it are not there, or as they were.
        """
        for outdated in self._outdated:
            try:
                outdated.unlink(missing_ok=True)
            except OSError as error:
                raise DataError(f"cannot remove {outdated}: {error.strerror or error}; {FREE_SPACE}") from error
        for temporary, path in self._pending:
            try:
                temporary.replace(path)
            except OSError as error:
                raise DataError(f"cannot write {path}: {error.strerror or error}; {FREE_SPACE}") from error

    def remove_rest(self) -> None:
        """Remove what has not taken its place."""
        for temporary, _ in self._pending:
            temporary.unlink(missing_ok=True)


@contextmanager
def written_together() -> Iterator[Together]:
    """Write files that belong together, such as weights and the ``config.json`` with their hash: all of them or none.

    A full disk leaves every earlier file as it was. Between two renames alone a kill may come.

    Raises:
        DataError: see :meth:`Together.add`.
    """
    files = Together()
    try:
        yield files
        files.take_places()
    finally:
        files.remove_rest()


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
    write_atomically(path, lambda temporary: _fill_text(temporary, text))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN is refused, as other JSON readers refuse it."""
    write_text(path, _json_text(value))


def _fill_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


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
