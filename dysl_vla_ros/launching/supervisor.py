"""Brings a lifecycle node to active after each start of its process, and decides when the launch ends.

Works on Jazzy and Kilted alike: the transitions come from event handlers, since Jazzy's LifecycleNode has no autostart.
An error that ends the launch is raised: `launch` then shows it, ends what it started, and `ros2 launch` exits with 1.

Whether a process that died is activated again depends on what its node was last: one that was active, or still on its
first way there, is; one that was deactivated by hand, or went to unconfigured by itself, is started and left alone.
"""

import re
import signal
import threading
import time
from typing import Any

from launch import LaunchContext
from launch.actions import LogInfo, OpaqueFunction, RegisterEventHandler, Shutdown
from launch.event import Event
from launch.event_handlers import OnProcessIO, OnProcessStart
from launch.events import matches_action
from launch.launch_description_entity import LaunchDescriptionEntity
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import GetState

from dysl_vla_ros.errors import DyslVlaError

START_LIMIT = 60.0  # s from the start of the process to its first answer: importing from a slow disk takes its time
ASK_AGAIN = 0.5  # s; a question that was asked before both sides had found each other is never answered
REFUSED = 2  # exit code of a program that did not like its command line: it would not the next time either
_ERROR_LINE = re.compile(r"\[(?:ERROR|FATAL)\] \[[\d.]+\] \[[^\]]*\]: (?P<text>.*)|^\w+: error: (?P<plain>.*)")


class LaunchFailed(DyslVlaError):
    """What was launched cannot work; ends the launch with exit code 1."""


class Supervisor:
    """The life of one lifecycle node under one launch.

    Args:
        name: of the node, for messages.
        autostart: configure and activate the first process.
        respawns: how often a process that died is started again (launch does it; this counts).
    """

    def __init__(self, name: str, autostart: bool, respawns: int) -> None:
        self._name = name
        self._autostart = autostart
        self._respawns = respawns
        self._process = 0  # how many were started
        self._starting = False  # on the way from the start of the process to active
        self._state = ""  # last seen
        self._reason = ""  # the node's last error, in its own words
        self._client: Any = None

    def handlers(self, node: LifecycleNode) -> list[RegisterEventHandler]:
        """Return the event handlers that must be registered before the node is started."""
        return [
            RegisterEventHandler(handler)
            for handler in (
                OnProcessStart(target_action=node, on_start=lambda event, context: self._on_start(context, node)),
                OnProcessIO(target_action=node, on_stderr=self._on_stderr),
                OnStateTransition(
                    target_lifecycle_node=node,
                    entities=[OpaqueFunction(function=self._on_transition, args=[node])],
                ),
            )
        ]

    # -- the way to active -------------------------------------------------------------------------------------------

    def _on_start(self, context: LaunchContext, node: LifecycleNode) -> None:
        self._process += 1
        self._starting = self._autostart if self._process == 1 else self._starting
        self._state, self._reason = "unconfigured", ""
        if self._starting:
            context.add_completion_future(
                context.asyncio_loop.run_in_executor(None, self._configure_when_it_answers, context, node)
            )

    def _configure_when_it_answers(self, context: LaunchContext, node: LifecycleNode) -> None:
        """Wait, in a thread, until the new process answers ``get_state``, then ask for ``configure``.

        A service that is known is not enough: DDS goes on naming that of a killed process for 20 s, and what is asked
        there is lost.
        """
        process, deadline = self._process, time.monotonic() + START_LIMIT
        if self._client is None:
            self._client = get_ros_node(context).create_client(GetState, f"{node.node_name}/get_state")
        client = self._client
        while not (client.wait_for_service(ASK_AGAIN) and self._answers(client)):
            if context.is_shutdown or process != self._process:
                return
            if time.monotonic() > deadline:
                raise LaunchFailed(f"{self._name} has not answered {client.srv_name} for {START_LIMIT:g} s")
        context.asyncio_loop.call_soon_threadsafe(
            context.emit_event_sync, _transition(node, Transition.TRANSITION_CONFIGURE)
        )

    @staticmethod
    def _answers(client: Any) -> bool:
        answered = threading.Event()
        future = client.call_async(GetState.Request())
        future.add_done_callback(lambda _: answered.set())
        return answered.wait(ASK_AGAIN)

    def _on_transition(self, context: LaunchContext, node: LifecycleNode) -> list[LaunchDescriptionEntity]:
        event = context.locals.event
        self._state = event.goal_state
        if context.is_shutdown or not self._starting:
            return []
        if (event.start_state, event.goal_state) == ("configuring", "inactive"):
            context.emit_event_sync(_transition(node, Transition.TRANSITION_ACTIVATE))
        elif event.goal_state == "active":
            self._starting = False
        elif event.goal_state in ("unconfigured", "inactive", "errorprocessing", "finalized"):
            what = "configured" if event.start_state == "configuring" else "activated"
            raise LaunchFailed(f"{self._name} could not be {what}: {self._reason or 'see its error above'}")
        return []

    def _on_stderr(self, event: Event) -> None:
        for line in event.text.decode(errors="replace").splitlines():
            if match := _ERROR_LINE.search(line):
                self._reason = match["text"] or match["plain"]

    # -- the end of a process ----------------------------------------------------------------------------------------

    def on_exit(self, event: Event, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        """Let launch respawn the process, or end the launch: quietly where the process ended well.

        Raises:
            LaunchFailed: it died, or refused its command line, and is not started again.
        """
        if context.is_shutdown:  # a second shutdown of one launch makes launch_ros fail
            return []
        code = event.returncode
        if code == 0:
            return [Shutdown(reason=f"the node {self._name} has ended")]
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        died = f"the process of {self._name} died {how}" + (f": {self._reason}" if self._reason else "")
        if code == REFUSED or self._process > self._respawns:
            again = f", {self._respawns} times respawned" if self._respawns and code != REFUSED else ""
            raise LaunchFailed(died + again)
        self._starting = self._starting or (self._autostart and self._state == "active")
        then = "brought back to active" if self._starting else f"left unconfigured (it was {self._state})"
        return [LogInfo(msg=f"{died}; it is started again ({self._process} of {self._respawns}) and {then}")]


def _transition(node: LifecycleNode, number: int) -> ChangeState:
    return ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=number)
