"""Really launched: the way to active, the end, failures, respawn. Runs where `launch` and `launch_ros` are."""

import importlib.util
import os
import signal
from pathlib import Path

import pytest

from dysl_vla_ros.bags.reader import BagReader
from harness import RosPeer, descendants, install_prefix, wait_until
from launched import LIMIT, launched

pytestmark = [
    pytest.mark.ros,
    pytest.mark.skipif(
        importlib.util.find_spec("launch_ros") is None,
        reason="`launch` and `launch_ros` are not on any package registry: run this test where ROS 2 is installed",
    ),
]

CONFIGURE_LIMIT = 60.0  # s


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_checkpoint import make_tiny_checkpoint

    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize("file", ["dysl_vla.launch.py", "demo.launch.py", "replay.launch.py"])
def test_show_args_describes_every_argument(file: str) -> None:
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    from dysl_vla_ros.launching.arguments import REPLAY_ARGUMENTS, VLA_ARGUMENTS, demo_arguments

    source = PythonLaunchDescriptionSource(str(install_prefix() / "share/dysl_vla_ros/launch" / file))
    shown = {
        argument.name: argument
        for argument in source.try_get_launch_description_without_context().get_launch_arguments()
    }
    wanted = {"dysl_vla.launch.py": VLA_ARGUMENTS, "replay.launch.py": REPLAY_ARGUMENTS}.get(file) or demo_arguments()
    assert list(shown) == list(wanted)
    for name, argument in wanted.items():
        assert shown[name].description.startswith(argument.description)
        assert "".join(part.text for part in shown[name].default_value) == argument.default


# A killed process stays in the graph, for 20 s, of everyone who knew it, and a question may go to it: whoever asks the
# one that took its place is a newcomer.
def wait_for_state(peer: RosPeer, state: str, node: str = "/dysl_vla") -> None:
    wait_until(lambda: peer.state(node, CONFIGURE_LIMIT) == state, CONFIGURE_LIMIT, f"the state {state}")


def test_a_launch_configures_and_activates_and_leaves_nothing_behind(
    peer: RosPeer, tmp_path: Path, checkpoint: Path
) -> None:
    arguments = [f"checkpoint:={checkpoint}", "image:=/color/image_raw", "namespace:=left", "instruction:=1"]
    with launched(tmp_path, "dysl_vla.launch.py", *arguments) as launch:
        wait_for_state(peer, "active", "/left/dysl_vla")
        wait_until(lambda: peer.node.count_subscribers("/color/image_raw") == 1, LIMIT, "the camera's subscriber")
        assert peer.get_parameter("/left/dysl_vla", "model.checkpoint", LIMIT) == str(checkpoint)
        assert peer.get_parameter("/left/dysl_vla", "control.instruction", LIMIT) == "1", (
            "a text, whatever it reads like"
        )
        assert len(descendants(launch.process.pid)) >= 2, "the node and its policy worker"
        assert launch.interrupted() == 0, launch.output


def test_without_autostart_the_node_waits_unconfigured(peer: RosPeer, tmp_path: Path) -> None:
    with launched(tmp_path, "dysl_vla.launch.py", "autostart:=false") as launch:
        assert peer.state("/dysl_vla", LIMIT) == "unconfigured"
        assert launch.interrupted() == 0
        assert "configure" not in launch.output


def test_a_failed_configure_ends_the_launch_and_says_why(ros_domain: int, tmp_path: Path) -> None:
    with launched(tmp_path, "dysl_vla.launch.py", f"checkpoint:={tmp_path}/nowhere", "respawn:=true") as launch:
        assert launch.ends() == 1
        last = next(line for line in launch.output.splitlines() if "could not be configured" in line)
        assert f"{tmp_path}/nowhere" in last, "the node's own reason"
        assert "Traceback" not in launch.output


def test_a_node_that_refuses_its_command_line_is_not_started_again(ros_domain: int, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("/**:\n  ros__parameters: [\n")
    arguments = [f"params_file:={tmp_path}/broken.yaml", "respawn:=true"]
    with launched(tmp_path, "dysl_vla.launch.py", *arguments) as launch:
        assert launch.ends() == 1
        assert launch.output.count("process started") == 1
        assert "died with exit code 2" in launch.output


def test_a_wrong_argument_ends_the_launch_before_anything_starts(ros_domain: int, tmp_path: Path) -> None:
    with launched(tmp_path, "dysl_vla.launch.py", f"params_file:={tmp_path}/nowhere.yaml") as launch:
        assert launch.ends() == 1
        assert f"there is no file {tmp_path}/nowhere.yaml" in launch.output
        assert "process started" not in launch.output


def test_a_process_that_died_is_brought_back_to_active_a_set_number_of_times(
    peer: RosPeer, tmp_path: Path, checkpoint: Path
) -> None:
    arguments = [f"checkpoint:={checkpoint}", "respawn:=true", "respawn_max:=1"]
    with launched(tmp_path, "dysl_vla.launch.py", *arguments) as launch:
        wait_for_state(peer, "active")
        first = launch.node()
        os.kill(first.pid, signal.SIGKILL)
        launch.wait_for_output("died by SIGKILL; it is started again (1 of 1) and brought back to active")
        launch.wait_for_output("process started", times=2)
        with RosPeer() as newcomer:
            wait_for_state(newcomer, "active")
        assert launch.node() != first
        os.kill(launch.node().pid, signal.SIGKILL)
        assert launch.ends() == 1
        assert "died by SIGKILL, 1 times respawned" in launch.output


def test_a_node_that_went_to_unconfigured_by_itself_is_never_brought_back(
    peer: RosPeer, tmp_path: Path, checkpoint: Path
) -> None:
    with launched(tmp_path, "dysl_vla.launch.py", f"checkpoint:={checkpoint}", "respawn:=true") as launch:
        wait_for_state(peer, "active")
        (worker,) = descendants(launch.node().pid)
        os.kill(worker.pid, signal.SIGKILL)
        wait_for_state(peer, "unconfigured")
        os.kill(launch.node().pid, signal.SIGKILL)  # now the process dies as well
        launch.wait_for_output("left unconfigured (it was unconfigured)")
        launch.wait_for_output("process started", times=2)
        with RosPeer() as newcomer:
            assert newcomer.state("/dysl_vla", LIMIT) == "unconfigured"
            # what is configured by hand the launch does not activate, and what fails by hand does not end it
            assert newcomer.change_state("/dysl_vla", "configure", CONFIGURE_LIMIT)
            assert newcomer.change_state("/dysl_vla", "cleanup", LIMIT)
            taken, reason = newcomer.set_parameters("/dysl_vla", {"model.checkpoint": str(tmp_path)}, LIMIT)
            assert taken, reason
            assert not newcomer.change_state("/dysl_vla", "configure", CONFIGURE_LIMIT)
            assert newcomer.state("/dysl_vla", LIMIT) == "unconfigured"
        assert launch.process.poll() is None
        assert launch.interrupted() == 0


def test_a_replay_runs_on_the_recordings_time_in_a_namespace_of_its_own(
    peer: RosPeer, tmp_path: Path, checkpoint: Path
) -> None:
    with launched(tmp_path, "replay.launch.py", f"checkpoint:={checkpoint}") as launch:
        wait_for_state(peer, "active", "/replay/dysl_vla")
        assert peer.get_parameter("/replay/dysl_vla", "use_sim_time", LIMIT) is True
        assert peer.node.count_subscribers("/image") == 1
        assert launch.interrupted() == 0


def test_the_demo_moves_the_simulated_arm(peer: RosPeer, tmp_path: Path, checkpoint: Path) -> None:
    pytest.importorskip("metaworld", reason="the simulator is not installed (requirements/simulation.txt)")
    from dysl_vla_ros.msg import SceneState

    peer.listen("/arm/sim/state", SceneState)
    arguments = [f"checkpoint:={checkpoint}", "namespace:=arm", "task:=push", "instruction:=push the puck"]
    arguments.append(f"record:={tmp_path}/bag")
    with launched(tmp_path, "demo.launch.py", *arguments) as launch:
        wait_for_state(peer, "active", "/arm/dysl_vla")
        state = peer.wait_for("/arm/sim/state", lambda state: state.commanded, LIMIT, "a commanded arm")
        assert state.task == "push"
        assert launch.interrupted() == 0
    with BagReader(tmp_path / "bag") as bag:
        recorded = {topic for topic, info in bag.topics.items() if info.count}
        assert not bag.damage
    assert {"/arm/image", "/arm/dysl_vla/action", "/arm/dysl_vla/instruction", "/arm/sim/state"} <= recorded
