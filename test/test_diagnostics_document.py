"""docs/diagnostics.md has every status, every key and every number of what the real nodes publish, and no others."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import NodeProcess, RosPeer
from vla_rig import DIAGNOSTICS, LIMIT, NODE, Rig, gentle, running_rig

pytestmark = pytest.mark.ros

PAGE = (Path(__file__).parents[1] / "docs" / "diagnostics.md").read_text(encoding="utf-8")
Keys = dict[str, set[str]]  # part -> keys


def rows(heading: str) -> list[list[str]]:
    """Return the cells of every table below a heading of the page, without the tables' own headings."""
    section = re.split(rf"^### {heading}$", PAGE, flags=re.MULTILINE)
    assert len(section) == 2, heading
    tables = re.split(r"^##", section[1], flags=re.MULTILINE)[0].strip().split("\n\n")
    lines = [line for table in tables if table.startswith("|") for line in table.splitlines()[2:]]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def documented(part: str) -> dict[str, str]:
    """Return key to unit as the page has them; a part of a name in <> stands for any text."""
    return {row[0].strip("`"): row[1] for row in rows(f"Values of {part}") if len(row) == 3}


def fits(pattern: str, key: str) -> bool:
    return re.fullmatch(re.sub(r"<\w+>", ".+", re.escape(pattern).replace(r"\<", "<")), key) is not None


def keys_of(messages: list[object]) -> Keys:
    found: Keys = {}
    for status in (status for message in messages for status in message.status):
        found.setdefault(status.name.partition(": ")[2], set()).update(pair.key for pair in status.values)
    return found


@pytest.fixture(scope="module")
def published(ros_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The keys of each status of a node that has been through all of its states, and through faults."""
    from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

    checkpoint = make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    make_tiny_dysl(checkpoint / "dysl", checkpoint)
    with running_rig(gentle(checkpoint) | {"control.ramp_in": 0.5}) as rig:
        refuse_a_request(rig)
        rig.move()
        rig.wait_for_status("inference", lambda status: has(status, "seam p95"), "seams")
        rig.robot.spoil = {"encoding": "8UC3"}
        rig.wait_for_status("inputs", lambda status: has(status, "/image last refusal"), "a refusal")
        rig.bring_to("inactive")
        return keys_of(rig.peer.received(DIAGNOSTICS))


@pytest.fixture(scope="module")
def recorded(ros_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The same of the recorder."""
    from diagnostic_msgs.msg import DiagnosticArray

    with RosPeer() as peer, NodeProcess("bag_recorder", {"folder": str(tmp_path_factory.mktemp("bags") / "bag")}):
        peer.listen(DIAGNOSTICS, DiagnosticArray)
        peer.wait_for(DIAGNOSTICS, None, LIMIT, "the recorder's status")
        return keys_of(peer.received(DIAGNOSTICS))


def has(status: object, key: str) -> bool:
    return any(pair.key == key for pair in status.values)


def refuse_a_request(rig: Rig) -> None:
    """Ask for what no client library can ask for: an exception in a callback of the node."""
    from rcl_interfaces.msg import Parameter, ParameterValue
    from rcl_interfaces.srv import SetParameters

    broken = Parameter(name="guidance.window", value=ParameterValue(type=200))
    rig.peer.call(f"{NODE}/set_parameters", SetParameters.Request(parameters=[broken]), LIMIT)


def differences(part: str, keys: set[str]) -> Iterator[str]:
    page = documented(part)
    for key in keys:
        patterns = [pattern for pattern in page if fits(pattern, key)]
        if len(patterns) != 1:
            yield f"{part}: {key!r} is published; the page has {patterns}"
        unit = re.search(r"\[(.+)\]$", key)
        if unit and patterns and page[patterns[0]] != unit[1]:
            yield f"{part}: {key!r} has the unit {page[patterns[0]]!r} on the page"
    for pattern in page:
        if not any(fits(pattern, key) for key in keys):
            yield f"{part}: {pattern!r} is on the page and never published"


def test_every_status_has_its_levels_and_its_values() -> None:
    from dysl_vla_ros.nodes.diagnostics import PARTS

    levels = {level for part in (*PARTS, "recording") for row in rows(part) for level in row[0].split(", ")}
    assert levels == {"OK", "WARN", "ERROR"}
    headings = re.findall(r"^### (?!Values of )(.+)$", PAGE, re.MULTILINE)
    assert headings == [*PARTS, "recording"]
    assert re.findall(r"^### Values of (.+)$", PAGE, re.MULTILINE) == headings


def test_every_key_of_the_node_is_on_the_page_with_its_unit_and_no_other_is(published: Keys) -> None:
    from dysl_vla_ros.nodes.diagnostics import PARTS

    assert set(published) == set(PARTS)
    assert [text for part in PARTS for text in differences(part, published[part])] == []


def test_every_key_of_the_recorder_is_on_the_page_and_no_other_is(recorded: Keys) -> None:
    assert list(differences("recording", recorded["recording"])) == []


def test_a_key_that_is_missing_or_left_over_would_be_found(published: Keys) -> None:
    keys = published["clock"] - {"jumps"} | {"leaps"}
    assert len(list(differences("clock", keys))) == 2


def test_the_parts_of_a_step_are_those_that_are_timed() -> None:
    from dysl_vla_ros.nodes.statistics import PARTS

    assert [row[0].strip("`") for row in rows("Values of inference") if len(row) == 2] == list(PARTS)


def test_the_numbers_are_those_of_the_code() -> None:
    from dysl_vla_ros.control.freshness import RATE_WINDOW
    from dysl_vla_ros.nodes import control_loop, levels, statistics
    from dysl_vla_ros.nodes.bag_recorder import SILENCE_WARNED

    judged = statistics.Statistics()
    for text in (
        f"only when {levels.FALL_AFTER} messages in a row would have been lower",
        f"From {judged.often_missed._rise:.0%} of the last `diagnostics.window` inferences "
        f"(at least {statistics.FEWEST}) on, until it is below {judged.often_missed._fall:.0%}",
        f"From {judged.often_late._rise:.0%} of the last {statistics.TICKS} ticks on, until it is below "
        f"{judged.often_late._fall:.0%}",
        f"more than {statistics.LATE_TICK:g} periods after the one before",
        f"of the last {statistics.TICKS}; 0 while there are fewer than {statistics.FEWEST}",
        f"In the first {control_loop.START_PATIENCE:g} s after activation",
        f"arrivals over the last {RATE_WINDOW:g} s",
        f"For {SILENCE_WARNED:g} s: check names",
    ):
        assert text in PAGE, text
