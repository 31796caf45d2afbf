"""The k-th failure of an end: every border of ``shutdown`` and of a stop signal's end fails once, in the real node.

After each of them the last twist is a zero where the arm was moving, one ERROR names the border, the program ends upon
a stop signal within the usual time, and no worker is left. Every failure takes a node of its own; see
:mod:`failing_borders`. A border that is crossed several times fails at the first and at the last.
"""

import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from border_sweep import (
    DEATH,
    IN_A_SERVICE,
    OUTPUT,
    PRIMARY,
    STOPPED,
    UNREACHED,
    Call,
    begins,
    comes_true,
    first_and_last_calls,
    parameters,
    sweep,
    workers,
    wrong_errors,
)
from failing_borders import FailingBorders
from harness import wait_until
from vla_rig import LIMIT, TWIST, Rig, is_zero, running_rig, wait_steadily

pytestmark = [pytest.mark.ros, pytest.mark.slow]

END = 10.0  # s that a program has to end
SHUTDOWN = (IN_A_SERVICE, DEATH, OUTPUT)
# What is the same from another state is swept from that one alone: telling the end, from unconfigured; closing, from
# inactive. Borders by the beginning of their names.
NODE = "nodes.vla_node.VlaNode"
TELLING = ("nodes.diagnostics.", f"{NODE}._publish_diagnostics", f"{NODE}._end_diagnostics")
CLOSING = ("worker.", "nodes.inputs.", "nodes.outputs.Outputs._destroy", f"{NODE}._close_session")
TELLERS = ("nodes.console.", "nodes.line_writer.")  # through which all is told: nobody tells that they fail
ALIKE = {"unconfigured": (), "inactive": TELLING, "active": TELLING + CLOSING}
SIGNALLED = ("run_program", DEATH, OUTPUT)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_checkpoint import make_tiny_checkpoint

    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@contextmanager
def brought_to(start: str, checkpoint: Path, borders: FailingBorders) -> Iterator[Rig]:
    with running_rig(parameters(checkpoint, borders), program=borders.program, end=False) as rig:
        rig.move() if start == "active" else rig.bring_to(start)
        yield rig


def errors_on_console(rig: Rig) -> list[str]:
    """Return what was logged as an ERROR, each with what belongs to it."""
    parts = re.split(r"^(?=\[[A-Z]+\] \[)", rig.node.output, flags=re.MULTILINE)
    return [part for part in parts if part.startswith("[ERROR]")]


def ended(rig: Rig, borders: FailingBorders) -> list[str]:
    """Return what is wrong about a node after its end."""
    wrong = []
    twists = rig.peer.received(TWIST)
    if twists and not comes_true(lambda: is_zero(rig.peer.received(TWIST)[-1]), STOPPED):
        wrong.append("the last twist is not zero")
    if not comes_true(lambda: not workers(rig, borders), STOPPED):
        wrong.append("the worker lives on")
    return wrong


def stop(rig: Rig, codes: Sequence[int] = (0,)) -> list[str]:
    """Send a stop signal; return what is wrong about what comes of it."""
    try:
        code = rig.node.stop(signal.SIGINT, END)
    except AssertionError:
        return [f"it has not ended within {END:g} s of SIGINT"]
    return [] if code in codes else [f"exit code {code}"]


def fail_in_shutdown(start: str, checkpoint: Path, borders: FailingBorders, call: Call) -> list[str]:
    """Let one call of the transition raise; return what is wrong afterwards."""
    borders.off()
    with brought_to(start, checkpoint, borders) as rig:
        borders.fail("node", call.site, SHUTDOWN, call.number - 1)
        begins(borders, "node")
        done = rig.change("shutdown")
        reached = comes_true(lambda: borders.fired("node"), 0.5)
        borders.off()
        if not reached:
            return [UNREACHED]
        goals = [state for state in PRIMARY if state != "active"]
        state = wait_until(lambda: (now := rig.state()) in goals and now, LIMIT, f"one of {goals} after {call}")
        wrong = [f"answered that it is done, and is {state}"] if done and state != "finalized" else []
        if start == "active" and not comes_true(lambda: is_zero(rig.peer.received(TWIST)[-1]), STOPPED):
            wrong.append(f"{state}, and the last twist is not zero")
        wrong += stop(rig) + ended(rig, borders)
        return wrong + wrong_errors(lambda: errors_on_console(rig), call)


def fail_in_signalled_end(checkpoint: Path, borders: FailingBorders, call: Call) -> list[str]:
    """Let one call raise of what follows a stop signal; return what is wrong afterwards."""
    borders.off()
    with brought_to("active", checkpoint, borders) as rig:
        borders.fail("node", call.site, SIGNALLED, call.number - 1)
        begins(borders, "node")
        wrong = stop(rig, codes=(0, 1))  # 1: what fails may be the end itself
        if not borders.fired("node"):
            return [UNREACHED]
        if call.site not in rig.node.output and not call.site.startswith(TELLERS):
            wrong.append(f"nothing names it: {rig.node.output[-300:]}")
        return wrong + ended(rig, borders)


def recorded(
    start: str, checkpoint: Path, borders: FailingBorders, within: Sequence[str], end: Callable[[Rig], object]
) -> dict[str, int]:
    """Return how often each border is crossed by an end."""
    borders.off()
    with brought_to(start, checkpoint, borders) as rig:
        borders.record("node", within)
        begins(borders, "node")
        end(rig)
        wait_steadily(0.2)  # for the record to be written
        return borders.recorded("node")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("start", ["unconfigured", "inactive", "active"])
def test_every_border_of_shutdown_fails_until_none_is_left(ros_domain, checkpoint, borders, start):
    crossed = recorded(start, checkpoint, borders, SHUTDOWN, lambda rig: rig.change("shutdown"))
    found = {site: count for site, count in crossed.items() if not site.startswith(ALIKE[start])}
    print(f"{len(crossed)} borders, of which {len(crossed) - len(found)} are swept from the state before", flush=True)
    assert found
    sweep(first_and_last_calls(found), lambda call: fail_in_shutdown(start, checkpoint, borders, call))


@pytest.mark.timeout(3600)
def test_every_border_of_a_signalled_end_fails_until_none_is_left(ros_domain, checkpoint, borders):
    """What the transition shutdown crosses as often is swept there."""
    shutdown = recorded("active", checkpoint, borders, SHUTDOWN, lambda rig: rig.change("shutdown"))
    crossed = recorded("active", checkpoint, borders, SIGNALLED, stop)
    found = {site: count for site, count in crossed.items() if count != shutdown.get(site)}
    print(f"{len(crossed)} borders, of which {len(crossed) - len(found)} are swept in shutdown", flush=True)
    assert found
    sweep(first_and_last_calls(found), lambda call: fail_in_signalled_end(checkpoint, borders, call))
