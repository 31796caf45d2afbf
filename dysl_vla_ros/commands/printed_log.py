"""What jobs log on their way, on the terminal: a line each, warnings on stderr with their word in front."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Print; an output that is full or gone is met by who prints, as with every other line."""
        if record.levelno >= logging.WARNING:
            print(f"warning: {record.getMessage()}", file=sys.stderr, flush=True)
        else:
            print(record.getMessage(), flush=True)


@contextmanager
def printed_log() -> Iterator[None]:
    """Print what is logged below ``dysl_vla_ros`` meanwhile."""
    logger, lines = logging.getLogger("dysl_vla_ros"), _Lines(logging.INFO)
    before = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(lines)
