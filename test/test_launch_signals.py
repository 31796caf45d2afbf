"""Signals to a launch, at whatever moment and by whatever way: all has ended 5 s later, and nothing complains.

Runs where `launch` and `launch_ros` are, but for what a node does with a signal by itself.
"""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import NodeProcess, ProcessId, RosPeer, descendants, is_alive, wait_until
from launched import COMPLAINT, END_LIMIT, WAYS, Launched, launched

pytestmark = pytest.mark.ros

needs_launch = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None,
    reason="`launch` and `launch_ros` are not on any package registry: run this test where ROS 2 is installed",
)
START_LIMIT = 60.0  # s until a node is active
FILES = ("dysl_vla.launch.py", "replay.launch.py", "demo.launch.py")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_checkpoint import make_tiny_checkpoint

    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@needs_launch
def test_a_launch_that_is_interrupted_anywhere_in_the_start_of_its_process_ends(
    ros_domain: int, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("interrupt_at_start.py")), "dysl_vla.launch.py"],
        capture_output=True,
        text=True,
        timeout=2 * START_LIMIT,
        check=False,
        env={**os.environ, "ROS_LOG_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "launches were interrupted" in output and "_on_start" in output, output
    assert "threads left: [" not in output.replace("threads left: []", ""), output
    assert not COMPLAINT.findall(output), output


@needs_launch
@pytest.mark.parametrize(
    ("number", "way"),
    [
        *((signal.SIGINT, way) for way in WAYS),
        *((number, way) for number in (signal.SIGTERM, signal.SIGHUP) for way in ("terminal", "launch alone, twice")),
    ],
    ids=str,
)
def test_a_launch_ends_all_by_whatever_signal_and_way(
    ros_domain: int, tmp_path: Path, checkpoint: Path, number: signal.Signals, way: str
) -> None:
    with launched(tmp_path, "dysl_vla.launch.py", f"checkpoint:={checkpoint}") as launch:
        launch.wait_for_output("process started")
        assert launch.interrupted(way, number) == 0


def loading(launch: Launched) -> ProcessId:
    """Return the node's process once it loads its policy."""
    launch.wait_for_output("process started")
    node = launch.node()
    wait_until(lambda: descendants(node.pid), START_LIMIT, "the policy worker")
    return node


@needs_launch
def test_a_policy_that_is_loaded_is_broken_off_without_a_complaint(
    ros_domain: int, tmp_path: Path, checkpoint: Path
) -> None:
    with launched(tmp_path, "dysl_vla.launch.py", f"checkpoint:={checkpoint}") as launch:
        loading(launch)
        assert launch.interrupted() == 0
        assert "configure was broken off: the node is ending" in launch.output


@needs_launch
def test_a_node_that_alone_is_told_to_end_while_it_loads_is_no_failed_launch(
    ros_domain: int, tmp_path: Path, checkpoint: Path
) -> None:
    with launched(tmp_path, "dysl_vla.launch.py", f"checkpoint:={checkpoint}") as launch:
        os.kill(loading(launch).pid, signal.SIGINT)
        assert launch.ends(END_LIMIT) == 0
        assert not COMPLAINT.findall(launch.output), launch.output


@needs_launch
def test_nothing_outlives_a_launch_that_is_killed(peer: RosPeer, tmp_path: Path, checkpoint: Path) -> None:
    with launched(tmp_path, "dysl_vla.launch.py", f"checkpoint:={checkpoint}") as launch:
        wait_until(lambda: peer.state("/dysl_vla", START_LIMIT) == "active", START_LIMIT, "the state active")
        assert len(launch.below()) >= 2, "the node and its policy worker"
        launch.process.kill()
        wait_until(lambda: not launch.below(), END_LIMIT, f"the end of {launch.below()}")


@needs_launch
def test_a_second_launch_in_one_process_is_interrupted_like_the_first_and_python_afterwards(
    ros_domain: int, tmp_path: Path
) -> None:
    program = """
import os, signal
from launch import LaunchDescription, LaunchService
from launch.actions import RegisterEventHandler
from launch.event_handlers import OnProcessStart
from run_launch_file import including
for number in (signal.SIGINT, signal.SIGTERM):
    service = LaunchService()
    kill = RegisterEventHandler(OnProcessStart(on_start=lambda *_: os.kill(os.getpid(), number)))
    service.include_launch_description(LaunchDescription([including("dysl_vla.launch.py", []), kill]))
    assert service.run() == 0
service = LaunchService()
service.include_launch_description(including("dysl_vla.launch.py", ["params_file:=nowhere"]))
assert service.run() == 1
try:
    os.kill(os.getpid(), signal.SIGINT)
    print("not interrupted")
except KeyboardInterrupt:
    print("interrupted")
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=START_LIMIT,
        check=False,
        cwd=Path(__file__).parent,
        env={**os.environ, "ROS_LOG_DIR": str(tmp_path)},
    )
    assert done.returncode == -signal.SIGTERM, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("interrupted") and "not interrupted" not in done.stdout, done.stdout


# -- a node by itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["vla_node", "sim_node", "bag_recorder"])
def test_a_signal_that_comes_before_python_has_begun_ends_a_node_quietly(ros_domain: int, program: str) -> None:
    """It is blocked, as a launch starts a node, and so waits until the program takes it."""
    number = signal.SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    try:
        node = NodeProcess(program)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with node:
        assert node.stop(number, END_LIMIT) == 0
        assert node.output == ""


def test_a_simulator_that_builds_its_scene_does_not_finish_it_first(ros_domain: int) -> None:
    pytest.importorskip("metaworld", reason="the simulator is not installed (requirements/simulation.txt)")
    with NodeProcess("sim_node", warm=False) as node:
        loaded = Path(f"/proc/{node.pid}/maps")
        wait_until(lambda: "mujoco" in loaded.read_text(), START_LIMIT, "the simulator's library")
        assert node.stop(signal.SIGINT, END_LIMIT) == 0
        assert "ready" not in node.output, node.output


# -- every moment of a start -----------------------------------------------------------------------------------------

STEP = 0.01  # s
AROUND = tuple(step * STEP for step in range(-3, 4))  # s from an event; before the first, nothing of ours runs
EVENTS = ("begun", "process started", "on the graph", "loading", "inactive", "active")


def wait_for_event(event: str, launch: Launched, watcher: RosPeer) -> None:
    """Wait until a start has come to ``event``, or the launch has ended."""
    texts = {"begun": "All log files", "process started": "process started"}
    if event in texts:
        launch.wait_for_output(texts[event])
    elif event == "on the graph":
        names = watcher.node.get_node_names
        wait_until(lambda: "dysl_vla" in names(), START_LIMIT, "the node on the graph")
    elif event == "loading":
        wait_until(lambda: len(launch.below()) >= 2, START_LIMIT, "the policy worker")
    else:
        watcher.wait_for(
            "/dysl_vla/transition_event", lambda seen: seen.goal_state.label == event, START_LIMIT, event
        )  # of the way from unconfigured to configuring a newcomer may not hear: DDS introduces it meanwhile


@pytest.fixture(scope="module")
def gaps(ros_domain: int, tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> dict[str, float]:
    """Seconds from each event to the next, in a start that nobody disturbs."""
    with (
        RosPeer() as watcher,
        launched(tmp_path_factory.mktemp("undisturbed"), "dysl_vla.launch.py", f"checkpoint:={checkpoint}") as launch,
    ):
        moments = [time.monotonic()]
        listen(watcher)
        for event in EVENTS:
            wait_for_event(event, launch, watcher)
            moments.append(time.monotonic())
        assert launch.interrupted() == 0
    return dict(zip(EVENTS, (after - before for before, after in zip(moments, moments[1:], strict=False)), strict=True))


def listen(watcher: RosPeer) -> None:
    from lifecycle_msgs.msg import TransitionEvent

    watcher.listen("/dysl_vla/transition_event", TransitionEvent)


@needs_launch
@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("event", EVENTS)
def test_a_launch_that_is_interrupted_around_any_event_of_its_start_has_ended_5_s_later(
    gaps: dict[str, float], tmp_path: Path, checkpoint: Path, event: str, way: str
) -> None:
    for offset in AROUND if EVENTS.index(event) else AROUND[len(AROUND) // 2 :]:
        folder = tmp_path / f"{offset:+.2f}"
        folder.mkdir()
        with RosPeer() as watcher, launched(folder, "dysl_vla.launch.py", f"checkpoint:={checkpoint}") as launch:
            listen(watcher)
            moment = time.monotonic()
            if offset < 0:  # from the event before, by the time that it took to this one
                for earlier in EVENTS[: EVENTS.index(event)]:
                    wait_for_event(earlier, launch, watcher)
                    moment = time.monotonic()
                moment += gaps[event] + offset
            else:
                wait_for_event(event, launch, watcher)
                moment = time.monotonic() + offset
            wait_until(lambda: time.monotonic() >= moment, START_LIMIT, "the moment")  # noqa: B023
            code = launch.interrupted(way)
            begun = "process started" in launch.output
            assert code == 0 or not begun, (offset, code, launch.output)


@needs_launch
@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("way", WAYS)
def test_every_launch_file_ends_at_every_half_second_of_its_start(
    ros_domain: int, tmp_path: Path, checkpoint: Path, file: str, way: str
) -> None:
    if file == "demo.launch.py":
        pytest.importorskip("metaworld", reason="the simulator is not installed (requirements/simulation.txt)")
    for halves in range(10):
        folder = tmp_path / str(halves)
        folder.mkdir()
        with launched(folder, file, f"checkpoint:={checkpoint}") as launch:
            launch.wait_for_output("process started")
            moment = time.monotonic() + halves / 2
            wait_until(lambda: time.monotonic() >= moment, START_LIMIT, "the moment")  # noqa: B023
            assert launch.interrupted(way) == 0, launch.output
            assert not [process for process in launch.below() if is_alive(process)]
