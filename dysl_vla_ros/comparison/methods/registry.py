"""The methods there are, by their names on a command line; each is imported when it is asked for. Imports no torch."""

import difflib
import importlib
from typing import TYPE_CHECKING, NamedTuple

from dysl_vla_ros.engines import RUNTIMES
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.settings import AUTOMATIC

if TYPE_CHECKING:
    from dysl_vla_ros.comparison.methods.method import Method

MOST_ACTIONS = 64
AUTO = "auto"  # in place of a number of actions: control.actions_per_inference is 0


class Registered(NamedTuple):
    """Where a method is, and what the command line must know before it is imported."""

    module: str  # that has it as METHOD, or behind a colon the name that it has there
    checkpoint: bool = False  # it is another checkpoint, which the option of its name says


_HERE = "dysl_vla_ros.comparison.methods"
METHODS = {  # in the order of the table
    "full": Registered(f"{_HERE}.full"),
    "dysl": Registered(f"{_HERE}.dysl"),
    "dysl_paper": Registered(f"{_HERE}.dysl_paper"),
    "static": Registered(f"{_HERE}.static"),
    "constant": Registered(f"{_HERE}.constant:CONSTANT"),
    "constant_by_set": Registered(f"{_HERE}.constant:CONSTANT_BY_SET"),
    "constant_by_instruction": Registered(f"{_HERE}.constant:CONSTANT_BY_INSTRUCTION"),
    "fixed": Registered(f"{_HERE}.fixed"),
    "random": Registered(f"{_HERE}.random"),
    "controllers": Registered(f"{_HERE}.controllers"),
    "guidance": Registered(f"{_HERE}.guidance"),
    "verify": Registered(f"{_HERE}.verify"),
    "oracle": Registered(f"{_HERE}.oracle"),
    "shallow": Registered(f"{_HERE}.shallow:SHALLOW", checkpoint=True),
    "shallow_distilled": Registered(f"{_HERE}.shallow:SHALLOW_DISTILLED", checkpoint=True),
}


def method_named(name: str) -> "Method":
    """Import a method.

    Raises:
        DataError: there is none of this name; the message lists those there are.
    """
    module, _, attribute = METHODS[require_method(name)].module.partition(":")
    method: Method = getattr(importlib.import_module(module), attribute or "METHOD")
    return method


def other_checkpoints() -> list[str]:
    """Return the names of the methods that are another checkpoint."""
    return [name for name, own in METHODS.items() if own.checkpoint]


def option_of(name: str) -> str:
    """Return the option that names the checkpoint of a method: ``--shallow-distilled``."""
    return f"--{name.replace('_', '-')}"


def require_method(name: str) -> str:
    """Return ``name``.

    Raises:
        DataError: there is no such method; the message lists those there are.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, 1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise DataError(f"unknown method '{name}'{hint}; there are {', '.join(METHODS)}")
    return name


class Word(NamedTuple):
    """A method as it is written on a command line."""

    method: str
    actions: int | None = None  # an inference; None: as without an ``@``
    runtime: str | None = None  # of RUNTIMES; None: as without a colon


def read_word(word: str) -> Word:
    """Read ``dysl``, ``dysl@4``, ``dysl@auto``, ``dysl:onnx`` or ``dysl@4:onnx``.

    Raises:
        DataError: an unknown method or runtime, or no such number of actions.
    """
    before, colon, behind = word.partition(":")
    name, at, number = before.partition("@")
    require_method(name)
    if colon and behind not in RUNTIMES:
        raise DataError(f"'{word}': behind the colon stands what computes, {' or '.join(RUNTIMES)}, as in dysl:onnx")
    runtime = behind or None
    if at and number == AUTO:
        return Word(name, AUTOMATIC, runtime)
    if at and not (number.isdigit() and 1 <= int(number) <= MOST_ACTIONS):
        raise DataError(
            f"'{word}': behind the @ stands the number of actions an inference, 1 to {MOST_ACTIONS}, or {AUTO}, as in "
            "dysl@4"
        )
    return Word(name, int(number) if at else None, runtime)
