"""Every signal that asks for the end is a stop: one zero twist, a closed bag, exit code 0; nohup means it."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.stop_signals import STOP_SIGNALS
from harness import NodeProcess, RosPeer, install_prefix, wait_until
from test_node_console import assert_one_zero_twist
from vla_rig import ACTION, DIAGNOSTICS, LIMIT, gentle, running_rig

pytestmark = pytest.mark.ros

PROMISED = ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "ALRM", "XCPU")
FAULTS = ("SEGV", "BUS", "FPE", "ILL", "ABRT", "KILL", "STOP")


def test_the_promised_signals_are_stops_and_those_of_faults_are_not():
    names = {number.name.removeprefix("SIG") for number in STOP_SIGNALS}
    assert names >= set(PROMISED) and not names & set(FAULTS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_checkpoint import make_tiny_checkpoint

    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize(
    "number",
    [  # all of them share one handler
        pytest.param(number, marks=() if number == signal.SIGHUP else pytest.mark.slow) for number in STOP_SIGNALS
    ],
    ids=lambda number: number.name,
)
def test_a_stop_signal_is_one_zero_twist_and_exit_code_0(ros_domain, checkpoint, number):
    with running_rig(gentle(checkpoint), end=False, warm=False) as rig:
        rig.move()
        before = rig.heard(ACTION)
        assert rig.node.stop(number, LIMIT) == 0, rig.node.output
        assert_one_zero_twist(rig, before)
        assert "Traceback" not in rig.node.output


@pytest.mark.slow
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(ros_domain, checkpoint):
    with running_rig(gentle(checkpoint), warm=False, ignored=[signal.SIGHUP, signal.SIGQUIT]) as rig:
        rig.move()
        for number in (signal.SIGHUP, signal.SIGQUIT):
            rig.node.process.send_signal(number)
        after = rig.heard(DIAGNOSTICS)
        rig.peer.wait_for(DIAGNOSTICS, None, LIMIT, "a message after the signals", after)
        rig.wait_for_motion()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT], ids=lambda number: number.name)
def test_the_recorder_closes_its_bag(ros_domain, tmp_path, number):
    from std_msgs.msg import String

    with NodeProcess("bag_recorder", {"folder": str(tmp_path / "bag"), "topics": ["said"]}) as recorder:
        with RosPeer() as peer:
            peer.publisher("said", String)
            peer.wait_for_subscriber("said", LIMIT)
            peer.publish("said", String(data="once"))
            bag = tmp_path / "bag"
            wait_until(lambda: any(len(path.read_bytes()) > 500 for path in bag.glob("*.mcap")), LIMIT, "the message")
        assert recorder.stop(number, LIMIT) == 0, recorder.output
    assert "message_count: 1" in (bag / "metadata.yaml").read_text()
    with BagReader(bag) as reader:
        assert not reader.damage


def test_the_simulator_ends_upon_a_closed_terminal(ros_domain):
    with NodeProcess("sim_node") as simulator:
        simulator.wait_for_output("ready", LIMIT)
        assert simulator.stop(signal.SIGHUP, LIMIT) == 0, simulator.output


@pytest.mark.parametrize("program", ["vla_node", "sim_node", "bag_recorder"])
def test_a_signal_while_a_program_still_imports_ends_it_without_a_word(program, tmp_path):
    """The moment is held open: the program's own imports wait until the signal was sent."""
    (tmp_path / "held").mkdir()
    ready, go = tmp_path / "ready", tmp_path / "go"
    os.mkfifo(go)
    (tmp_path / "held" / "rclpy.py").write_text(f"open({str(ready)!r}, 'w').close()\nopen({str(go)!r}).read()\n")
    search = os.pathsep.join([str(tmp_path / "held"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [str(install_prefix() / "lib" / "dysl_vla_ros" / program)],
        env={**os.environ, "PYTHONPATH": search},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_until(ready.exists, LIMIT, "the import of rclpy")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert (process.returncode, output) == (0, b"")
