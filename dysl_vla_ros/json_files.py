"""JSON files that are read once and checked: what cannot be read is one line that names the file and the key."""

import json
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.typed_values import WrongValueError, build

LARGEST = 64 * 2**20  # bytes; what is written here has some kilobytes


def read_object(path: Path, mend: str) -> dict[str, Any]:
    """Read a file that holds one JSON object of finite numbers.

    Args:
        path: of the file.
        mend: what to do where it cannot serve, for the message.

    Raises:
        CheckpointError: no file of a reasonable size, no JSON, no object, or a number that is not finite (named by its
            key).
        FileNotFoundError: there is no such file.
    """
    try:
        status = path.stat()  # asked for first: opening a pipe would wait for ever
        if stat.S_ISREG(status.st_mode) and status.st_size > LARGEST:
            raise CheckpointError(f"{path} has {status.st_size} bytes, at most {LARGEST} are read; {mend}")
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
            raise CheckpointError(f"{path} is {kind}, expected a file; {mend}")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; {mend}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds {values!r:.60}, expected a JSON object; {mend}")
    for key in _not_finite(values, ""):
        raise CheckpointError(f"{path}: {key} is not finite; {mend}")
    return values


def build_from(wanted: Any, value: Any, where: str, path: Path, mend: str, *, lenient: bool = False) -> Any:
    """Build a ``wanted`` from a part of a JSON file, as :func:`~dysl_vla_ros.typed_values.build` does.

    Raises:
        CheckpointError: names the file and the key.
    """
    try:
        return build(wanted, value, where, lenient=lenient)
    except WrongValueError as error:
        raise CheckpointError(f"{path}: {error}; {mend}") from error


def _not_finite(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield where
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{where}[{index}]")
