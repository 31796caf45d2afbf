"""How every program of this package that is a ROS node begins and ends."""

import contextlib
import gc
import sys
from collections.abc import Callable, Sequence

import rclpy
from rclpy.logging import get_logger, get_logging_directory
from rclpy.signals import SignalHandlerOptions

from dysl_vla_ros.nodes.console import Console
from dysl_vla_ros.nodes.stop_request import StopRequest

WITHOUT_RCL_FILE = "--disable-external-lib-logs"
LOG_FILE_NAME = "--log-file-name"
REFUSED = 2  # exit code of a program that cannot begin: it could not the next time either


def run_program(
    name: str,
    arguments: Sequence[str] | None,
    body: Callable[[StopRequest, Console], int],
    refusals: tuple[type[Exception], ...],
) -> int:
    """Run ``body`` between ``rclpy.init`` and shutdown, with stop signals and the console taken care of.

    Args:
        name: of the program, for messages and its log file.
        arguments: of the command line, without the program's name; None: this process's.
        body: the program; it returns the exit code.
        refusals: exceptions of ``body`` that are the user's to fix: one line, and exit code 2.
    """
    stop = StopRequest()
    console = Console()
    program, *given = sys.argv if arguments is None else [name, *arguments]
    try:
        try:  # what the user gave comes last, and so counts
            rclpy.init(
                args=[program, "--ros-args", WITHOUT_RCL_FILE, "--", *given],
                signal_handler_options=SignalHandlerOptions.NO,
            )
        except Exception as error:  # whatever rclpy raises: without it there is no node
            print(f"{name}: error: ROS cannot start: {error}", file=sys.stderr)
            return REFUSED
        if WITHOUT_RCL_FILE not in given:
            _open_log_file(console, name, given)
        return body(stop, console)
    except refusals as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return REFUSED
    finally:
        with contextlib.ExitStack() as ends:  # the last first, and each of them even where another one fails
            ends.callback(stop.ignore_more)
            ends.callback(console.close)
            ends.callback(rclpy.try_shutdown)
            ends.callback(gc.collect)  # frees a node that refused to begin: others shall see it leave


def _open_log_file(console: Console, name: str, given: Sequence[str]) -> None:
    prefix = given[given.index(LOG_FILE_NAME) + 1] if LOG_FILE_NAME in given[:-1] else name
    try:
        console.open_log_file(get_logging_directory(), prefix)
    except Exception as error:  # rclpy raises its own where it finds no home; a full or read-only disk: OSError
        get_logger(name).warning(f"no log file is written: {error}; ROS_LOG_DIR names its folder")
