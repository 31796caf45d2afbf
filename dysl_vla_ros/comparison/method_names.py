"""The names of the methods that are compared, and how they are written on a command line. Imports no torch."""

import difflib

from dysl_vla_ros.errors import DataError

NAMES = (
    "full", "dysl", "dysl_paper", "static", "fixed", "random", "controllers", "guidance", "verify", "oracle",
    "shallow", "shallow_distilled",
)  # fmt: skip
MOST_ACTIONS = 64


def require_method(name: str) -> str:
    """Return ``name``.

    Raises:
        DataError: there is no such method; the message lists those there are.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, 1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise DataError(f"unknown method '{name}'{hint}; there are {', '.join(NAMES)}")
    return name


def read_word(word: str) -> tuple[str, int | None]:
    """Read ``dysl`` or ``dysl@4``: a method, and how many actions an inference; None: as without ``@``.

    Raises:
        DataError: an unknown method, or no such number of actions.
    """
    name, at, number = word.partition("@")
    require_method(name)
    if at and not (number.isdigit() and 1 <= int(number) <= MOST_ACTIONS):
        raise DataError(
            f"'{word}': behind the @ stands the number of actions an inference, 1 to {MOST_ACTIONS}, as in dysl@4"
        )
    return name, int(number) if at else None
