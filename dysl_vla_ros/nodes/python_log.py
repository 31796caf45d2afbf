"""What is told without rclpy, by Python's logging or by a thread that an exception ends: in the log of the node."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

from dysl_vla_ros.nodes.lifecycle_guard import describe

PACKAGE = logging.getLogger("dysl_vla")  # above the loggers of all modules that import no rclpy


class _ToRosLog(logging.Handler):
    def __init__(self, log: Any) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno >= logging.ERROR:  # rclpy wants a line of the source for each level
            self._log.error(text)
        else:
            self._log.warning(text)


@contextlib.contextmanager
def on_ros_log(log: Any) -> Iterator[None]:
    """Pass on to the logger of a node what this package logs meanwhile, and what ends one of its threads."""
    handler, before = _ToRosLog(log), threading.excepthook

    def tell(ended: threading.ExceptHookArgs) -> None:
        name = ended.thread.name if ended.thread else "unknown"
        if ended.exc_value is not None:
            log.error(f"the thread {name!r} has ended: {describe(ended.exc_value)}")

    PACKAGE.addHandler(handler)
    threading.excepthook = tell
    try:
        yield
    finally:
        threading.excepthook = before
        PACKAGE.removeHandler(handler)
