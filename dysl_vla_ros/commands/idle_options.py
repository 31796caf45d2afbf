"""Options that were given and do nothing beside others: said before anything is done, never left without a word."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def idle_options(
    given: Mapping[str, Any], add_arguments: Callable[[argparse.ArgumentParser], None], names: Sequence[str]
) -> list[str]:
    """Return those of some options that were given another value than their default, as they are typed.

    Args:
        given: name of an argument -> its value.
        add_arguments: the verb's, which declared them.
        names: of the options, as in ``given``.
    """
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    return [f"--{name.replace('_', '-')}" for name in names if given[name] != parser.get_default(name)]


def warn_of_idle_options(
    given: Mapping[str, Any],
    add_arguments: Callable[[argparse.ArgumentParser], None],
    *groups: tuple[bool, Sequence[str], str],
) -> None:
    """Say which options do nothing.

    Args:
        given: name of an argument -> its value.
        add_arguments: the verb's.
        groups: whether this holds for the command line, the options that then do nothing, and why.
    """
    for holds, names, why in groups:
        if holds and (found := idle_options(given, add_arguments, names)):
            print(f"warning: without effect: {', '.join(found)}: {why}", file=sys.stderr)
