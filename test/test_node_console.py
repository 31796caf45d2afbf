"""A console that takes nothing stops nobody: not the ticks, not the services, not the way out."""

import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from faulty_worker import FaultyWorker
from harness import NodeProcess, RosPeer, wait_until
from vla_rig import ACTION, DIAGNOSTICS, LIMIT, NODE, TWIST, Rig, gentle, is_zero, running_rig

pytestmark = pytest.mark.ros

LINES = 12_000  # of 100 characters: more than the pipe of the node and the queues behind it hold
END_LIMIT = 5.0  # s from SIGTERM to the end, whatever the console does


class FullPipe:
    """A console that takes nothing until :meth:`drain`."""

    def __init__(self) -> None:
        self._exit, self.entrance = os.pipe()
        fcntl.fcntl(self.entrance, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.entrance, False)
        for size in (4096, 1):
            try:
                while True:
                    os.write(self.entrance, b"\n" * size)
            except BlockingIOError:
                pass
        os.set_blocking(self.entrance, True)  # this is of the pipe's end, and the node inherits it
        self.text = b""
        self._thread = threading.Thread(target=self._read, daemon=True)

    def drain(self) -> None:
        """Take everything from now on."""
        self._thread.start()

    def _read(self) -> None:
        while data := os.read(self._exit, 1 << 16):
            self.text += data

    def close(self) -> None:
        os.close(self.entrance)
        if self._thread.ident:
            self._thread.join(LIMIT)
        os.close(self._exit)


@pytest.fixture
def console() -> Iterator[FullPipe]:
    pipe = FullPipe()
    yield pipe
    pipe.close()


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyWorker:
    return FaultyWorker(tmp_path)


def test_a_console_that_takes_nothing_changes_nothing_but_the_lines_that_are_dropped(
    ros_domain, faulty, console, tmp_path
):
    from tiny_checkpoint import make_tiny_checkpoint

    parameters = gentle(make_tiny_checkpoint(tmp_path / "checkpoint")) | {"model.python": faulty.python}
    environment = {"ROS_LOG_DIR": str(tmp_path / "log")}
    with running_rig(parameters, environment, end=False, console=console.entrance) as rig:
        rig.move()
        faulty.set("chatter", lines=LINES)
        rig.wait_for_status("worker", lambda status: dropped(status) > 0, "dropped lines")
        faulty.set("raise", times=1)  # and one that the node itself logs, within the reply's callback
        rig.wait_for_stop("inference failed")
        rig.wait_for_motion()
        assert not rig.change("configure"), "answered while nothing can be written"
        assert rig.set(guidance__step=0.02) == (True, "")
        rig.peer.wait_for(DIAGNOSTICS, None, LIMIT, "diagnostics", rig.heard(DIAGNOSTICS))
        before = rig.heard(ACTION)
        rig.node.process.send_signal(signal.SIGTERM)
        assert rig.node.wait(END_LIMIT) == 0
        assert_one_zero_twist(rig, before)
    text = "".join(path.read_text() for path in (tmp_path / "log").glob("vla_node_*.log"))
    assert "inference failed: unexpected: RuntimeError: a fault to order" in text, "the log file has it all the same"


@pytest.mark.slow
def test_once_the_console_takes_lines_again_they_come_in_order_and_the_gap_is_named(
    ros_domain, faulty, console, tmp_path
):
    from tiny_checkpoint import make_tiny_checkpoint

    parameters = gentle(make_tiny_checkpoint(tmp_path / "checkpoint")) | {"model.python": faulty.python}
    with running_rig(parameters, console=console.entrance) as rig:
        rig.move()
        faulty.set("chatter", lines=LINES, times=1)
        rig.wait_for_status("worker", lambda status: dropped(status) > 0, "dropped lines")
        console.drain()
        wait_until(lambda: b"dropped here: the console did not take them" in console.text, LIMIT, "the gap's line")
    numbers = [int(line.split()[2]) for line in console.text.splitlines() if line.startswith(b"[policy worker] 0")]
    assert numbers == sorted(numbers) and numbers[0] == 0 and 0 < len(numbers) < LINES


@pytest.mark.parametrize("program", ["sim_node", "bag_recorder"])
def test_the_other_programs_work_and_end_on_such_a_console(ros_domain, console, tmp_path, program):
    parameters = {"folder": str(tmp_path / "bag")} if program == "bag_recorder" else {}
    with NodeProcess(program, parameters, console=console.entrance) as process, RosPeer() as peer:
        topic = "/diagnostics" if program == "bag_recorder" else "ee_pose"
        from diagnostic_msgs.msg import DiagnosticArray
        from geometry_msgs.msg import PoseStamped
        from rclpy.qos import qos_profile_sensor_data

        peer.listen(topic, DiagnosticArray if program == "bag_recorder" else PoseStamped, qos_profile_sensor_data)
        peer.wait_for(topic, None, LIMIT, "its first message")
        process.process.send_signal(signal.SIGTERM)
        assert process.wait(END_LIMIT) == 0


def test_what_is_logged_reaches_rosout_the_console_and_the_log_file(ros_domain, peer, tmp_path):
    from rcl_interfaces.msg import Log

    peer.listen("/rosout", Log)
    with NodeProcess("vla_node", {"guidance.windov": 3}, environment={"ROS_LOG_DIR": str(tmp_path)}) as node:
        peer.wait_for_publisher("/rosout", LIMIT)
        assert not peer.change_state(NODE, "configure", LIMIT)
        peer.wait_for("/rosout", lambda log: "model.checkpoint is empty" in log.msg, LIMIT, "the fault")
        node.wait_for_output("model.checkpoint is empty", LIMIT)
        assert node.stop(signal.SIGINT, LIMIT) == 0
        (file,) = tmp_path.glob("vla_node_*.log")
        assert file.read_text() == node.output
        assert "guidance.windov is unknown" in node.output and "[WARN]" in node.output


def dropped(status) -> int:
    return int(next(pair.value for pair in status.values if pair.key == "log lines dropped"))


def assert_one_zero_twist(rig: Rig, before: int) -> None:
    """Assert that from action ``before`` on there is motion and, at the end, exactly one zero twist."""
    wait_until(lambda: rig.peer.received(ACTION)[-1].stop_reason == "shut down", LIMIT, "the last action")
    reasons = [action.stop_reason for action in rig.peer.received(ACTION)[before:]]
    assert reasons.count("shut down") == 1 and reasons[-1] == "shut down"
    assert is_zero(rig.peer.received(TWIST)[-1])
