"""What rclpy does with exceptions and lifecycle transitions, made harmless.

Measured with rclpy of Kilted (9.1.2) and Jazzy (7.1.6); what is private stands in `rclpy_private`:

- an exception in a transition callback is swallowed without a word: :func:`transition` logs it, keeps the cause and
  returns FAILURE or ERROR on purpose;
- a transition that is not allowed now, or a second one while the first runs, ends the executor on Jazzy: what is not
  possible is never tried (:meth:`GuardedLifecycleNode._change_state`);
- any exception of a service or subscription callback ends it on both: :func:`guard_services` and :func:`guarded`;
- from active, errorprocessing is reached only out of a transition: :meth:`GuardedLifecycleNode.fail` makes one.
"""

import functools
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import Transition as Transitions
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node

from dysl_vla_ros.errors import DyslVlaError
from dysl_vla_ros.nodes.executor import PatientExecutor
from dysl_vla_ros.nodes.lifecycle_services import LifecycleServices
from dysl_vla_ros.rclpy_private import StateMachine

PRIMARY = ("unconfigured", "inactive", "active", "finalized")
WARN_PERIOD = 30.0  # s
LABELS = {  # of the transitions that can be asked for, by number; each has a trigger_* of rclpy's
    Transitions.TRANSITION_CONFIGURE: "configure",
    Transitions.TRANSITION_ACTIVATE: "activate",
    Transitions.TRANSITION_DEACTIVATE: "deactivate",
    Transitions.TRANSITION_CLEANUP: "cleanup",
    Transitions.TRANSITION_UNCONFIGURED_SHUTDOWN: "shutdown",
    Transitions.TRANSITION_INACTIVE_SHUTDOWN: "shutdown",
    Transitions.TRANSITION_ACTIVE_SHUTDOWN: "shutdown",
}
HANDOVER = 0.5  # s that a transition waits in a primary state for the one before
SPIN_FAULTS = 10  # of an executor within ...
SPIN_FAULT_PERIOD = 10.0  # s: then it is broken, and the program ends

Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def transition(on_exception: TransitionCallbackReturn) -> Callable[[Transition], Transition]:
    """Wrap a transition callback: an exception is logged, kept as the cause, and leads to ``on_exception``.

    One that the end of the node has broken off is none: that was wanted.
    """

    def wrap(callback: Transition) -> Transition:
        @functools.wraps(callback)
        def guarded_transition(node: Any, state: LifecycleState) -> TransitionCallbackReturn:
            try:
                return callback(node, state)
            except Exception as error:
                name = callback.__name__.removeprefix("on_")
                if node.ending and name == "configure":
                    node.get_logger().info("configure was broken off: the node is ending")
                else:
                    node.note_cause(f"{name}: {describe(error)}")
                return on_exception

        return guarded_transition

    return wrap


def spin(executor: PatientExecutor, report: Callable[[Exception], None] | None = None) -> None:
    """Spin until the executor is shut down.

    An exception is told, and spinning goes on: without it no tick stops the arm and no service answers. That may be
    done with our own executors alone: rclpy's may refuse a second ``spin``.

    Args:
        executor: spun in this thread.
        report: stops the arm and tells; None: the first exception is raised.

    Raises:
        Exception: what the executor raised, when it has done so :data:`SPIN_FAULTS` times within a period.
    """
    latest: deque[float] = deque(maxlen=SPIN_FAULTS)
    while True:
        try:
            executor.spin()
            return
        except Exception as error:
            latest.append(time.monotonic())
            if report is None or len(latest) == SPIN_FAULTS and latest[-1] - latest[0] < SPIN_FAULT_PERIOD:
                raise
            report(error)


def describe(error: BaseException) -> str:
    """Return an error as one text: a user's mistake in its own words, our own with the traceback."""
    if isinstance(error, DyslVlaError):
        return str(error)
    return "".join(traceback.format_exception(error)).strip()


class GuardedLifecycleNode(LifecycleNodeMixin, Node):
    """A lifecycle node that a forbidden transition, an exception or a broken request leaves alive."""

    def __init__(self, name: str, **node_arguments: Any) -> None:
        """Create the node; its lifecycle services are answered while a transition runs."""
        self.transition_running = threading.Lock()
        self.ending = False  # for good: by a signal, or by the transition shutdown
        self._fatal_cause = ""
        self._last_log: dict[str, float] = {}
        self.last_cause = ""
        self.faults: dict[str, int] = {}
        Node.__init__(self, name, **node_arguments)
        LifecycleNodeMixin.__init__(self, enable_communication_interface=False)
        self._machine = StateMachine(self)
        LifecycleServices(self, self._machine, self._change_state)
        # The condition wakes the executor from any thread, the policy worker's among them.
        self._fatal = self.create_guard_condition(
            self.guarded("error path")(self._run_error_path), MutuallyExclusiveCallbackGroup()
        )

    # -- state -------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """The lifecycle state's label, for example ``inactive`` or ``configuring``."""
        return self._machine.state[1]

    def note_cause(self, cause: str) -> None:
        """Log why a transition or a step failed and keep it for ``/diagnostics``."""
        self.last_cause = cause
        self.get_logger().error(cause)

    # -- callbacks -----------------------------------------------------------------------------------------------------

    def guard_services(self) -> None:
        """Let every service of this node survive its own faults; call it when all services are made."""
        for service in self.services:
            service.callback = self._guard_service(service.srv_name, service.callback)

    def guarded(self, where: str) -> Callable[[Callable[..., Any]], Callable[..., None]]:
        """Make a decorator for a callback: an exception is logged, counted and told to :meth:`on_fault`."""

        def wrap(callback: Callable[..., Any]) -> Callable[..., None]:
            @functools.wraps(callback)
            def guarded_callback(*arguments: Any) -> None:
                try:
                    callback(*arguments)
                except Exception as error:
                    self.report_fault(where, error)

            return guarded_callback

        return wrap

    def report_fault(self, where: str, error: BaseException) -> None:
        """Count and log a fault of the named callback, then let the node stop the arm.

        None is what a callback finds that still runs while the node ends: what it was using is gone, as it should be.
        """
        if self.ending and isinstance(error, InvalidHandle):
            return
        self.faults[where] = self.faults.get(where, 0) + 1
        self.log_throttled(where, f"{where}: {describe(error)}")
        try:
            self.on_fault(where, error)
        except Exception as second:  # the executor must live whatever happens
            self.get_logger().error(f"{where}: stopping after a fault failed: {describe(second)}")

    def on_fault(self, where: str, error: BaseException) -> None:
        """Act on a fault in a callback; a node that moves something stops it here."""

    def log_throttled(self, key: str, text: str, period: float = 1.0) -> None:
        """Log an error, at most one for each ``key`` in ``period`` seconds of the steady clock."""
        now = time.monotonic()
        if now - self._last_log.get(key, -period) >= period:
            self._last_log[key] = now
            self.get_logger().error(text)

    def warn_throttled(self, text: str, period: float = WARN_PERIOD) -> None:
        """Log a warning that lasts, at most once in ``period`` seconds of the steady clock."""
        now = time.monotonic()
        if now - self._last_log.get(text, -period) >= period:
            self._last_log[text] = now
            self.get_logger().warning(text)

    def _guard_service(self, name: str, callback: Callable[..., Any]) -> Callable[..., Any]:
        def answer(request: Any, response: Any) -> Any:
            try:
                return callback(request, response)
            except Exception as error:  # a client's broken request is no reason to stop the arm
                self.faults[name] = self.faults.get(name, 0) + 1
                self.log_throttled(name, f"{name}: {describe(error)}")
                return type(response)()  # half a response would be sent as if it were whole

        return answer

    def _change_state(self, wanted: int | str) -> bool:
        """Carry out the transition of that number or label, unless another one runs or it is not possible now."""
        free = self.transition_running.acquire(blocking=False)
        if not free and self.state in PRIMARY:  # what has led here is about to end: who sees the state may ask
            free = self.transition_running.acquire(timeout=HANDOVER)
        if not free:
            self.get_logger().warning(f"transition {wanted} refused: another one is running ({self.state})")
            return False
        try:
            done = self.carry_out(str(LABELS.get(wanted, wanted)), lambda: self._trigger(wanted))
            return done == TransitionCallbackReturn.SUCCESS
        finally:
            self.transition_running.release()

    def _trigger(self, wanted: int | str) -> TransitionCallbackReturn:
        """Run the transition of that number or label, FAILURE where there is none now."""
        possible = {name: number for number, label, *_ in self._machine.transitions for name in (number, label)}
        if wanted not in possible:
            labels = [name for name in possible if isinstance(name, str)]
            self.get_logger().warning(
                f"a transition was refused: in the state {self.state} there are {', '.join(labels)}"
            )
            return TransitionCallbackReturn.FAILURE
        return self._triggers()[possible[wanted]]()

    def carry_out(self, name: str, trigger: Callable[[], TransitionCallbackReturn]) -> TransitionCallbackReturn:
        """Run one of rclpy's ``trigger_*`` to a primary state, whatever is raised on the way; it is told by ``name``.

        One that could not even leave active takes the error path: whoever asked for it wants the arm to stand still.
        The caller holds :attr:`transition_running`.
        """
        try:
            done = trigger()
        except Exception as error:
            cause = f"{name}: {describe(error)}"
            done = TransitionCallbackReturn.ERROR
            if self.state == "active":
                self.fail(cause)
            else:
                self.note_cause(cause)
        if self.state not in PRIMARY:
            self._leave_transition()
        return done

    def _leave_transition(self) -> None:
        """Go on to a primary state where rclpy has not: by errorprocessing, as after an error in the callback."""
        number, label = self._machine.state
        if label != "errorprocessing":
            self._machine.end_with(TransitionCallbackReturn.ERROR)
        outcome = self.on_error(LifecycleState(state_id=number, label=label))
        self._machine.end_with(outcome)

    def _triggers(self) -> dict[int, Callable[[], TransitionCallbackReturn]]:
        return {number: getattr(self, f"trigger_{label}") for number, label in LABELS.items()}

    # -- error path ------------------------------------------------------------------------------------------------

    def fail(self, cause: str) -> None:
        """Go to unconfigured through errorprocessing, from any thread and at once; the cause is kept."""
        if not self._fatal_cause:
            self._fatal_cause = cause
            self._fatal.trigger()

    @property
    def failing(self) -> bool:
        """Whether the error path was asked for and has not ended: ``on_deactivate`` then returns ERROR."""
        return bool(self._fatal_cause)

    def _run_error_path(self) -> None:
        with self.transition_running:  # a transition that runs has a limit: model.load_timeout
            cause = self._fatal_cause
            try:
                if cause and self.state == "active":
                    self.carry_out("deactivate", self.trigger_deactivate)
                elif cause and self.state == "inactive":
                    self.carry_out("cleanup", self.trigger_cleanup)
                if cause:
                    self.note_cause(cause)
            finally:
                self._fatal_cause = ""
