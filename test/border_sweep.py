"""What the sweeps over failing borders share: see :mod:`failing_borders` for what a border is."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from failing_borders import FailingBorders
from harness import descendants, wait_until
from vla_rig import LIMIT, Rig, gentle

ROSOUT = "/rosout"
ERROR = 40  # rcl_interfaces/Log
PRIMARY = ("unconfigured", "inactive", "active", "finalized")
STOPPED = 3.0  # s in which a stop has been received, or a process is gone
READY = 60.0  # s for torch and transformers to be imported, once
SELDOM = 0.2  # share of the borders that need not come by again: of a rare branch
UNREACHED = "was not reached"
IN_A_SERVICE = "_on_change_state"  # where a transition runs, and beside it in threads of the worker's client:
BIRTH, DEATH, OUTPUT = "_live", "_bury", "_forward"


class Call(NamedTuple):
    """One call over a border."""

    site: str
    number: int = 1  # of the calls over it since the order
    of: int = 1

    def __str__(self) -> str:
        return self.site + (f", call {self.number} of {self.of}" if self.of > 1 else "")


def every_call(recorded: Mapping[str, int]) -> list[Call]:
    """Return each call that was recorded."""
    return [Call(site, number + 1, count) for site, count in recorded.items() for number in range(count)]


def first_and_last_calls(recorded: Mapping[str, int]) -> list[Call]:
    """Return two calls at most over each border: what lies between them has the same caller and stage."""
    return [call for call in every_call(recorded) if call.number in (1, call.of)]


def parameters(checkpoint: Any, borders: FailingBorders) -> dict[str, Any]:
    """Return the parameters of a node whose borders fail: a late message is no fault here."""
    return gentle(checkpoint) | {
        "model.python": borders.python, "model.load_timeout": 60.0, "safety.max_arrival_age": 2.0,
    }  # fmt: skip


def sweep(calls: Iterable[Call], fail: Callable[[Call], list[str]]) -> None:
    """Let each fail, and tell of all together what is wrong."""
    began, wrong, count = time.monotonic(), {}, 0
    for call in calls:
        count += 1
        start = time.monotonic()
        if complaint := fail(call):
            wrong[call] = complaint
        print(f"{time.monotonic() - start:5.1f} s  {call}  {complaint or ''}", flush=True)
    seldom = [call for call, complaint in wrong.items() if complaint == [UNREACHED]]
    print(f"{count} calls in {time.monotonic() - began:.0f} s, {len(seldom)} not reached again", flush=True)
    faults = {call: complaint for call, complaint in wrong.items() if call not in seldom}
    assert not faults, "\n".join(f"{call}: {'; '.join(complaint)}" for call, complaint in faults.items())
    assert len(seldom) <= max(1, SELDOM * count), f"{len(seldom)} were not reached again: {list(map(str, seldom))}"


def begins(borders: FailingBorders, who: str) -> None:
    """Wait until the order is obeyed."""
    wait_until(lambda: borders.obeyed(who), LIMIT, "the order")


def wrong_errors(told: Callable[[], Sequence[str]], call: Call) -> list[str]:
    """Return what is wrong about the ERRORs that were logged: there is to be one, and it names the border."""
    comes_true(told, STOPPED)
    texts = told()
    if len(texts) == 1 and call.site in texts[0]:
        return []
    return [f"{len(texts)} ERRORs: {[text[:100] + ' ... ' + text[-150:] for text in texts]}"]


def errors(rig: Rig, after: int) -> list[str]:
    """Return the ERRORs on /rosout after so many lines of log."""
    return [log.msg for log in rig.peer.received(ROSOUT)[after:] if log.level >= ERROR]


def workers(rig: Rig, borders: FailingBorders) -> list[Any]:
    """Return every process that a worker is, or was to be."""
    return rig.node.children() + descendants(borders.workers.pid)


def comes_true(condition: Callable[[], object], limit: float) -> bool:
    """Wait for a condition; return whether it has come true in time."""
    try:
        wait_until(condition, limit, "a condition")
    except AssertionError:
        return False
    return True
