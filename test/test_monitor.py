"""`dysl_vla monitor`: what it shows is what a peer on the same topics counts; its state and view need no terminal."""

import contextlib
import io
import re
import signal
import subprocess
from types import SimpleNamespace

import pytest
from rich.console import Console

from dysl_vla_ros.monitor.kind import is_vla_node
from dysl_vla_ros.monitor.state import SILENCE, WINDOW, MonitorState, Surroundings
from dysl_vla_ros.monitor.view import picture, plain_line
from dysl_vla_ros.terminal.strips import ASCII, BLOCKS, bar, layers, sparkline
from harness import install_prefix, wait_until
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl
from vla_rig import ACTION, LIMIT, REPORT, gentle, running_rig
from warm_program import start

NODE = "/dysl_vla"


def report(**changes):
    values = {
        "episode": 1, "inference": 7, "layers_total": 6, "layer_calls": 4,
        "executed": [True, True, False, True, False, True],
        "block_first": [1, 4], "block_end": [3, 5], "allow_points": [2, 5], "controller_outputs": [0.8, float("nan")],
        "full_depth_reason": "", "verified": False, "verify_reason": "", "continuity": -0.1, "continuity_change": 0.01,
        "image_age_ms": 33.0, "convert_ms": 1.0, "transfer_ms": 2.0, "vision_ms": 3.0, "stack_ms": 10.0, "head_ms": 1.0,
        "verify_ms": 0.0, "total_ms": 17.0,
    }  # fmt: skip
    return SimpleNamespace(**values | changes)


def action(stop_reason=""):
    return SimpleNamespace(stop_reason=stop_reason)


def diagnostics(*statuses, state="active"):
    pair = SimpleNamespace(key="state", value=state)
    return SimpleNamespace(
        status=[SimpleNamespace(name=n, level=level, message=m, values=[pair]) for n, level, m in statuses]
    )


def running_state(seconds=4.0, rate=20.0):
    """A state that has heard a node at ``rate`` for ``seconds``; returns it and the time of the last message."""
    state = MonitorState(NODE)
    for number in range(int(seconds * rate)):
        now = number / rate
        state.hear_report(report(inference=number, verified=number % 10 == 9), now)
        state.hear_action(action(), now)
        state.hear_action(action(), now + 0.5 / rate)
    state.hear_diagnostics(diagnostics((f"{NODE[1:]}: inference", b"\x00", "running")), now)
    return state, now


def drawn(state, now, width=100, encoding="utf-8"):
    target = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(width=width, file=target, force_terminal=False, highlight=False, markup=False)
    console.print(picture(state, now, console))
    target.flush()
    return target.buffer.getvalue().decode(encoding)


def test_how_many_actions_are_played_is_shown_and_a_report_from_before_it_was_said_is_read():
    state, now = running_state()
    assert "of the chunk" not in drawn(state, now) + plain_line(state, now, ASCII)
    for number, words in ((1, "1 action of the chunk"), (4, "4 actions of the chunk")):
        state.hear_report(report(actions_to_play=number), now)
        assert words in drawn(state, now) and words in plain_line(state, now, ASCII)


# -- drawing -----------------------------------------------------------------------------------------------------------


def test_an_allow_point_stands_before_its_layer_and_a_closed_block_has_it_at_the_end():
    assert layers([True, False, False], BLOCKS, first=4, allow_point=5).plain == "█│··"
    assert layers([True, True, True], BLOCKS, first=4, allow_point=7).plain == "███│"
    assert layers([True, False], ASCII).plain == "#."


def test_a_sparkline_spans_its_values_and_marks_what_was_verified():
    line, marks = sparkline([0.0, 1.0, float("nan"), 0.5], [False, True, False, False], BLOCKS)
    assert (line.plain, marks.plain) == ("▁█ ▅", " ▲  ")
    assert sparkline([2.0, 2.0], [False, False], ASCII)[0].plain == "__"
    assert sparkline([], [], ASCII)[0].plain == ""


def test_a_bar_is_full_at_the_longest_and_empty_at_nothing():
    assert [bar(value, 8.0, 4, ASCII).plain for value in (8.0, 4.0, 0.0, float("nan"))] == ["####", "##", "", ""]


# -- state -------------------------------------------------------------------------------------------------------------


def test_rates_are_those_of_the_window_and_fall_to_zero_after_it():
    state, now = running_state()
    assert state.inferences.value(now) == pytest.approx(20.0)
    assert state.commands.value(now) == pytest.approx(40.0, rel=0.02)
    assert state.inferences.value(now + WINDOW + 0.1) == 0.0


def test_percentiles_of_verify_are_taken_over_verified_inferences_alone():
    state = MonitorState(NODE)
    state.hear_report(report(verify_ms=0.0), 0.0)
    assert "verify" not in state.timings(0.0)
    state.hear_report(report(verify_ms=9.0, verified=True), 0.1)
    assert state.timings(0.1)["verify"] == (9.0, 9.0, 9.0)
    assert state.timings(0.1)["stack"] == (10.0, 10.0, 10.0)


@pytest.mark.parametrize(
    ("node", "status", "ours"),
    [
        ("/dysl_vla", "dysl_vla: inputs", True),
        ("/left/dysl_vla", "/left/dysl_vla: inputs", True),
        ("/left/dysl_vla", "left/dysl_vla: inputs", True),
        ("/left/dysl_vla", "dysl_vla: inputs", False),  # another robot's
        ("/left/dysl_vla", "/right/dysl_vla: inputs", False),
        ("/dysl_vla", "camera: temperature", False),
    ],
)
def test_only_statuses_of_the_node_are_taken(node, status, ours):
    state = MonitorState(node)
    state.hear_diagnostics(diagnostics((status, 1, "stale")), 0.0)
    assert state.heard is ours
    assert [(it.name, it.level) for it in state.statuses] == ([("inputs", 1)] if ours else [])


def test_silence_is_noticed_and_so_is_the_return():
    state, now = running_state()
    assert not state.silent(now + SILENCE - 0.1)
    assert state.silent(now + SILENCE + 0.1)
    state.hear_action(action(), now + 10.0)
    assert not state.silent(now + 10.0)
    assert state.gaps == 1


def test_a_node_that_reports_seldom_is_not_taken_for_gone():
    state = MonitorState(NODE)
    for now in (0.0, 10.0, 20.0):
        state.hear_diagnostics(diagnostics(("dysl_vla: worker", 0, "none"), state="unconfigured"), now)
    assert not state.silent(29.0)
    assert state.silent(46.0)


# -- view --------------------------------------------------------------------------------------------------------------


def test_the_picture_has_a_bar_a_block_the_latency_split_continuity_and_statuses():
    state, now = running_state()
    text = drawn(state, now)
    for words in ("/dysl_vla", "active", "20.0 inferences/s", "40.0 commands/s", "image age 33 ms", "1-2",
                  "█│·", "·│", "4 of 6", "convert", "transfer", "vision", "stack", "head", "verify", "total",
                  "continuity -0.1", "▲", "no stop heard", "OK", "inference", "running"):  # fmt: skip
        assert words in text, words


def test_a_terminal_without_utf_8_gets_ascii():
    state, now = running_state()
    assert drawn(state, now, encoding="ascii").isascii()


def test_the_last_stop_stays_visible_and_the_worst_status_comes_first():
    state, now = running_state()
    state.hear_action(action("image: nothing for 0.31 s"), now)
    assert "stopped: image: nothing for 0.31 s" in drawn(state, now)
    state.hear_action(action(), now + 1.0)
    state.hear_diagnostics(diagnostics(("dysl_vla: worker", 0, "loaded"), ("dysl_vla: inputs", 2, "silent")), now + 1.0)
    text = drawn(state, now + 2.0)
    assert "last stop 2 s ago: image: nothing for 0.31 s" in text
    assert text.index("ERROR") < text.index("loaded")


def test_waiting_says_for_what_which_nodes_there_are_and_what_may_hide_it():
    state = MonitorState(NODE, Surroundings("7", "LOCALHOST", "rmw_fastrtps_cpp", ("/left/dysl_vla",)))
    text = " ".join(drawn(state, 0.0).split())
    for words in ("waiting for /dysl_vla", "/dysl_vla/skip_report", "/left/dysl_vla", "--node", "ROS_DOMAIN_ID 7",
                  "LOCALHOST hides other machines"):  # fmt: skip
        assert words in text, words
        assert words in plain_line(state, 0.0, ASCII)


def test_a_plain_line_says_what_the_picture_does():
    state, now = running_state()
    line = plain_line(state, now, ASCII)
    assert "\n" not in line
    for words in ("/dysl_vla active", "20.0 inferences/s", "4.0 of 6 [##.#.#]", "17.0 ms", "stack 10.0", "C -0.100",
                  "image 33 ms old", "no stop", "diagnostics OK"):  # fmt: skip
        assert words in line, words
    assert "has been silent for 9 s, last state active" in plain_line(state, now + 9.0, ASCII)


def test_a_node_is_known_by_its_reports_or_by_its_services():
    services = {"/a/change_state": ["lifecycle_msgs/srv/ChangeState"], "/a/reset": ["std_srvs/srv/Trigger"]}
    assert is_vla_node("/a", [("/a/skip_report", ["dysl_vla_ros/msg/SkipReport"])], {})
    assert is_vla_node("/a", [], services)
    assert not is_vla_node("/b", [("/tf", ["tf2_msgs/msg/TFMessage"])], services)


# -- the real command on a real node -----------------------------------------------------------------------------------


def command(*arguments, **options):
    return start(
        [str(install_prefix() / "bin" / "dysl_vla"), "monitor", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def figure(text, unit):
    return float(re.search(rf"([\d.]+) {unit}", text)[1])


@pytest.mark.slow  # DDS keeps a dead node on the graph for 20 s
@pytest.mark.ros
def test_it_hears_an_unconfigured_node_reads_the_rates_a_peer_counts_and_sees_the_node_go(ros_domain, tmp_path):
    checkpoint = make_tiny_checkpoint(tmp_path / "tiny")
    make_tiny_dysl(checkpoint / "dysl", checkpoint)
    with running_rig(gentle(checkpoint), end=False) as rig, contextlib.ExitStack() as stack:
        elsewhere = stack.enter_context(command("--once", "--plain", "--node", "nobody"))
        stack.callback(elsewhere.kill)
        text, fault = command("--once").communicate(timeout=LIMIT)
        assert "/dysl_vla  unconfigured" in text, fault
        assert "no inference heard yet" in text
        assert "none: the node is unconfigured" in text
        text, fault = elsewhere.communicate(timeout=LIMIT)
        assert elsewhere.returncode == 1, fault
        assert "waiting for /nobody" in text and "nodes of this kind on the graph: /dysl_vla" in text
        rig.move()
        lines = []
        monitor = stack.enter_context(command())  # no terminal: lines
        stack.callback(monitor.kill)
        while len(lines) < 5:  # the first ones may begin in the middle of a second
            lines.append(monitor.stdout.readline())
            assert lines[-1], monitor.stderr.read()
        counted = {
            unit: [record.arrival for record in rig.peer.records(topic)]
            for unit, topic in (("inferences/s", REPORT), ("commands/s", ACTION))
        }
        for unit, arrivals in counted.items():
            window = [arrival for arrival in arrivals if arrival > arrivals[-1] - WINDOW]
            wanted = (len(window) - 1) / (window[-1] - window[0])
            assert figure(lines[-1], unit) == pytest.approx(wanted, rel=0.1), (unit, lines)
        assert "/dysl_vla active" in lines[-1]
        assert re.search(r"layers [\d.]+ of 6 \[", lines[-1])
        rig.node.process.send_signal(signal.SIGKILL)
        while "has been silent for" not in lines[-1]:
            lines.append(monitor.stdout.readline())
            assert len(lines) < 40, lines
        monitor.send_signal(signal.SIGINT)
        wait_until(lambda: monitor.poll() is not None, LIMIT, "the end of the monitor")
        assert monitor.returncode == 0, monitor.stderr.read()
