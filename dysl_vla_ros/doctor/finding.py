"""What a check finds: one line with a level and, unless all is well, what to do."""

import enum
from typing import NamedTuple


class Level(enum.IntEnum):
    """How bad a finding is; FAIL makes the doctor's exit code 1."""

    OK = 0
    WARN = 1  # may be as you want it
    FAIL = 2  # will not work


class Finding(NamedTuple):
    """One line of the report."""

    level: Level
    subject: str
    text: str
    fix: str = ""  # what to do; every WARN and FAIL has one


def ok(subject: str, text: str) -> Finding:
    """Make a finding that all is well."""
    return Finding(Level.OK, subject, text)


def warn(subject: str, text: str, fix: str) -> Finding:
    """Make a finding that somebody should look at."""
    return Finding(Level.WARN, subject, text, fix)


def fail(subject: str, text: str, fix: str) -> Finding:
    """Make a finding that must be fixed."""
    return Finding(Level.FAIL, subject, text, fix)
