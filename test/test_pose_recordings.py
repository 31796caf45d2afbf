"""Bags of an arm that takes absolute poses: taken by their names, replayed with figures in millimetres and degrees."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.calibration.tuning import deviations
from dysl_vla_ros.commands.main import main
from dysl_vla_ros.control.input_judge import OPENING, InputJudge
from dysl_vla_ros.control.plausibility import POSE
from dysl_vla_ros.interfaces import ActionSpec, PolicyDescription, ProprioceptionSpec
from dysl_vla_ros.poses import COLUMNS, STATE_TURN, poses
from dysl_vla_ros.recordings.history import FrameKey, History, read_history
from dysl_vla_ros.recordings.topics import Served, proprioception_roles
from dysl_vla_ros.records.deviation import measures, normalised_distance
from dysl_vla_ros.records.phases import openings, speed_and_gripper
from dysl_vla_ros.replay.policies import OwnPolicy
from dysl_vla_ros.replay.results import phase_of, summarise
from dysl_vla_ros.replay.run import FULL
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import SafetySettings
from joint_arm import joint_positions
from pose_arm import action_at, end_effector_poses
from recorded_bag import BEGIN, BagWriter
from test_replay_apart import EVERY_LAYER, WHEREVER_IT_MAY, replayed
from tiny_bag import write_tiny_bag
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint, make_tiny_dysl

pytestmark = pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
SHORT = ("--observations", "40", "--hidden-steps", "6", "--action-steps", "6", "--joint-steps", "6", "--no-compile")
SPEC = end_effector_poses(unused=2)
ACTION = action_at(SPEC, (0.1, 0.5, 0.2), (0.3, -0.2, 0.9), closing=0.25)


def described(spec: ActionSpec) -> PolicyDescription:
    return PolicyDescription("", "", "", ("image",), ProprioceptionSpec((), ()), spec, 8, (), ())


def history_of(folder: Path, answer: Callable[[BagWriter], Any], spec: ActionSpec = SPEC) -> History:
    """Return what a bag that holds one message tells a policy of ``spec``."""
    with BagWriter(folder) as writer:
        message = answer(writer)
        writer.write("/it", BEGIN, message)
    role = "pose_action_chunk" if message.__msgtype__.endswith("PoseActionChunk") else "pose_action"
    with BagReader(folder) as reader:
        return read_history(reader, {role: Served(role, "/it", message.__msgtype__, 1, "")}, described(spec))


@pytest.mark.parametrize("whole", [True, False])
def test_recorded_poses_are_taken_by_name_in_the_policys_units(tmp_path: Path, whole: bool) -> None:
    order = np.random.default_rng(0).permutation(SPEC.dimensions)
    position, orientation = poses(ACTION, SPEC.names)

    def answer(writer: BagWriter) -> Any:
        if not whole:
            return writer.pose_action(BEGIN, SPEC, position, orientation, gripper=0.75)
        names, units = ([values[place] for place in order] for values in (SPEC.names, SPEC.units))
        return writer.pose_chunk(BEGIN, SPEC, np.tile(ACTION[order], (8, 1)), names=names, units=units)

    taken = history_of(tmp_path / "bag", answer).action(FrameKey(0, BEGIN), 0)
    assert taken is not None
    np.testing.assert_allclose(taken.action, ACTION, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "changes", "told"),
    [
        (joint_positions(), {}, "of the kind 'end_effector_pose', this policy's are joint_position"),
        (end_effector_poses(), {}, "unused.1, this policy's of ee.r00, ee.r10"),
        (SPEC, {"time_step": 0.1}, "other units or another time step"),
    ],
)
def test_poses_of_another_meaning_are_not_compared_and_it_is_said_why(
    tmp_path: Path, spec: ActionSpec, changes: dict[str, Any], told: str
) -> None:
    chunk = np.tile(ACTION, (8, 1))
    found = history_of(tmp_path / "bag", lambda it: it.pose_chunk(BEGIN, SPEC, chunk, **changes), spec)
    assert not found.source and told in found.note


def test_a_policy_of_poses_is_replayed_and_recorded_poses_are_compared_with_both_sides(tmp_path: Path) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "base", action=SPEC)
    make_tiny_dysl(checkpoint / "dysl", checkpoint, offset=9.0)
    policy = OwnPolicy(Runtime.load(str(checkpoint), ""), str(checkpoint))
    first = replayed(write_tiny_bag(tmp_path / "bag", 3), policy, EVERY_LAYER, WHEREVER_IT_MAY)
    played = dict(zip(first.moments["stamp"].tolist(), first.track(FULL).columns["action"], strict=True))

    def answer(writer: BagWriter, stamp: int) -> tuple[str, Any]:
        return "/dysl_vla/pose_action_chunk", writer.pose_chunk(stamp, SPEC, np.tile(played[stamp], (8, 1)))

    again = replayed(write_tiny_bag(tmp_path / "again", 3, answer=answer), policy, EVERY_LAYER, WHEREVER_IT_MAY)
    found = summarise(again, phase_of(again))
    full, skipping = (found["recorded"][side]["all"] for side in ("full", "skipping"))
    assert full["moments"] == len(played) == 6 and full["position_mm"]["max"] == 0.0
    assert full["rotation_degrees"]["max"] < 1e-5 and full["gripper"]["max"] == 0.0
    for name in ("position_mm", "rotation_degrees"):
        assert skipping[name]["max"] == pytest.approx(found["deviation"]["all"][name]["max"]) != 0.0


@pytest.mark.slow
def test_a_policy_of_poses_is_distilled_calibrated_and_tuned_on_a_bag(tmp_path: Path) -> None:
    bag = write_tiny_bag(tmp_path / "bag", ticks=8, episodes=(INSTRUCTION, "open the drawer") * 2)
    checkpoint = make_tiny_checkpoint(tmp_path / "base", action=SPEC)
    assert main(["calibrate", str(checkpoint), str(bag), "--observations", "40", "--static", "spread"]) == 0
    assert main(["distill", str(checkpoint), str(bag), *SHORT]) == 0
    assert Runtime.load(str(checkpoint), "").description.calibrated
    words = ["tune", str(bag), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), "--trials", "12"]
    assert main([*words, "--max-deviation", "1000"]) == 0
    found = json.loads((tmp_path / "out" / "tune.json").read_text())
    tried = [trial["figures"] for trial in found["trials"]]
    assert found["target"]["unit"] == "mm" and {"position", "rotation", "gripper"} <= tried[0].keys()
    assert all(figures["deviation"] >= figures["position"] for figures in tried)


def test_what_plays_in_the_simulator_refuses_absolute_poses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "base", action=SPEC)
    assert main(["evaluate", str(checkpoint)]) == 2
    assert "of the kind end_effector_pose, and the simulator's arm takes a twist" in capsys.readouterr().err


def test_poses_lie_apart_in_millimetres_degrees_and_opening() -> None:
    one = np.stack([action_at(SPEC, (0.0, 0.0, 0.0)), action_at(SPEC, (0.0, 0.0, 0.0), (0.0, 0.0, 3.0))])
    other = np.stack([
        action_at(SPEC, (0.003, 0.004, 0.0), (0.0, 0.5, 0.0), 0.25), action_at(SPEC, (0.0,) * 3, (0.0, 0.0, -3.0))
    ])  # fmt: skip
    found = {measure.name: measure.apart(one, other) for measure in measures(SPEC)}
    np.testing.assert_allclose(found["position_mm"], [5.0, 0.0], atol=1e-4)
    turned = [math.degrees(0.5), math.degrees(2 * math.pi - 6.0)]  # the shorter way round
    np.testing.assert_allclose(found["rotation_degrees"], turned, atol=1e-3)
    np.testing.assert_allclose(found["gripper"], [0.25, 0.0], atol=1e-6)
    ranked = normalised_distance(one, other, SPEC)
    wanted = math.hypot(0.003 / 0.2, 0.004 / 0.25) + 0.5 + 0.25 / 0.5
    np.testing.assert_allclose(ranked[0], wanted, rtol=1e-4)
    unused = other.copy()
    unused[:, [SPEC.names.index("unused.0")]] = 7.0
    assert normalised_distance(one, unused, SPEC).tolist() == ranked.tolist()
    assert SPEC.distance(one, unused) == SPEC.distance(one, other)
    tuned = deviations(one, other, SPEC)
    assert set(tuned) == {"position", "rotation", "gripper", "deviation"}
    assert np.all(tuned["deviation"] >= tuned["position"])


def test_speed_is_that_of_the_targets_and_a_gripper_that_closes_opens_less() -> None:
    actions = np.stack([action_at(SPEC, (0.01 * n, 0.0, 0.0), closing=0.25) for n in range(3)])
    speed, gripper = speed_and_gripper(actions, np.array([0.0, 0.05, 0.1]), np.zeros(3), SPEC)
    np.testing.assert_allclose(speed, [0.2] * 3, rtol=1e-5)
    assert gripper is not None and gripper.tolist() == [0.75] * 3
    assert openings(actions, dataclasses.replace(SPEC, gripper="")) is None


def test_proprioception_has_the_orientation_by_every_name_and_unused_values_are_zero() -> None:
    names = ("ee.x", *COLUMNS, "unused.1", *STATE_TURN, "gripper.opening")
    spec = ProprioceptionSpec(names, ("m",) + ("1",) * 7 + ("rad",) * 3 + ("closing",))
    assert proprioception_roles(names).keys() == {POSE, OPENING}
    judge = InputJudge.of(dataclasses.replace(described(SPEC), proprioception=spec), (POSE, OPENING), (), {"image": ""})
    judge.start(0.0)
    half = math.sqrt(0.5)  # a quarter turn around z
    values = {"ee.x": 0.1, "ee.y": 0.2, "ee.z": 0.3, "ee.qx": 0.0, "ee.qy": 0.0, "ee.qz": half, "ee.qw": half}
    assert judge.hear(POSE, values, 1.0, 1.0, None, SafetySettings()) == ""
    assert judge.hear(OPENING, {"gripper.opening": 0.9}, 1.0, None, None, SafetySettings()) == ""

    class Nothing:
        parts: dict[str, Any] = {}

    known = judge.values(Nothing())  # type: ignore[arg-type]
    found = [known[name] for name in names]
    assert found == pytest.approx([0.1, 0, 1, 0, -1, 0, 0, 0.0, 0, 0, math.pi / 2, 0.1], abs=1e-9)
