"""The demo: real nodes over real DDS, its files, and that nothing is left of it however it ends."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from rich.console import Console

from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.demo import processes
from dysl_vla_ros.demo.processes import NodeEnded, NodeProcess
from dysl_vla_ros.demo.table import LiveTable, episode_line
from dysl_vla_ros.demo.video import PICTURE_HEIGHT, STRIP_HEIGHT, WIDTH, frames, write_video
from dysl_vla_ros.engines.onnx.exporting.export import export_checkpoint
from harness import ProcessId, descendants, install_prefix, is_alive, wait_until
from recorded_episodes import episode
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl
from warm_program import start

NODES = 3  # simulated robot, policy's node, policy worker


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    make_tiny_dysl(folder / "dysl", folder)
    export_checkpoint(folder)  # the demo computes with ONNX Runtime
    return folder


class Demo:
    """``dysl_vla demo`` as a process; nothing that it started outlives the ``with`` block of :func:`demo`."""

    def __init__(self, output: Path, log: Path, *arguments: object) -> None:
        self._log = log
        with self._log.open("wb") as log:
            self.process = start(
                [str(install_prefix() / "bin" / "dysl_vla"), "demo", "--headless", "--out", str(output)]
                + [str(argument) for argument in arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={name: value for name, value in os.environ.items() if name != "ROS_DOMAIN_ID"},
            )
        self.started: set[ProcessId] = set()

    @property
    def output(self) -> str:
        return self._log.read_text()

    def look(self) -> set[ProcessId]:
        """Note what runs below the demo at this moment."""
        self.started |= set(descendants(self.process.pid))
        return self.started

    def wait_for(self, text: str, limit: float) -> None:
        wait_until(lambda: self.look() and text in self.output, limit, f"{text!r} from the demo:\n{self.output}")

    def wait(self, limit: float) -> int:
        def ended() -> bool:
            self.look()
            return self.process.poll() is not None

        wait_until(ended, limit, f"the end of the demo:\n{self.output}")
        return int(self.process.returncode)

    def assert_nothing_left(self) -> None:
        assert len(self.started) >= NODES
        wait_until(
            lambda: not [process for process in self.started if is_alive(process)], 5.0, "the end of what it started"
        )


@contextlib.contextmanager
def demo(folder: Path, *arguments: object, out: str = "out") -> Iterator[Demo]:
    """Run a demo that writes to ``out`` in ``folder``."""
    running = Demo(folder / out, folder / "demo.txt", *arguments)
    try:
        yield running
    finally:
        running.look()
        running.process.kill()
        running.process.wait(10.0)
        for process in running.started:
            if is_alive(process):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)


@pytest.mark.ros
def test_a_demo_ends_by_itself_and_writes_report_video_and_summary(tmp_path, checkpoint, ros_domain):
    out = tmp_path / "out"
    arguments = ("--checkpoint", checkpoint, "--tasks", "reach", "door-open", "--episodes", 2, "--max-ticks", 15)
    arguments += ("--record", tmp_path / "bag")
    with demo(tmp_path, *arguments) as running:
        assert running.wait(150.0) == 0, running.output
        running.assert_nothing_left()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["complete"] and summary["runtime"] == "onnx"
    assert [task["instruction"] for task in summary["tasks"]] == ["reach the red marker", "open the door"]
    for task in summary["tasks"]:
        assert task["episodes"] == 2
        assert task["ticks_mean"] == 15
        assert task["inferences"] >= 8
        assert task["layers_total"] == 6
        assert 0 < task["layers_mean"] < 12
        assert task["timings"]["total"]["p50"] > 0
        assert sum(task["allow_points"][0]["counts"]) == task["inferences"]
    assert running.output.count("no success after 15 ticks") + running.output.count(": success after") == 4
    assert "open the door" in (out / "report.html").read_text()
    with av.open(str(out / "episode.mp4")) as video:
        assert video.streams.video[0].codec_context.pix_fmt == "yuv420p"
    assert f"recorded: {tmp_path / 'bag'}" in running.output
    with BagReader(tmp_path / "bag") as bag:
        assert not bag.damage
        assert bag.topics["/image"].count >= 60
        assert bag.topics["/dysl_vla/skip_report"].count >= summary["overall"]["inferences"]
        said = [message.message.data for message in bag.messages(["/instruction"])]
        assert list(dict.fromkeys(said)) == ["reach the red marker", "open the door"]
        last = list(bag.messages(["/dysl_vla/action"]))[-1].message
        assert last.stop_reason, "the zero twist at the end is in the bag"


@pytest.mark.ros
@pytest.mark.slow
def test_ctrl_c_ends_both_nodes_and_writes_what_was_played(tmp_path, checkpoint, ros_domain):
    out = tmp_path / "out"
    arguments = ("--checkpoint", checkpoint, "--tasks", "reach", "--episodes", 50, "--max-ticks", 20)
    with demo(tmp_path, *arguments) as running:
        running.wait_for("after", 90.0)
        running.process.send_signal(signal.SIGINT)
        assert running.wait(60.0) == 130, running.output
        running.assert_nothing_left()
    assert "Traceback" not in running.output
    summary = json.loads((out / "summary.json").read_text())
    assert not summary["complete"]
    assert 1 <= summary["tasks"][0]["episodes"] < 50
    assert (out / "report.html").exists()


@pytest.mark.ros
@pytest.mark.slow
def test_a_node_that_dies_ends_the_demo_with_its_name(tmp_path, checkpoint, ros_domain):
    with demo(tmp_path, "--checkpoint", checkpoint, "--tasks", "reach", "--max-ticks", 100000) as running:
        wait_until(lambda: len(running.look()) >= NODES, 90.0, "the worker")
        robot = next(p for p in running.started if b"sim_node" in Path(f"/proc/{p.pid}/cmdline").read_bytes())
        os.kill(robot.pid, signal.SIGKILL)
        assert running.wait(60.0) == 2, running.output
        running.assert_nothing_left()
    assert "sim_node ended with signal SIGKILL" in running.output
    assert "Traceback" not in running.output


@pytest.mark.ros
@pytest.mark.slow
def test_a_checkpoint_that_is_refused_ends_the_demo_with_the_nodes_own_reason(tmp_path, ros_domain):
    broken = make_tiny_checkpoint(tmp_path / "broken")
    weights = bytearray((broken / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (broken / "model.safetensors").write_bytes(weights)
    with demo(tmp_path, "--checkpoint", broken, "--tasks", "reach", "--runtime", "torch") as running:
        assert running.wait(90.0) == 2, running.output
    lines = [line for line in running.output.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert "vla_node could not configure" in lines[0]
    assert "model.safetensors" in lines[0]
    assert not (tmp_path / "out" / "summary.json").exists()


@pytest.mark.ros
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--checkpoint", "/nowhere/at/all"), ("checkpoint '/nowhere/at/all' is not a folder",)),
        (("--tasks", "juggle"), ("juggle", "drawer-open")),
        (("--episodes", "0", "--max-ticks", "-3"), ("--episodes", "--max-ticks")),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_line_before_anything_is_made(tmp_path, arguments, words):
    with demo(tmp_path, *arguments) as running:
        assert running.wait(30.0) == 2
    assert len(running.output.splitlines()) == 1, running.output
    assert all(word in running.output for word in words)
    assert not (tmp_path / "out").exists()


@pytest.mark.ros
def test_a_folder_for_the_bag_that_holds_something_is_refused_before_anything_is_made(tmp_path, checkpoint):
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "mine").write_text("")
    with demo(tmp_path, "--checkpoint", checkpoint, "--record", tmp_path / "bag") as running:
        assert running.wait(30.0) == 2
    assert len(running.output.splitlines()) == 1, running.output
    assert "is not empty" in running.output


@pytest.mark.ros
@pytest.mark.slow
def test_a_recorder_that_dies_does_not_end_the_demo_and_is_reported_at_its_end(tmp_path, checkpoint, ros_domain):
    arguments = ("--checkpoint", checkpoint, "--tasks", "reach", "--max-ticks", 20, "--record", tmp_path / "bag")
    with demo(tmp_path, *arguments) as running:
        wait_until(lambda: len(running.look()) > NODES, 90.0, "the worker")
        victim = next(p for p in running.started if b"bag_recorder" in Path(f"/proc/{p.pid}/cmdline").read_bytes())
        os.kill(victim.pid, signal.SIGKILL)
        assert running.wait(60.0) == 2, running.output
        running.assert_nothing_left()
    assert "the demo is whole, its recording is not" in running.output
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["complete"]


@pytest.mark.ros
def test_an_output_folder_that_cannot_be_made_is_named(tmp_path, checkpoint):
    (tmp_path / "file").write_text("")
    with demo(tmp_path, "--checkpoint", checkpoint, out="file/out") as running:
        assert running.wait(30.0) == 2
    assert "--out" in running.output
    assert len(running.output.splitlines()) == 1, running.output


def test_a_video_is_h264_in_yuv420p_and_has_every_picture(tmp_path):
    records = [episode(pictures=5), episode(pictures=0), episode(pictures=3, success=False)]
    assert write_video(tmp_path / "episode.mp4", records)
    with av.open(str(tmp_path / "episode.mp4")) as video:
        codec = video.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
        assert (codec.width, codec.height) == (WIDTH, PICTURE_HEIGHT + STRIP_HEIGHT)
        assert sum(1 for _ in video.decode(video=0)) == sum(len(list(frames(record))) for record in records)


def test_without_pictures_no_video_is_written(tmp_path):
    assert not write_video(tmp_path / "episode.mp4", [episode()])
    assert list(tmp_path.iterdir()) == []


def test_frames_show_which_layers_ran():
    record = episode(calls=[8] * 30, pictures=3)
    first, *_, last = frames(record)
    strip = slice(PICTURE_HEIGHT, PICTURE_HEIGHT + STRIP_HEIGHT)
    assert not np.array_equal(first[strip], last[strip])


def test_the_table_has_a_row_an_instruction_and_the_figures_of_the_running_episode():
    console = Console(width=110, record=True, file=io.StringIO())
    table = LiveTable(["reach the red marker", "open the door"], 2, console)
    ended = episode(instruction="reach the red marker", calls=[6] * 10)
    table.end(ended)
    running = episode(instruction="open the door", calls=[9] * 10)
    table.begin(running)
    console.print(table.render())
    text = console.export_text()
    assert "1 of 1" in text
    assert "6.0 of 24" in text
    assert "> open the door" in text
    assert "9.0 of 24" in text
    assert "20.0" in text


def test_a_plain_line_says_all_that_the_table_does():
    line = episode_line(episode(calls=[6] * 10, success=False, seed=10003))
    for words in (
        "reach the red point",
        "seed 10003",
        "no success",
        "10 ticks",
        "6.0 of 24",
        "20.0 Hz",
        "verified 10 %",
    ):
        assert words in line


def program_that(monkeypatch: pytest.MonkeyPatch, python: str) -> None:
    monkeypatch.setattr(processes, "program_command", lambda program: [sys.executable, "-u", "-c", python])


def test_a_node_that_ended_is_reported_with_the_last_error_it_logged(tmp_path, monkeypatch):
    python = (
        "print('[ERROR] [1.5] [sim]: no such thing; fix it'); print('[INFO] [1.6] [sim]: bye'); raise SystemExit(3)"
    )
    program_that(monkeypatch, python)
    match = "sim_node ended with exit code 3: no such thing; fix it"
    with (
        NodeProcess("sim_node", [], os.environ, tmp_path / "logs" / "sim_node.log") as node,
        pytest.raises(NodeEnded, match=match),
    ):
        wait_until(lambda: node.require_alive(), 10.0, "the end")


def test_a_node_that_does_not_listen_to_signals_is_ended_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "STOP_TIMES", ((signal.SIGINT, 0.2), (signal.SIGTERM, 0.2), (signal.SIGKILL, 5.0)))
    python = "import signal, time; signal.signal(2, signal.SIG_IGN); signal.signal(15, signal.SIG_IGN); print('deaf'); "
    program_that(monkeypatch, python + "time.sleep(60)")
    log = tmp_path / "sim_node.log"
    with NodeProcess("sim_node", [], os.environ, log) as node:
        wait_until(lambda: "deaf" in log.read_text(), 10.0, "the program's start")
        node.require_alive()
    with pytest.raises(NodeEnded, match="SIGKILL"):
        node.require_alive()


def test_the_demo_keeps_to_itself_unless_the_user_chose_a_domain(monkeypatch):
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE", raising=False)
    environment = processes.ros_environment()
    assert 1 <= int(environment["ROS_DOMAIN_ID"]) <= 101
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    assert processes.ros_environment()["ROS_DOMAIN_ID"] == "7"
