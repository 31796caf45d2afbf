"""Recordings and the kinds of action: a policy of joints learns from bags; what measures an end effector refuses it.

Messages of an end effector keep their definitions, so that bags of earlier releases stay readable.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin

from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.commands.main import main
from dysl_vla_ros.interfaces import ActionSpec
from dysl_vla_ros.joint_units import UnitScale
from dysl_vla_ros.recordings.history import FrameKey, History, read_history
from dysl_vla_ros.recordings.topics import Served, find_topics
from dysl_vla_ros.replay.job import ReplaySettings, replay
from dysl_vla_ros.replay.policies import OwnPolicy
from dysl_vla_ros.replay.results import phase_of, summarise
from dysl_vla_ros.replay.run import FULL
from dysl_vla_ros.runtime.step import Runtime
from joint_arm import joint_positions, joint_velocities
from recorded_bag import BEGIN, BagWriter
from test_replay_apart import EVERY_LAYER, WHEREVER_IT_MAY, replayed
from test_replay_moments import DESCRIPTION
from tiny_bag import write_tiny_bag
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint, make_tiny_dysl

pytestmark = pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
MESSAGES = Path(__file__).parents[1] / "msg"
SHORT = ("--observations", "40", "--hidden-steps", "6", "--action-steps", "6", "--joint-steps", "6", "--no-compile")
# as released with 0.1.0: type and name of each field
RELEASED = {
    "EndEffectorAction": (
        "uint8 VERSION=1, uint8 version, std_msgs/Header header, builtin_interfaces/Time image_stamp, uint32 episode, "
        "uint32 inference, geometry_msgs/Vector3 translation, geometry_msgs/Vector3 rotation, float64 gripper, "
        "float64 time_step, uint16 chunk_index, uint16 chunk_length, bool first_tick, bool verified, string[] limits, "
        "string stop_reason"
    ),
    "ActionChunk": (
        "uint8 VERSION=1, uint8 version, std_msgs/Header header, builtin_interfaces/Time image_stamp, uint32 episode, "
        "uint32 inference, float64 time_step, uint16 horizon, float32[] translation, float32[] rotation, "
        "float32[] gripper, uint16 first_index, bool verified"
    ),
}


@pytest.mark.parametrize("name", RELEASED)
def test_messages_of_an_end_effector_are_what_old_bags_hold(name: str) -> None:
    lines = (line.partition("#")[0].split() for line in (MESSAGES / f"{name}.msg").read_text().splitlines())
    assert ", ".join(" ".join(words) for words in lines if words) == RELEASED[name]


@pytest.mark.slow
def test_a_policy_of_joints_is_distilled_and_calibrated_on_a_bag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_tiny_bag(tmp_path / "bag", ticks=8, episodes=(INSTRUCTION, "open the drawer") * 2)
    checkpoint = make_tiny_checkpoint(tmp_path / "base", action=joint_positions())
    assert main(["calibrate", str(checkpoint), str(bag), "--observations", "40", "--static", "spread"]) == 0
    assert main(["distill", str(checkpoint), str(bag), *SHORT]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"chosen: \d+\.\d of 6 layers", printed), printed
    assert Runtime.load(str(checkpoint), "").description.calibrated


@pytest.mark.parametrize("verb", [["evaluate"], ["demo", "--checkpoint"]])
def test_what_plays_in_the_simulator_refuses_a_policy_of_joints_and_says_what_to_run(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "base", action=joint_positions())
    assert main([*verb, str(checkpoint)]) == 2
    told = capsys.readouterr().err
    assert "of the kind joint_position, and the simulator's arm takes a twist of its end effector" in told
    assert f"`dysl_vla replay BAG --checkpoint {checkpoint}`" in told


@pytest.mark.slow
def test_a_policy_of_joints_is_tuned_in_degrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "base", action=joint_positions())
    make_tiny_dysl(checkpoint / "dysl", checkpoint, offset=0.0)
    bag = write_tiny_bag(tmp_path / "bag", ticks=8, episodes=(INSTRUCTION, "open the drawer") * 2)
    words = ["tune", str(bag), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), "--trials", "12"]
    assert main([*words, "--max-deviation", "1000"]) == 0
    assert re.search(r"choice: .* deviation \d+\.\d+ degrees", capsys.readouterr().out)
    found = json.loads((tmp_path / "out" / "tune.json").read_text())
    tried = [trial["figures"] for trial in found["trials"]]
    assert found["target"]["unit"] == "degrees" and max(figures["joint_degrees"] for figures in tried) > 0.0
    assert all(figures["deviation"] >= figures["joint_degrees"] for figures in tried)
    assert {"joint_percent", "gripper"} <= tried[0].keys() and "translation" not in tried[0]
    assert "at most 1000 degrees from full depth" in (tmp_path / "out" / "tuned.yaml").read_text()
    assert "deviation, degrees, p95" in (tmp_path / "out" / "tune.html").read_text()


@pytest.mark.parametrize("gripper", [True, False])
def test_a_policy_of_joints_is_replayed_in_degrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], gripper: bool
) -> None:
    spec = joint_positions(gripper=gripper)
    checkpoint = make_tiny_checkpoint(tmp_path / "base", action=spec)
    make_tiny_dysl(checkpoint / "dysl", checkpoint, offset=9.0)
    bag, out = write_tiny_bag(tmp_path / "bag", 8), tmp_path / "out"
    words = ["--out", str(out), "--max-deviation", "0.0001", "--against", str(checkpoint / "dysl")]
    assert main(["replay", str(bag), "--checkpoint", str(checkpoint), *words]) == 1
    printed = capsys.readouterr().out
    assert "p95 of the deviation of joints from full depth is" in " ".join(printed.split())
    assert "deg p95" in printed and ("grip p95" in printed) == gripper
    found = json.loads((out / "replay.json").read_text())
    actions = {side: np.array([row[side]["action"] for row in found["moments"]]) for side in ("full depth", "skipping")}
    apart = np.abs(actions["full depth"] - actions["skipping"])
    degrees = np.maximum(np.degrees(apart[:, 0]), apart[:, 1])
    deviation = found["deviation"]["all"]
    assert deviation["joint_degrees"]["max"] == pytest.approx(degrees.max(), rel=1e-4) and degrees.max() > 0
    assert deviation["joint_percent"]["mean"] == pytest.approx(apart[:, 2].mean() / 2, rel=1e-4)
    assert ("gripper" in deviation) == gripper and "translation_mm" not in deviation
    page = (out / "replay.html").read_text()
    assert "joints, degrees" in page and "sliding joints" not in page and "over the chunk, degrees" in page
    assert ("gripper, opening" in page) == gripper and "None" not in re.sub(r"base64,[^\"]+", "", page)


def test_the_actions_of_joints_that_were_recorded_are_compared_with_those_of_both_sides(tmp_path: Path) -> None:
    spec = joint_positions()
    checkpoint = make_tiny_checkpoint(tmp_path / "base", action=spec)
    make_tiny_dysl(checkpoint / "dysl", checkpoint, offset=9.0)
    policy = OwnPolicy(Runtime.load(str(checkpoint), ""), str(checkpoint))
    first = replayed(write_tiny_bag(tmp_path / "bag", 3), policy, EVERY_LAYER, WHEREVER_IT_MAY)
    assert summarise(first, phase_of(first))["recorded"] is None
    stamps, played = first.moments["stamp"], first.track(FULL).columns["action"]
    known = dict(zip(stamps.tolist(), played, strict=True))

    def answer(writer: BagWriter, stamp: int) -> tuple[str, Any]:
        return "/dysl_vla/joint_action_chunk", writer.joint_chunk(stamp, spec, np.tile(known[stamp], (8, 1)))

    bag = write_tiny_bag(tmp_path / "again", 3, answer=answer)
    second = replayed(bag, policy, EVERY_LAYER, WHEREVER_IT_MAY)
    found = summarise(second, phase_of(second))
    full, skipping = (found["recorded"][side]["all"] for side in ("full", "skipping"))
    assert full["moments"] == len(stamps) == 6
    assert full["joint_degrees"]["max"] == 0.0 and full["gripper"]["max"] == 0.0
    assert skipping["joint_degrees"]["max"] == pytest.approx(found["deviation"]["all"]["joint_degrees"]["max"]) != 0.0


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), spec=st.sampled_from([joint_positions(), joint_positions(gripper=False), joint_velocities()]))
def test_recorded_joints_are_taken_by_name_in_the_policys_units(
    data: st.DataObject, spec: ActionSpec, tmp_path_factory: pytest.TempPathFactory
) -> None:
    number = st.floats(-1.0, 1.0, width=32)
    action = np.array(data.draw(st.lists(number, min_size=spec.dimensions, max_size=spec.dimensions)), np.float32)
    whole = data.draw(st.booleans())
    order = data.draw(st.permutations(range(spec.dimensions if whole else len(spec.joints))))
    chunk = np.tile(action, (spec.horizon, 1))
    si = UnitScale(spec.units, spec.low, spec.high, spec.gripper_index).to_si(action)

    def answer(writer: BagWriter) -> Any:
        if whole:
            names, units = ([values[place] for place in order] for values in (spec.names, spec.units))
            return writer.joint_chunk(BEGIN, spec, chunk[:, order], names=names, units=units)
        names, told = [spec.joints[place] for place in order], si[list(spec.joint_indices)][order]
        return writer.joint_action(BEGIN, spec, told, si[-1] if spec.gripper else np.nan, names=names)

    taken = history_of(tmp_path_factory.mktemp("bag") / "bag", spec, answer).action(FrameKey(0, BEGIN), 0)
    assert taken is not None and np.allclose(taken.action, action, atol=1e-4)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"kind": "joint_velocity"}, "of the kind 'joint_velocity', this policy's are joint_position"),
        ({"names": ["shoulder", "elbow", "wrist", "claw"]}, "of shoulder, elbow, wrist, claw, this policy's of "),
        ({"units": ["rad", "rad", "range_100", "percent"]}, "other units or another time step"),
        ({"time_step": 0.1}, "other units or another time step"),
        ({"units": []}, "the recorded actions are of "),
        ({"actions": np.zeros(2, np.float32)}, ""),
    ],
)
def test_recorded_joints_of_another_meaning_are_not_compared_and_it_is_said_why(
    changed: dict[str, Any], text: str, tmp_path: Path
) -> None:
    spec = joint_positions()
    found = history_of(tmp_path / "bag", spec, lambda it: it.joint_chunk(BEGIN, spec, np.zeros((8, 4)), **changed))
    assert not found.source and text in found.note


def history_of(folder: Path, spec: ActionSpec, answer: Callable[[BagWriter], Any]) -> History:
    """Return what a bag that holds one message tells a policy of ``spec``."""
    with BagWriter(folder) as writer:
        message = answer(writer)
        writer.write("/it", BEGIN, message)
    role = "joint_action_chunk" if message.__msgtype__.endswith("JointActionChunk") else "joint_action"
    served = {role: Served(role, "/it", message.__msgtype__, 1, "")}
    with BagReader(folder) as reader:
        return read_history(reader, served, replace(DESCRIPTION, action=spec))


@pytest.mark.parametrize("what", ["chunks", "twists"])
def test_recorded_motion_of_an_end_effector_is_never_taken_for_joints(tmp_path: Path, what: str) -> None:
    """The tiny arm has as many values as an end effector without rotation."""
    actions = np.full((8, 4), 0.01, np.float32)
    with BagWriter(tmp_path / "bag", StoragePlugin.SQLITE3) as writer:
        for role in ("image", "wrist_image"):
            writer.write(f"/{role}", BEGIN, writer.image(BEGIN, np.zeros((48, 48, 3), np.uint8)))
        writer.write("/ee_pose", BEGIN, writer.pose(BEGIN, np.zeros(3), "base"))
        writer.write("/gripper_state", BEGIN, writer.number(0.5))
        writer.write("/instruction", BEGIN, writer.text(INSTRUCTION))
        if what == "chunks":
            writer.write("/dysl_vla/action_chunk", BEGIN + 1, writer.chunk(BEGIN + 1, BEGIN, 1, 1, actions))
        else:
            writer.write("/dysl_vla/twist", BEGIN + 1, writer.twist(BEGIN + 1, actions[0, :3]))
    sources = []
    for name, spec in (("arm", joint_positions()), ("hand", None)):
        described = Runtime.load_base(make_tiny_checkpoint(tmp_path / name, action=spec)).description
        with BagReader(tmp_path / "bag") as reader:
            topics = find_topics(reader.topics, described, {})
            sources.append(read_history(reader, topics.outputs, described))
    arm, hand = sources
    assert hand.source, "the same bag serves a policy of an end effector"
    assert not arm.source and "of an end effector, this policy's" in arm.note


@pytest.mark.parametrize(
    ("rotation", "layers", "verified", "millimetres", "degrees"),
    [
        pytest.param(False, 6.025, 0.4, 1.094086, 0.0, marks=pytest.mark.slow),
        (True, 8.025, 0.825, 0.02455573, 0.01960692),
    ],
)
def test_a_bag_of_an_end_effector_has_the_figures_that_it_had_before_there_were_kinds(
    tmp_path: Path, rotation: bool, layers: float, verified: float, millimetres: float, degrees: float
) -> None:
    """As 0.1.0 of 2026-11-29 replayed it."""
    folder = make_tiny_checkpoint(tmp_path / "base", rotation=rotation)
    make_tiny_dysl(folder / "dysl", folder, offset=9.0)
    replay(write_tiny_bag(tmp_path / "bag"), folder, ReplaySettings(output=tmp_path / "out"))
    found = json.loads((tmp_path / "out" / "replay.json").read_text())
    deviation = found["deviation"]["all"]
    assert found["inferences"] == 40
    assert found["layers"]["mean"] == pytest.approx(layers, abs=0.01)
    assert found["layers"]["verified_share"] == pytest.approx(verified, abs=0.01)
    assert deviation["translation_mm"]["mean"] == pytest.approx(millimetres, rel=1e-3)
    assert deviation["rotation_degrees"]["mean"] == pytest.approx(degrees, rel=1e-3)
