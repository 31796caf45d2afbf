"""The end of a launched process that the user wanted: it is asked for at once, and is no ERROR."""

import functools
import logging
import os
import re
import signal
import subprocess

import launch.logging
from launch import LaunchContext
from launch.actions import EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event import Event
from launch.event_handlers import OnProcessStart, OnShutdown
from launch.events import matches_action
from launch.events.process import SignalProcess
from launch.launch_description_entity import LaunchDescriptionEntity
from launch_ros.actions import Node

from dysl_vla_ros.parent_process import LAUNCH

# What a terminal, an init system or `launch` sends to end a process.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_DIED = re.compile(r"process has died \[pid (?P<pid>\d+), exit code (?P<code>-?\d+),")
# What asyncio says of a process that ended at the very moment in which it was sent a signal; none of ours ends so.
UNKNOWN = 255


def waiting_for_signals(context: LaunchContext) -> dict[str, object]:
    """Return what lets a node of this package begin with signals blocked, until it can take them.

    Also what lets it end with this process, however that ends. Options of the action ``Node``.
    """
    options: dict[str, object] = {"additional_env": {LAUNCH: str(os.getpid())}}
    if _env_blocks() and not context.launch_configurations.get("launch-prefix"):
        options["prefix"] = _BLOCKING
    return options


_BLOCKING = f"env --block-signal={','.join(number.name.removeprefix('SIG') for number in ENDING)}"


@functools.cache
def _env_blocks() -> bool:
    """Whether `env` is GNU's, of 2019 or later."""
    try:
        tried = subprocess.run([*_BLOCKING.split(), "true"], capture_output=True, timeout=5.0, check=False)
        return tried.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def ended_with_the_launch(node: Node) -> list[LaunchDescriptionEntity]:
    """Return ``node`` with what ends it, as soon as the launch ends, by SIGINT.

    On Ctrl-C `launch` itself leaves that to the terminal: after `kill -INT` a node heard of it 2 s later, by SIGTERM
    and with an ERROR. A second SIGINT changes nothing.
    """
    started = False

    def on_start(event: Event, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        nonlocal started
        started = True
        return [interrupt] if context.is_shutdown else []

    def on_shutdown(event: Event, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        told = not event.due_to_sigint or context.noninteractive  # `launch` does it then
        return [interrupt] if started and not told else []

    def call_a_wanted_end_one(context: LaunchContext) -> None:
        launch.logging.get_logger(node.process_details["name"]).addFilter(_WantedEnd(context))

    interrupt = EmitEvent(event=SignalProcess(signal_number=signal.SIGINT, process_matcher=matches_action(node)))
    return [
        RegisterEventHandler(OnProcessStart(target_action=node, on_start=on_start)),
        RegisterEventHandler(OnShutdown(on_shutdown=on_shutdown)),
        node,
        OpaqueFunction(function=call_a_wanted_end_one),
    ]


class _WantedEnd(logging.Filter):
    """Turns "process has died" into INFO where the launch is ending and a signal ended a process that had only begun.

    That is so for the few milliseconds until it can take signals. Other exit codes stay errors, SIGKILL too.
    """

    def __init__(self, context: LaunchContext) -> None:
        super().__init__()
        self._context = context

    def filter(self, record: logging.LogRecord) -> bool:
        died = _DIED.search(record.getMessage()) if self._context.is_shutdown else None
        if died and -int(died["code"]) in (*ENDING, -UNKNOWN):
            code = int(died["code"])
            how = "its exit code is unknown" if code == UNKNOWN else f"by {signal.Signals(-code).name} before it began"
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
            record.msg, record.args = f"process has ended [pid {died['pid']}]: {how}", ()
        return True
