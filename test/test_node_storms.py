"""Storms of requests: each is answered, and neither the ticks nor the cameras wait for them."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from dysl_vla_ros.nodes.control_loop import WAITING_FOR_POLICY
from harness import wait_until
from machine import assert_in_time
from vla_rig import ACTION, LIMIT, NODE, TWIST, Rig, gentle, running_rig

pytestmark = pytest.mark.ros

RATE = 800.0  # requests a second
SECONDS = 3.0
PERIOD = 0.05  # s of a control tick
MARGIN = 0.1  # s, two ticks: without the lanes twists were 0.35 to 0.53 s apart on a quiet machine
AT_ONCE = 20
WINDOW = 500  # requests on their way at once; what a service keeps is 1000


@pytest.fixture(scope="module")
def rig(ros_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    from tiny_checkpoint import make_tiny_checkpoint

    with running_rig(gentle(make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint")))) as rig:
        rig.move()
        yield rig


def assert_steady(rig: Rig, after: int) -> None:
    """Assert that no twist, from message ``after`` on, was stamped too long behind the one before."""
    stamps = [stamp.sec + stamp.nanosec * 1e-9 for stamp in (each.header.stamp for each in rig.peer.received(TWIST))]
    to_steady = time.monotonic() - time.time()
    late = int(np.argmax(np.diff(stamps[after:]))) + after
    assert_in_time(stamps[late] + to_steady, stamps[late + 1] + to_steady, PERIOD, MARGIN, "the next twist")


class Storm:
    """Requests of one service at a rate, none of which waits for the answer to the one before."""

    def __init__(self, rig: Rig, kind: type, service: str) -> None:
        from dysl_vla_ros.nodes.lifecycle_services import DEEP

        rig.state()  # by now the node knows this peer's clients, and this one once it answers
        self._client = rig.peer.node.create_client(kind, service, qos_profile=DEEP)
        wait_until(self._client.service_is_ready, LIMIT, service)
        rig.peer._wait_until_known(NODE, time.monotonic() + LIMIT)
        self._lock = threading.Lock()
        self.answers: list[Any] = []

    def send(self, requests: list[Any], rate: float) -> None:
        began = time.monotonic()
        for number, request in enumerate(requests):
            pause = began + number / rate - time.monotonic()
            if pause > 0.0:
                threading.Event().wait(pause)
            wait_until(lambda sent=number: sent - len(self.answers) < WINDOW, LIMIT, "answers")
            self._client.call_async(request).add_done_callback(self._note)

    def _note(self, future: Any) -> None:
        with self._lock:
            self.answers.append(future.result())


def sets() -> tuple[type, str, Callable[[int], Any]]:
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter

    def request(number: int) -> Any:
        value = 0.01 + 0.001 * (number % 10)
        return SetParameters.Request(parameters=[Parameter("guidance.step", value=value).to_parameter_msg()])

    return SetParameters, "set_parameters", request


def holds() -> tuple[type, str, Callable[[int], Any]]:
    from std_srvs.srv import SetBool

    return SetBool, "hold", lambda number: SetBool.Request(data=False)


def states() -> tuple[type, str, Callable[[int], Any]]:
    from lifecycle_msgs.srv import GetState

    return GetState, "get_state", lambda number: GetState.Request()


@pytest.mark.parametrize(
    "what", [sets, pytest.param(holds, marks=pytest.mark.slow), pytest.param(states, marks=pytest.mark.slow)]
)
def test_a_storm_is_answered_and_the_arm_does_not_notice(rig, what):
    kind, name, request = what()
    storm = Storm(rig, kind, f"{NODE}/{name}")
    rig.wait_for_motion()
    actions, twists = rig.heard(ACTION), rig.heard(TWIST)
    count = int(RATE * SECONDS)
    storm.send([request(number) for number in range(count)], RATE)
    wait_until(lambda: len(storm.answers) == count, LIMIT, f"{count} answers")
    reasons = {action.stop_reason for action in rig.peer.received(ACTION)[actions:]}
    assert reasons <= {"", WAITING_FOR_POLICY}, "the cameras were heard; the policy shares the machine with the storm"
    assert_steady(rig, twists)


def test_transitions_asked_for_at_once_are_all_answered_and_one_of_them_is_carried_out(rig):
    from lifecycle_msgs.srv import ChangeState

    rig.bring_to("active")
    storm = Storm(rig, ChangeState, f"{NODE}/change_state")
    request = ChangeState.Request()
    request.transition.label = "deactivate"
    storm.send([request] * AT_ONCE, 1e6)
    wait_until(lambda: len(storm.answers) == AT_ONCE, LIMIT, f"{AT_ONCE} answers")
    assert sum(answer.success for answer in storm.answers) == 1
    assert rig.state() == "inactive"


def test_a_storm_of_instructions_and_resets_leaves_the_last_one_in_force(rig):
    from std_msgs.msg import String
    from std_srvs.srv import Trigger

    rig.move()
    storm = Storm(rig, Trigger, f"{NODE}/reset")
    twists = rig.heard(TWIST)

    def speak() -> None:
        for number in range(int(RATE)):
            rig.peer.publish("instruction", String(data=("push the puck", "open the drawer")[number % 2]))

    speaker = threading.Thread(target=speak)
    speaker.start()
    storm.send([Trigger.Request()] * int(RATE), RATE)
    speaker.join(LIMIT)
    wait_until(lambda: len(storm.answers) == int(RATE), LIMIT, "an answer to each reset")
    rig.wait_for_motion()
    rig.wait_for_status("inputs", lambda status: value(status, "instruction") == "open the drawer", "the last one")
    assert_steady(rig, twists)


def value(status: Any, key: str) -> str:
    return next(pair.value for pair in status.values if pair.key == key)
