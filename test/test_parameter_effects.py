"""Tuning while it runs, over the real parameter services: each dynamic parameter acts on the next step.

Generated from the declarations in settings.py; what each one does, and where that shows, is parameter_effects.py.
"""

import dataclasses
import itertools
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dysl_vla_ros.settings import GROUPS, ModelSettings
from faulty_worker import FaultyWorker
from harness import NodeProcess, RosPeer, wait_until
from parameter_effects import BASE, EFFECTS
from vla_rig import ACTION, LIMIT, NODE, Rig, gentle, running_rig

pytestmark = pytest.mark.ros

FIELDS = {f"{group.group}.{field.name}": field for group in GROUPS for field in dataclasses.fields(group)}
DYNAMIC = [name for name in FIELDS if not name.startswith(ModelSettings.group)]
LOOKED_AT = 3  # messages that a law must hold for, from the next step on
BEGUN = 1  # message published after a set that may not show it yet: of a step begun before


@pytest.fixture(scope="module")
def rig(ros_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

    checkpoint = make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), rotation=True)
    make_tiny_dysl(checkpoint / "dysl", checkpoint)
    worker = FaultyWorker(tmp_path_factory.mktemp("worker"))
    with running_rig(gentle(checkpoint) | BASE | {"model.python": worker.python}) as rig:
        rig.worker = worker
        rig.move()
        yield rig


def put(rig: Rig, values: dict[str, object]) -> int:
    """Set parameters and return the moment of the answer, ns."""
    assert rig.peer.set_parameters(NODE, values, LIMIT, atomically=True) == (True, "")
    return time.time_ns()


def steps_since(rig: Rig, topic: str, moment: int) -> list[Any]:
    """Return the messages of steps that began after a moment (ns)."""
    return [record.message for record in rig.peer.records(topic) if record.published > moment][BEGUN:]


def test_every_dynamic_parameter_has_an_entry_and_no_other_has() -> None:
    assert set(EFFECTS) == set(DYNAMIC), "say in parameter_effects.py what it changes, and where that is seen"


@pytest.mark.parametrize("name", DYNAMIC)
def test_a_set_acts_on_the_next_step(rig: Rig, name: str) -> None:
    effect = EFFECTS[name]
    original = {other: BASE.get(other, FIELDS[other].default) for other in (name, *effect.context)}
    assert effect.value != (original | dict(effect.context))[name], "an effect needs a change"
    try:
        put(rig, dict(effect.context))
        effect.prepare(rig)
        before = time.time_ns()
        if effect.every:
            wait_until(
                lambda: not all(map(effect.fits, steps_since(rig, effect.topic, before))), LIMIT, "one that differs"
            )
        else:
            wait_until(lambda: len(steps_since(rig, effect.topic, before)) >= LOOKED_AT, LIMIT, "messages before")
            assert not any(map(effect.fits, steps_since(rig, effect.topic, before)[:LOOKED_AT]))
        after = put(rig, {name: effect.value})
        effect.act(rig)
        if effect.every:
            wait_until(lambda: len(steps_since(rig, effect.topic, after)) >= LOOKED_AT, LIMIT, "messages after")
            assert all(map(effect.fits, steps_since(rig, effect.topic, after)[:LOOKED_AT]))
        else:
            wait_until(
                lambda: any(map(effect.fits, steps_since(rig, effect.topic, after))), LIMIT, f"an effect of {name}"
            )
    finally:
        rig.robot.shift.clear()
        rig.worker.set("none")
        put(rig, original)
        rig.move()


def test_a_budget_that_no_inference_fits_is_refused_with_what_would_fit(rig: Rig) -> None:
    done, reason = rig.peer.set_parameters(NODE, {"control.budget_ms": 1e-3}, LIMIT, atomically=True)
    assert not done
    assert "control.budget_ms is 0.001, and the shortest inference took" in reason and "give it at least" in reason


def test_a_set_of_several_is_never_seen_half(rig: Rig) -> None:
    pairs = [{"control.command_frame": "whole", "control.action_scale": 1.0}]
    pairs += [{"control.command_frame": "half", "control.action_scale": 0.5}]
    before = put(rig, pairs[0])
    turns = itertools.cycle(pairs)

    def seen() -> set[tuple[str, bool]]:
        put(rig, next(turns))
        moving = [action for action in steps_since(rig, ACTION, before) if not action.stop_reason]
        return {(action.header.frame_id, "control.action_scale" in action.limits) for action in moving}

    both = {("whole", False), ("half", True)}
    wait_until(lambda: not both - seen(), LIMIT, f"actions under {pairs}")
    for _ in range(40):
        put(rig, next(turns))
    assert seen() == both
    put(rig, {"control.command_frame": "", "control.action_scale": 1.0})


def test_the_describe_service_tells_meaning_unit_range_and_when(rig: Rig) -> None:
    from rcl_interfaces.srv import DescribeParameters

    answer = rig.peer.call(f"{NODE}/describe_parameters", DescribeParameters.Request(names=list(FIELDS)), LIMIT)
    assert [described.name for described in answer.descriptors] == list(FIELDS)
    for described in answer.descriptors:
        default, meta = FIELDS[described.name].default, FIELDS[described.name].metadata
        unit = f" [{meta['unit']}]" if meta["unit"] else ""
        assert described.description == meta["meaning"] + unit
        ranges = [(r.from_value, r.to_value) for r in (*described.floating_point_range, *described.integer_range)]
        number = isinstance(default, (int, float)) and not isinstance(default, bool)
        assert ranges == ([(meta["low"], meta["high"])] if number else [])
        assert all(math.isfinite(value) for pair in ranges for value in pair)
        assert all(repr(choice) in described.additional_constraints for choice in meta["choices"])
        fixed = "deactivate and cleanup first" in described.additional_constraints
        assert fixed == (described.name not in DYNAMIC)


UNUSUAL = {
    "model.checkpoint": "a folder: with 'signs' #1",
    "control.instruction": "open the drawer",
    "control.action_scale": 0.0,
    "guidance.step": 1e-05,
    "guidance.dead_band": -1.0,
    "guidance.prior": False,
    "safety.max_clock_skew": 1.2345678901234567e-3,
    "guidance.warmup": 0,
}


def test_what_param_dump_writes_starts_the_same_node_again(ros_domain: int, tmp_path: Path) -> None:
    with NodeProcess("vla_node", UNUSUAL, {"__node": "dumped"}) as node:
        first = parameters_of("dumped")
        assert node.stop(signal.SIGINT, LIMIT) == 0, node.output
    file = tmp_path / "dump.yaml"
    file.write_text(dump("dumped", first))
    with NodeProcess("vla_node", remappings={"__node": "dumped"}, parameter_file=file) as node:
        second = parameters_of("dumped")
        assert node.stop(signal.SIGINT, LIMIT) == 0, node.output
        assert "unknown" not in node.output
    assert second == first
    assert {name: second[name] for name in UNUSUAL} == UNUSUAL and set(FIELDS) < set(second)
    assert all(type(second[name]) is type(field.default) for name, field in FIELDS.items())


def parameters_of(node: str) -> dict[str, object]:
    from rcl_interfaces.srv import GetParameters, ListParameters
    from rclpy.parameter import parameter_value_to_python

    with RosPeer() as peer:
        names = peer.call(f"{node}/list_parameters", ListParameters.Request(), LIMIT).result.names
        values = peer.call(f"{node}/get_parameters", GetParameters.Request(names=names), LIMIT).values
    return {name: parameter_value_to_python(value) for name, value in zip(names, values, strict=True)}


def dump(node: str, values: dict[str, object]) -> str:
    """Return what ``ros2 param dump`` prints: a nested mapping, cut at every point of the names."""
    nested: dict = {}
    for name, value in sorted(values.items()):
        *groups, key = name.split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[key] = value
    return yaml.dump({f"/{node}": {"ros__parameters": nested}}, default_flow_style=False)
