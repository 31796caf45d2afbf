"""Waits with a limit: they end as soon as their condition holds, or fail with what was seen last."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL = 0.01  # s between two looks at a condition that cannot notify us


def wait_until(condition: Callable[[], T], limit: float, what: str) -> T:
    """Return the first true value of ``condition()``; fail after ``limit`` seconds, naming ``what`` was waited for."""
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {limit:g} s for {what}; last seen: {short(value)}")
        time.sleep(POLL)


def short(value: object, limit: int = 500) -> str:
    """Describe a value; an image's bytes would hide everything else."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text)} characters)"
