"""The lifecycle node ``dysl_vla``: a vision-language-action policy as a ROS 2 node that can be trusted to stop.

What each transition does, and what its outcome leads to:

- ``configure``: checks every setting, starts the policy worker, loads, warms up, subscribes. SUCCESS -> inactive;
  FAILURE -> unconfigured, the cause logged and in ``/diagnostics``; configure again when it is fixed.
- ``activate``: starts the control timer. SUCCESS -> active.
- ``deactivate``: one zero twist, then silence. SUCCESS -> inactive; ERROR, when the worker is lost or too many
  inferences failed -> errorprocessing -> unconfigured.
- ``cleanup``: ends the worker. SUCCESS -> unconfigured.
- ``shutdown``: both of these. SUCCESS -> finalized.
- ``on_error``: ends whatever is left. SUCCESS -> unconfigured.
"""

import functools
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidHandle
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from dysl_vla_ros.errors import DyslVlaError, SettingError
from dysl_vla_ros.nodes.console import Console
from dysl_vla_ros.nodes.diagnostics import Diagnostics
from dysl_vla_ros.nodes.executor import PatientExecutor, lanes
from dysl_vla_ros.nodes.lifecycle_guard import GuardedLifecycleNode, describe, spin, transition
from dysl_vla_ros.nodes.lifecycle_services import DEEP
from dysl_vla_ros.nodes.namesake import living_namesake
from dysl_vla_ros.nodes.outputs import RELIABLE
from dysl_vla_ros.nodes.parameters import INSTRUCTION, NodeParameters, Settings, without_effect
from dysl_vla_ros.nodes.program import REFUSED, run_program
from dysl_vla_ros.nodes.python_log import on_ros_log
from dysl_vla_ros.nodes.session import Session
from dysl_vla_ros.nodes.stop_request import StopRequest
from dysl_vla_ros.settings import RENAMED, old_names

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)
SWITCH_INTERVAL = 0.001  # s after which a busy thread lets another run; Python's 0.005 is a tenth of a control tick
END_LIMIT = 5.0  # s that a signal waits for a running transition


class VlaNode(GuardedLifecycleNode):
    """Plays a policy's chunks; see the module's text for the transitions.

    Args:
        lines_dropped: how many lines of its log have not reached the console, for ``/diagnostics``.
        node_arguments: for rclpy's ``Node``.
    """

    def __init__(self, lines_dropped: Callable[[], int] = lambda: 0, **node_arguments: Any) -> None:
        """Create the node, unconfigured: parameters, ``~/reset`` and ``/diagnostics`` are there from now on."""
        super().__init__("dysl_vla", **node_arguments)
        self._lines_dropped = lines_dropped
        self._session: Session | None = None
        self._control_timer: Any = None
        self._diagnostics_timer: Any = None
        self._told = ("", "")  # state and cause, as of the last message on /diagnostics
        self._parameters_of_node = NodeParameters(
            self, lambda: self.state != "unconfigured", self._on_parameters_changed
        )
        files = without_effect(sys.argv, self.get_fully_qualified_name())
        for warning in [*self._parameters_of_node.unknown_names(), *files]:
            self.get_logger().warning(warning)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        for kind, name, answer in ((Trigger, "~/reset", self._on_reset), (SetBool, "~/hold", self._on_hold)):
            group = MutuallyExclusiveCallbackGroup()
            self.create_service(kind, name, answer, qos_profile=DEEP, callback_group=group)
        self.guard_services()
        self._status = Diagnostics(self.get_fully_qualified_name())
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._diagnostics_timer = self.create_timer(
            self._parameters_of_node.settings.diagnostics.period,
            self.guarded("diagnostics")(self._publish_diagnostics),
            MutuallyExclusiveCallbackGroup(),
            self._steady,
        )

    # -- transitions -------------------------------------------------------------------------------------------------

    @transition(FAILURE)
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the policy; services are answered meanwhile."""
        self._parameters_of_node.require_valid()
        if other := living_namesake(self, self.state, lambda: self.ending):
            raise SettingError(
                f"{other}: both would command one arm; end it, or start this one with another name "
                "(-r __node:=NAME) or namespace"
            )
        session = Session(self, self._parameters_of_node)
        self._session = session
        try:
            if self.ending:  # `end` closes a session that it finds here; one that it could not find ends now
                raise DyslVlaError("the node is ending")
            session.open()
            described = session.description
            self.get_logger().info(
                f"configured: {described.family}, {described.layers_total} layers, "
                f"cameras {', '.join(described.cameras)}"
            )
        except BaseException:
            self._close_session()
            raise
        self.last_cause = ""
        return SUCCESS

    @transition(FAILURE)
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start playing: the first command goes out when the policy has answered the first instruction."""
        session = self._open_session()
        try:
            super().on_activate(state)
            session.loop.enter()
            self._control_timer = self.create_timer(
                1.0 / self._parameters_of_node.settings.control.rate,
                self.guarded("tick")(session.loop.tick),
                MutuallyExclusiveCallbackGroup(),
                self._steady,
            )
        except BaseException:  # no tick has run: nothing has moved, and nothing is published
            session.loop.abandon()
            raise
        return SUCCESS

    @transition(ERROR)
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the arm; ERROR where the error path was asked for."""
        self._leave_active("deactivated" if not self.failing else "error: see /diagnostics")
        super().on_deactivate(state)
        return ERROR if self.failing else SUCCESS

    @transition(ERROR)
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the worker."""
        self._close_session()
        return SUCCESS

    @transition(ERROR)
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the arm, end the worker, leave the graph but for what rclpy itself publishes.

        What fails on the way is told and keeps nothing else from ending: no state but finalized is left.
        """
        self.ending = True
        self._leave_and_close()
        self._do_all(self._publish_diagnostics, self._end_diagnostics)
        return SUCCESS

    @transition(FAILURE)
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End whatever is left: the way back to unconfigured."""
        self._leave_active("error: see /diagnostics")
        self._close_session()
        return SUCCESS

    def _open_session(self) -> Session:
        assert self._session is not None, "rclpy calls this in a configured node only"
        return self._session

    def _leave_active(self, reason: str) -> None:
        """Publish the zero twist that is owed, then end the ticks; what has failed is made up for by the next call."""
        if self._session is not None and self._session.is_open:
            self._session.leave_active(reason)
        if self._control_timer is not None:
            self.destroy_timer(self._control_timer)
            self._control_timer = None

    def _leave_and_close(self) -> None:
        """Stop the arm and end the worker, for good."""
        leave = functools.partial(self._leave_active, "shut down")
        self._do_all(leave, leave, self._close_session)  # twice: a zero twist that has failed is owed still

    def _do_all(self, *steps: Callable[[], None]) -> None:
        """Take each step of an end, whatever another one raises, which is told."""
        for step in steps:
            try:
                step()
            except Exception as error:
                self.note_cause(f"shutdown: {describe(error)}")

    def _end_diagnostics(self) -> None:
        timer, self._diagnostics_timer = self._diagnostics_timer, None
        if timer is not None:
            self.destroy_timer(timer)
        self.destroy_publisher(self._diagnostics)

    def _close_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            except Exception:
                session.close()  # what could not be ended in the first try: it keeps what is left
                raise
            del session
            gc.collect()  # its parts call one another; Python by itself would keep some sessions for a long time

    # -- callbacks -----------------------------------------------------------------------------------------------------

    def set_parameters_atomically(self, parameter_list: list["Parameter[Any]"]) -> SetParametersResult:
        """Set all or none; both parameter services come through here. Every fault is named, rclpy names the first."""
        if reason := self._parameters_of_node.refusal(parameter_list):
            return SetParametersResult(successful=False, reason=reason)
        return super().set_parameters_atomically(parameter_list)

    def on_fault(self, where: str, error: BaseException) -> None:
        """Stop the arm after an exception in a callback."""
        session = self._session
        if session is not None and session.is_open:
            session.loop.hear_fault(where, error)

    def _on_parameters_changed(self, before: Settings, given: frozenset[str]) -> None:
        settings = self._parameters_of_node.settings
        for warning in old_names({name: self.get_parameter(name).value for name in given & RENAMED.keys()}):
            self.get_logger().warning(warning)
        session = self._session
        text = settings.control.instruction
        # a file loaded as a whole repeats an empty one: that is no order to stop
        spoken = INSTRUCTION in given and (text or before.control.instruction)
        if spoken and session is not None and session.is_open and session.loop.active:
            session.loop.hear_instruction(text, INSTRUCTION)
        for timer, period in (
            (self._control_timer, 1.0 / settings.control.rate),
            (self._diagnostics_timer, settings.diagnostics.period),
        ):
            if timer is not None and timer.timer_period_ns != int(period * 1e9):
                timer.timer_period_ns = int(period * 1e9)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        session = self._session
        fault = session.loop.reset() if session is not None and session.is_open else f"the node is {self.state}"
        response.success = not fault
        response.message = fault or "new episode"
        return response

    def _on_hold(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        session = self._session
        response.success = session is not None and session.is_open
        if session is None or not session.is_open:
            response.message = f"the node is {self.state}: there is nothing to hold"
            return response
        session.loop.hold(request.data)
        response.message = "the arm is held still; inferences go on" if request.data else "released"
        return response

    def _publish_diagnostics(self) -> None:
        news = (self.state, self.last_cause)
        wanted = self._parameters_of_node.settings.diagnostics.while_inactive or self.state == "active"
        if not wanted and news == self._told:
            return
        session = self._session
        if session is not None and session.is_open:
            self._look_at_graph(session)
        message = self._status.build(
            self.state,
            self.last_cause,
            self._parameters_of_node.settings,
            dict(self.faults),
            self._lines_dropped(),
            session if session is not None and session.is_open else None,
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)
        self._told = news

    def _look_at_graph(self, session: Session) -> None:
        try:
            warnings = session.graph.look()
        except InvalidHandle:
            if session.is_open:
                raise
            return  # a transition has closed it meanwhile
        for warning in warnings:
            self.warn_throttled(warning)

    # -- end ---------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Go to finalized from any state, for a signal: a configure that runs is broken off."""
        self.ending = True
        session = self._session
        if session is not None and not session.is_open:
            session.client.close()
        if not self.transition_running.acquire(timeout=END_LIMIT):
            self.get_logger().error(f"a transition has not ended within {END_LIMIT:g} s; ending all the same")
            self._leave_and_close()
            return
        try:
            if self.state in ("unconfigured", "inactive", "active"):
                self.carry_out("shutdown", self.trigger_shutdown)
        finally:
            self.transition_running.release()
            if self.state != "finalized":
                self.on_shutdown(LifecycleState(state_id=0, label=self.state))


def main(arguments: list[str] | None = None) -> int:
    """Run the node until a stop signal, which stops the arm and ends with 0."""
    return run_program("vla_node", arguments, _run, ())


def _run(stop: StopRequest, console: Console) -> int:
    try:
        node = VlaNode(lambda: console.dropped)
    except Exception as error:  # rclpy's own for a name or a parameter; none of ours is worth a traceback either
        print(f"vla_node: error: {error}", file=sys.stderr)
        return REFUSED
    sys.setswitchinterval(SWITCH_INTERVAL)
    with on_ros_log(node.get_logger()):
        died = _spin_and_end(node, stop)
    if died:
        print(f"vla_node: error: the executor ended: {died[0]!r}", file=sys.stderr)
    return 1 if died else 0


def _spin_and_end(node: VlaNode, stop: StopRequest) -> list[BaseException]:
    """Spin until the node is to stop, then end it; return what has ended an executor before."""
    executors = lanes(node)
    died: list[BaseException] = []

    def keep_spinning(executor: PatientExecutor) -> None:
        try:
            spin(executor, lambda error: node.report_fault("executor", error))
        except Exception as error:  # it fails again and again; the arm must stop all the same
            died.append(error)
        stop.set()

    spinners = [threading.Thread(target=keep_spinning, args=[each], name="executor") for each in executors]
    for spinner in spinners:
        spinner.start()
    stop.wait()  # the main thread does nothing else, so that signals are noticed at once
    node.end()
    for executor in executors:
        executor.shutdown(timeout_sec=END_LIMIT)
    for spinner in spinners:
        spinner.join(END_LIMIT)
    node.destroy_node()
    return died


if __name__ == "__main__":
    sys.exit(main())
