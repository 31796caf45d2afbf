"""Proprioception in the units that a policy declares: what topics carry is converted, or refused."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.control.input_judge import JOINTS, OPENING, InputJudge
from dysl_vla_ros.interfaces import ActionSpec, PolicyDescription, ProprioceptionSpec
from dysl_vla_ros.policies.reference import ReferenceConfig
from dysl_vla_ros.settings import SafetySettings
from joint_arm import joint_positions
from tiny_checkpoint import tiny_config

LOW, HIGH = (-1.5, -0.2, 0.5), (1.0, 0.4, 2.5)  # rad
RANGES: dict[str, Any] = {
    "rad": lambda value, low, high: value,
    "deg": lambda value, low, high: math.degrees(value),
    "percent": lambda value, low, high: (value - low) / (high - low) * 100.0,
    "range_100": lambda value, low, high: (value - low) / (high - low) * 200.0 - 100.0,
}


def judged(spec: ProprioceptionSpec, positions: dict[str, float], opening: float) -> dict[str, float]:
    """Return what an observation would have of messages with these values."""
    action: ActionSpec = joint_positions()
    described = PolicyDescription("", "", "", ("image",), spec, action, 8, (), ())
    judge = InputJudge.of(described, (OPENING, JOINTS), tuple(positions), {"image": "image"})
    judge.start(0.0)
    stamp = SimpleNamespace(sec=1, nanosec=0)
    message = SimpleNamespace(
        name=list(positions), position=list(positions.values()), header=SimpleNamespace(stamp=stamp)
    )
    assert judge.hear_joints(message, 1.0, None, SafetySettings()) == ""
    assert judge.hear(OPENING, {"gripper.opening": opening}, 1.0, None, None, SafetySettings()) == ""
    return judge.values(SimpleNamespace(parts={}))  # type: ignore[arg-type]


@given(
    st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=3),
    st.lists(st.sampled_from(sorted(RANGES)), min_size=3, max_size=3),
    st.sampled_from(["1", "percent"]),
    st.floats(0.0, 1.0),
)
def test_every_unit_is_what_it_means(values: list[float], units: list[str], gripper: str, opening: float) -> None:
    names = ("shoulder", "elbow", "wrist")
    spec = ProprioceptionSpec((*names, "gripper.opening"), (*units, gripper), "base", (*LOW, 0.0), (*HIGH, 0.0))
    found = judged(spec, dict(zip(names, values, strict=True)), opening)
    for index, name in enumerate(names):
        wanted = RANGES[units[index]](values[index], LOW[index], HIGH[index])
        assert found[name] == pytest.approx(wanted, abs=1e-9)
    assert found["gripper.opening"] == pytest.approx(opening * (100.0 if gripper == "percent" else 1.0))


def test_a_share_of_a_range_that_is_not_said_is_refused_by_its_key() -> None:
    import dataclasses

    config = tiny_config(8)
    said = ProprioceptionSpec(("elbow",), ("percent",))
    values: dict[str, Any] = {"proprioception_mean": (0.0,), "proprioception_std": (1.0,)}
    wrong: ReferenceConfig = dataclasses.replace(config, proprioception=said, **values)
    assert any("model.proprioception.low has 0 values, expected 1" in fault for fault in wrong.faults())
    right = dataclasses.replace(wrong, proprioception=dataclasses.replace(said, low=(-1.0,), high=(1.0,)))
    assert not right.faults()
    assert right.to_json()["proprioception"]["low"] == (-1.0,)
    assert "low" not in config.to_json()["proprioception"], "the hash of a folder from before stays what it was"
