"""Brings a lifecycle node to active after each start of its process, and decides when the launch ends.

Works on Jazzy and Kilted alike, since it asks for the transitions itself: Jazzy's LifecycleNode has no autostart.
Everything happens in the launch's own loop, by looks that never wait: launch_ros asks from threads of that loop's
executor, and one that was begun while the loop shut down kept the launch from ending.
An error that ends the launch is raised in an event: `launch` then shows it, ends what it started, and `ros2 launch`
exits with 1.

Whether a process that died is activated again depends on what its node was last: one that was active, or still on its
first way there, is; one that was deactivated by hand, or went to unconfigured by itself, is started and left alone.
"""

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import Callable

from launch import EventHandler, LaunchContext
from launch.actions import LogInfo, OpaqueFunction, RegisterEventHandler, Shutdown
from launch.event import Event
from launch.event_handlers import OnProcessIO, OnProcessStart, OnShutdown
from launch.launch_description_entity import LaunchDescriptionEntity
from launch_ros.actions import Node
from lifecycle_msgs.msg import Transition

from dysl_vla_ros.errors import DyslVlaError
from dysl_vla_ros.launching.lifecycle_link import LifecycleLink

START_LIMIT = 60.0  # s from the start of the process to its first answer: importing from a slow disk takes its time
LOOK_PERIOD = 0.05  # s between two looks at what the node says
ASK_AGAIN = 0.5  # s; a question that was asked before both sides had found each other is never answered
# s from a failed transition to the end of the launch: the node's reason comes another way, and a node that was told to
# end breaks its configure off, which is no failure.
FAIL_AFTER = 1.0
REFUSED = 2  # exit code of a program that did not like its command line: it would not the next time either
_ERROR_LINE = re.compile(r"\[(?:ERROR|FATAL)\] \[[\d.]+\] \[[^\]]*\]: (?P<text>.*)|^\w+: error: (?P<plain>.*)")


class LaunchFailed(DyslVlaError):
    """What was launched cannot work; ends the launch with exit code 1."""


class _Failed(Event):
    """The node could not be brought to active."""

    name = "dysl_vla_ros.launching.Failed"

    def __init__(self, why: str) -> None:
        self.why = why


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
        self._link: LifecycleLink | None = None  # while the launch runs
        self._ending: asyncio.Future[None] | None = None  # done when the launch ends
        self._starting = False  # on the way from the start of the process to active
        self._state = ""  # last seen
        self._reason = ""  # the node's last error, in its own words
        self._wanted: int | None = None  # transition to ask for
        self._answered = False  # the present process has said its state
        self._asked_at = 0.0  # s, monotonic: when it was last asked
        self._begun_at = 0.0  # s, monotonic: when the present process was started
        self._failure: tuple[float, Callable[[], str]] | None = None  # s, monotonic: when it counts, and what it is

    def handlers(self, node: Node) -> list[RegisterEventHandler]:
        """Return the event handlers that must be registered before the node is started."""
        return [
            RegisterEventHandler(handler)
            for handler in (
                OnProcessStart(target_action=node, on_start=lambda event, context: self._on_start(context, node)),
                OnProcessIO(target_action=node, on_stderr=self._on_stderr),
                OnShutdown(on_shutdown=self._on_shutdown),
                EventHandler(
                    matcher=lambda event: isinstance(event, _Failed),
                    entities=[OpaqueFunction(function=_fail)],
                ),
            )
        ]

    # -- the way to active -------------------------------------------------------------------------------------------

    def _on_start(self, context: LaunchContext, node: Node) -> None:
        self._process += 1
        self._starting = self._autostart if self._process == 1 else self._starting
        self._state, self._reason, self._wanted, self._failure = "unconfigured", "", None, None
        self._answered, self._asked_at, self._begun_at = False, 0.0, time.monotonic()
        if self._link is not None:
            self._link.forget_questions()
        elif not context.is_shutdown and self._ending is None:
            self._ending = context.asyncio_loop.create_future()
            context.add_completion_future(context.asyncio_loop.create_task(self._follow(context, node)))

    def _on_shutdown(self, event: Event, context: LaunchContext) -> None:
        if self._ending is not None and not self._ending.done():
            self._ending.set_result(None)

    async def _follow(self, context: LaunchContext, node: Node) -> None:
        """Look after the node until the launch ends. Raises nothing: `launch` may overlook what a task raises."""
        assert self._ending is not None, "made before this task"
        try:
            with contextlib.closing(LifecycleLink(node.node_name)) as self._link:
                while not context.is_shutdown:
                    self._look(context, self._link)
                    await asyncio.wait([self._ending], timeout=LOOK_PERIOD)
        except Exception as error:  # of rclpy; the node would wait for ever
            if not context.is_shutdown:
                context.emit_event_sync(_Failed(f"{self._name} cannot be supervised: {type(error).__name__}: {error}"))
        finally:
            self._link = None

    def _look(self, context: LaunchContext, link: LifecycleLink) -> None:
        """Hear what the node has said, and take the next step on its way to active."""
        now = time.monotonic()
        self._hear(link)
        if self._starting and not self._answered:
            # A service that is known is not enough: DDS goes on naming that of a killed process for 20 s, and what is
            # asked there is lost.
            if now - self._begun_at > START_LIMIT:
                self._fail_soon(lambda: f"{self._name} has not said its state for {START_LIMIT:g} s")
            elif now - self._asked_at > ASK_AGAIN:
                link.ask_for_state()
                self._asked_at = now
        if self._wanted is not None and link.ask_for(self._wanted):
            self._wanted = None
        if self._failure is not None and now > self._failure[0]:
            context.emit_event_sync(_Failed(self._failure[1]()))
            self._starting, self._failure = False, None

    def _hear(self, link: LifecycleLink) -> None:
        if (state := link.state()) and not self._answered:
            self._answered, self._state = True, state
            first_step = {"unconfigured": Transition.TRANSITION_CONFIGURE, "inactive": Transition.TRANSITION_ACTIVATE}
            if self._starting:
                self._wanted = first_step.get(state)  # None: somebody else was quicker
                self._starting = state != "active"
        refused = link.refused()
        for before, after in link.transitions():
            self._state = after
            if self._starting:
                self._moved(before, after)
        if refused and self._starting and self._state in ("unconfigured", "inactive"):
            self._not("configured" if self._state == "unconfigured" else "activated")

    def _moved(self, before: str, after: str) -> None:
        if (before, after) == ("configuring", "inactive"):
            self._wanted = Transition.TRANSITION_ACTIVATE
        elif after == "active":
            self._starting = False
        elif after in ("unconfigured", "inactive", "errorprocessing", "finalized"):
            self._not("configured" if before == "configuring" else "activated")

    def _not(self, done: str) -> None:
        self._fail_soon(lambda: f"{self._name} could not be {done}: {self._reason or 'see its error above'}")

    def _fail_soon(self, text: Callable[[], str]) -> None:
        if self._failure is None:
            self._failure = (time.monotonic() + FAIL_AFTER, text)

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
        if context.is_shutdown:  # a second shutdown of one launch makes launch_ros fail, where others use it
            return []
        if self._link is not None:
            self._hear(self._link)
        self._failure = None
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


def _fail(context: LaunchContext) -> None:
    if not context.is_shutdown:
        raise LaunchFailed(context.locals.event.why)
