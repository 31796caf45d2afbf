"""Runs launches (arguments: FILE NAME:=VALUE...), each interrupted at another place in the start of its process.

A place is a function, of the package, of `launch` or of Python, that is entered from the package's first handler of the
event "process started" on, until the next wait of the launch's loop; the signal comes as that function is to begin.
Chance has no part in it: each launch goes one function further, until there is none left.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from launch import LaunchDescription, LaunchService
from launch.actions import RegisterEventHandler
from launch.event_handlers import OnProcessStart

import dysl_vla_ros.launching
from run_launch_file import including

OURS = dysl_vla_ros.launching.__path__[0]


class Interruption:
    """Sends SIGINT to this process at the ``place``-th function, counted from 0."""

    def __init__(self, place: int) -> None:
        self._place = place
        self._seen: set[CodeType] = set()
        self.at = ""

    def begin(self, *_: Any) -> None:
        sys.settrace(self._enter)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        if frame.f_code.co_name == "select" and "selectors" in frame.f_code.co_filename:
            sys.settrace(None)
            self._interrupt("the loop's wait")
        elif frame.f_code not in self._seen and (self._seen or frame.f_code.co_filename.startswith(OURS)):
            self._seen.add(frame.f_code)
            if len(self._seen) > self._place:
                sys.settrace(None)
                self._interrupt(f"{frame.f_code.co_filename}:{frame.f_code.co_name}")
        return None

    def _interrupt(self, where: str) -> None:
        self.at = where
        os.kill(os.getpid(), signal.SIGINT)


def main() -> int:
    place = 0
    while True:
        interruption = Interruption(place)
        service = LaunchService()
        description = including(sys.argv[1], sys.argv[2:])
        # of the handlers of one event the last one registered comes first
        interrupt = RegisterEventHandler(OnProcessStart(on_start=interruption.begin))
        service.include_launch_description(LaunchDescription([description, interrupt]))
        code = service.run()
        sys.settrace(None)
        left = [thread.name for thread in threading.enumerate() if not thread.daemon][1:]
        print(f"place {place}: {interruption.at}; exit code {code}; threads left: {left}", flush=True)
        assert code == 0 and interruption.at
        if interruption.at == "the loop's wait":
            break
        place += 1
    print(f"{place + 1} launches were interrupted", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
