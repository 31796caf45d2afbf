"""Replaying recordings: laws of its figures, the real command with its exit codes, and bags that are not whole.

The bags are the simulator's, driven by the shipped policy; where a policy without adapters or another one is wanted,
the tiny one serves.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.commands.main import main
from dysl_vla_ros.recordings.full_depth import full_depth_runs, observations
from dysl_vla_ros.recordings.playback import Playback
from dysl_vla_ros.records.phases import PHASES
from dysl_vla_ros.replay.job import ReplaySettings, replay
from dysl_vla_ros.replay.run import FULL, SKIPPING
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import RuntimeSettings, SkippingSettings
from recorded_bag import record
from test_replay_moments import Robot
from test_report import Page
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl
from warm_program import run

pytestmark = pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
SHIPPED = Path(__file__).parents[1] / "checkpoints" / "reference"
TICKS = 18


@pytest.fixture(scope="module")
def scene():
    pytest.importorskip("mujoco", reason="the simulator is not installed (requirements/simulation.txt)")
    from dysl_vla_ros.simulation.scene import Scene

    return Scene("pick-place")


@pytest.fixture(scope="module")
def bags(scene, tmp_path_factory):
    """Two episodes with skipping, chunks recorded; one at full depth, with twist and gripper recorded."""
    folder = tmp_path_factory.mktemp("bags")
    runtime = Runtime.load(str(SHIPPED), "")
    full_depth = RuntimeSettings(skipping=SkippingSettings(rule="full"))
    return {
        "skipping": record(folder / "skipping", runtime, scene, TICKS, seeds=(10_000, 10_001)),
        "full": record(folder / "full", runtime, scene, TICKS, seeds=(10_002,), settings=full_depth, actions="twist",
                       encoding="bgr8", prefix="/robot1/"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "base")
    make_tiny_dysl(folder / "dysl", folder, offset=9.0)
    return folder


def replayed(bag, output, checkpoint=SHIPPED, **options):
    return replay(bag, checkpoint, ReplaySettings(output=output, **options))


def command(capsys, *arguments):
    """Run the verb; return exit code, what it printed, and what it complained about."""
    code = main(["replay", *map(str, arguments)])
    said = capsys.readouterr()
    complaint = said.err.rpartition("\r")[2].strip().splitlines()
    return code, said.out, complaint[-1] if complaint else ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where ``outcome`` was written to."""
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def outcome(bags, folder):
    return replayed(bags["skipping"].path, folder)


# -- laws --------------------------------------------------------------------------------------------------------------


def test_what_ran_when_it_was_recorded_runs_again_with_the_same_actions(bags, outcome):
    track = outcome.replay.track(SKIPPING).columns
    recorded = bags["skipping"]
    assert len(track) == len(recorded.results) == 2 * TICKS
    for row, result in enumerate(recorded.results):
        assert tuple(track["executed"][row]) == result.trace.executed
        np.testing.assert_array_equal(track["action"][row], result.chunk.actions[0])
    assert outcome.about["recorded"]["skipping"]["all"]["translation_mm"]["max"] == 0.0
    assert len(outcome.about["episodes"]) == 2
    assert outcome.about["layers"]["mean"] < 0.6 * outcome.about["layers"]["total"]


@pytest.mark.slow
def test_the_same_bag_gives_the_same_numbers_bit_for_bit(bags, outcome, folder, tmp_path):
    again = replayed(bags["skipping"].path, tmp_path)
    for name in (FULL, SKIPPING):
        first, second = outcome.replay.track(name).columns, again.replay.track(name).columns
        for column in ("action", "executed", "allow", "continuity", "candidate", "controllers", "played"):
            np.testing.assert_array_equal(first[column], second[column])
    contents = [json.loads((written / "replay.json").read_text()) for written in (folder, tmp_path)]
    assert len(contents[0]["moments"]) == 2 * TICKS
    for content in contents:
        del content["timings"]
    assert contents[0] == contents[1]


def test_full_depth_gives_the_actions_that_were_recorded_at_full_depth(bags, tmp_path):
    about = replayed(bags["full"].path, tmp_path).about
    assert about["bag"]["recorded_actions"] == "the twist and gripper commands as recorded"
    assert about["recorded"]["full"]["all"]["moments"] == TICKS
    assert about["recorded"]["full"]["all"]["translation_mm"]["max"] < 1e-3
    assert about["recorded"]["full"]["all"]["gripper"]["max"] < 1e-6
    assert about["recorded"]["skipping"]["all"]["translation_mm"]["max"] > 0.1


def test_without_skipping_nothing_deviates(bags, tmp_path, tiny):
    off = tmp_path / "off.yaml"
    off.write_text("dysl_vla:\n  ros__parameters:\n    skipping.rule: full\n")
    bare = make_tiny_checkpoint(tmp_path / "bare")
    for more in ({"checkpoint": tiny, "parameters": off}, {"checkpoint": bare}):
        done = replayed(bags["full"].path, tmp_path / "out", instruction="push the puck", **more)
        assert done.about["deviation"]["all"]["translation_mm"]["max"] == 0.0
        assert done.about["deviation"]["all"]["gripper"]["max"] == 0.0
        assert done.about["layers"]["reduction"] == 0.0
        assert not done.replay.album.worst()
        Page((tmp_path / "out" / "replay.html").read_text())


def test_every_nth_frame_observes_the_actions_of_its_own_chunk_in_between(bags, tmp_path):
    done = replayed(bags["skipping"].path, tmp_path, every=3)
    track, moments = done.replay.track(SKIPPING).columns, done.replay.moments
    assert moments["stamp"].tolist() == bags["skipping"].stamps[::3]
    first = np.flatnonzero(np.diff(moments["episode"], prepend=-1))
    assert track["played"][first].tolist() == [0, 0]
    assert set(np.delete(track["played"], first)) == {3}
    assert any("control.actions_per_inference is 1" in note for note in done.about["notes"])


def test_a_chunk_that_ran_dry_leaves_a_gap_before_what_comes_next():
    spec = Runtime.load(str(SHIPPED), "").description.action
    playback = Playback(spec)
    chunk = np.arange(spec.horizon * 4, dtype=np.float32).reshape(-1, 4)
    playback.begin(100.0)
    assert playback.take(100.0)[0].shape == (0, 4)
    playback.offer(chunk)
    played, gap = playback.take(100.0 + 2.49 * spec.time_step)
    assert len(played) == 2 and not gap
    playback.offer(chunk)
    played, gap = playback.take(100.0 + 13.0 * spec.time_step)
    np.testing.assert_array_equal(played, chunk)
    assert not gap
    playback.offer(chunk)
    played, gap = playback.take(100.0 + 14.0 * spec.time_step)
    assert len(played) == 1 and gap
    playback.offer(chunk)
    assert playback.take(100.0 + 14.3 * spec.time_step)[0].shape == (0, 4)


def test_the_bag_gives_calibration_its_runs_and_distillation_its_observations(bags, tiny):
    runtime = Runtime.load(str(SHIPPED), "")
    runs = full_depth_runs([bags["skipping"].path, bags["full"].path], runtime)
    assert [len(run.observations) for run in runs] == [TICKS, TICKS, TICKS]
    assert [len(run.chunks) for run in full_depth_runs([bags["full"].path], runtime, m=4)] == [-(-TICKS // 4)]
    results = bags["full"].results
    np.testing.assert_array_equal(runs[2].chunks, np.stack([result.chunk.actions for result in results]))
    drawn = list(observations([bag.path for bag in bags.values()], runtime.description, 10, seed=1))
    assert len(drawn) == 10
    known = {observation.images["image"].tobytes() for bag in bags.values() for observation in bag.observations}
    assert all(observation.images["image"].tobytes() in known for observation in drawn)


# -- results -----------------------------------------------------------------------------------------------------------


def test_the_figures_say_where_they_come_from(bags, outcome):
    about = outcome.about
    assert about["bag"]["path"] == str(bags["skipping"].path)
    written = json.loads((SHIPPED / "config.json").read_text())["files"]["model.safetensors"]
    assert about["policy"]["weights_hash"] == written != about["policy"]["model_hash"]
    assert "SHA-256" in about["policy"]["adapters"]
    assert about["parameters"]["guidance.step"] > 0.0, "the calibrated value, not 0.0"
    assert {"torch", "numpy", "dysl_vla_ros"} <= set(about["versions"])
    assert sum(about["deviation"][name]["moments"] for name in PHASES) == about["deviation"]["all"]["moments"]


def test_the_page_holds_all_it_shows_with_film_marks_and_worst_moments(bags, tmp_path):
    eager = tmp_path / "eager.yaml"  # so that there is something to mark
    eager.write_text("/**:\n  ros__parameters:\n    guidance:\n      verify_threshold: 0.01\n      verify_on: any\n")
    outcome = replayed(bags["skipping"].path, tmp_path / "out", parameters=eager)
    html = (tmp_path / "out" / "replay.html").read_text()
    page = Page(html)
    assert page.open == []
    assert all(source.startswith("data:image/") for source in page.sources)
    assert not {"script", "link", "iframe"} & set(page.tags)
    verified = int(outcome.replay.track(SKIPPING).columns["verified"].sum())
    assert html.count("<i style=") == verified > 0
    assert re.search(r"The worst \d+ moments", html) and html.count('class="strip"') == 2


@pytest.mark.slow
def test_another_parameter_file_an_earlier_replay_and_another_checkpoint_stand_side_by_side(bags, tmp_path, tiny):
    unverified = tmp_path / "unverified.yaml"
    unverified.write_text("/**:\n  ros__parameters:\n    guidance.verify: false\n")

    def against(other, **more):
        more |= {"against": other, "instruction": "push the puck", "parameters": unverified}
        return replayed(bags["full"].path, tmp_path / "out", tiny, **more).about["against"]

    closed = tmp_path / "closed.yaml"
    closed.write_text("/**:\n  ros__parameters:\n    skipping:\n      threshold: 1.0\n")
    found = against(closed)
    assert found["kind"] == "parameter file"
    assert found["other"]["layers"]["reduction"] == 0.0 < found["this"]["layers"]["reduction"]
    assert found["other"]["deviation"]["all"]["translation_mm"]["max"] == 0.0
    assert found["between"]["skipping"]["all"] == found["this"]["deviation"]["all"]

    (tmp_path / "out" / "replay.json").rename(tmp_path / "earlier.json")
    found = against(tmp_path / "earlier.json", every=2)
    assert (found["kind"], found["moments"]) == ("earlier replay", TICKS // 2)
    assert found["between"]["full"]["all"]["translation_mm"]["max"] == 0.0
    assert "on the 9 frames that both have" in (tmp_path / "out" / "replay.html").read_text()

    found = against(make_tiny_checkpoint(tmp_path / "other", seed=1))
    assert found["kind"] == "checkpoint" and found["between"]["full"]["all"]["translation_mm"]["p50"] > 0.0
    found = against(tiny / "dysl")
    assert found["kind"] == "DySL folder" and found["between"]["skipping"]["all"]["translation_mm"]["max"] == 0.0


def test_a_rerun_file_holds_the_recording(bags, tmp_path, tiny):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    path = tmp_path / "deep" / "replay.rrd"
    replayed(bags["full"].path, tmp_path, tiny, rerun=path, instruction="push the puck")
    content = path.read_bytes()
    assert content.startswith(b"RRF2")
    assert len(content) > 20_000


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_real_command_ends_with_the_first_criterion_that_failed_and_writes_its_report(bags, tmp_path):
    given = [sys.executable, "-m", "dysl_vla_ros.commands.main", "replay", str(bags["full"].path), "--every", "6"]
    given += ["--max-p99-ms", "100000", "--max-deviation", "0.0001", "--min-layer-reduction", "0.99"]
    done = run(given, 120, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "report: replay_out/replay.html" in done.stdout and (tmp_path / "replay_out" / "replay.json").is_file()
    assert "--max-p99-ms: passed" in done.stdout and "--min-layer-reduction: FAILED" in done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("dysl_vla replay: failed: p95 of the deviation of translation") and "--max-deviation" in last
    assert "--min-layer-reduction" not in last, "the first failure is named"


def test_within_the_criteria_is_exit_code_0(bags, tmp_path, capsys, tiny):
    given = ("--checkpoint", tiny, "--out", tmp_path, "--every", 6)
    code, said, complaint = command(capsys, bags["full"].path, *given, "--max-deviation", 20)
    assert code == 0 and "--max-deviation: passed" in said and "failed" not in complaint


@pytest.mark.parametrize(
    ("criterion", "text"),
    [
        (("--max-p99-ms", 0.001), "p99 of an inference with skipping is"),
        (("--min-layer-reduction", 0.99), "skipping saves"),
    ],
)
def test_each_criterion_is_named_when_it_fails(bags, tmp_path, tiny, capsys, criterion, text):
    arguments = (bags["full"].path, "--checkpoint", tiny, "--out", tmp_path, "--every", 6)
    code, _, complaint = command(capsys, *arguments, "--instruction", "push the puck", *criterion)
    assert code == 1 and text in complaint and criterion[0] in complaint


def test_a_bag_that_cannot_serve_is_exit_code_2_and_says_why(bags, tmp_path, capsys, tiny):
    path = bags["full"].path
    out = ("--out", tmp_path / "out")
    code, _, complaint = command(capsys, tmp_path / "nowhere", *out)
    assert code == 2 and "no bag at" in complaint
    code, _, complaint = command(capsys, path, *out, "--topic", "image:=/robot1/ee_pose")
    assert code == 2 and "'image' needs" in complaint
    silent = Robot(tmp_path / "silent")
    with silent.writer:
        silent.tick(3)
        silent.say()
    code, _, complaint = command(capsys, silent.path, *out, "--checkpoint", tiny)
    assert code == 2 and "none of 3 frames can serve: 3 times: no instruction was given by then" in complaint
    code, _, complaint = command(capsys, path, *out, "--against", tmp_path)
    assert code == 2 and "has no config.json" in complaint
    code, _, complaint = command(capsys, path, *out, "--every", 0, "--min-layer-reduction", 50)
    assert (
        code == 2
        and "--every must be at least 1" in complaint
        and "--min-layer-reduction must be from 0 to 1" in complaint
    )


def test_a_damaged_bag_is_judged_by_what_is_whole_and_refused_when_strict(scene, tmp_path, capsys, tiny):
    from rosbags.rosbag2 import StoragePlugin

    recorded = record(tmp_path / "bag", Runtime.load(str(tiny), ""), scene, TICKS, plugin=StoragePlugin.MCAP)
    (file,) = recorded.path.glob("*.mcap")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])
    with BagReader(recorded.path) as reader:
        left = reader.topics["/image"].count
    assert 0 < left < TICKS
    out = ("--out", tmp_path / "out", "--checkpoint", tiny)
    code, said, _ = command(capsys, recorded.path, *out, "--max-deviation", 20)
    assert code == 0 and "The bag is damaged" in said and "lost" in said
    about = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert about["inferences"] == left and about["bag"]["damage"]
    code, _, _ = command(capsys, recorded.path, *out, "--min-layer-reduction", 0.99)
    assert code == 1
    code, _, complaint = command(capsys, recorded.path, *out, "--strict")
    assert code == 2 and "which --strict does not accept" in complaint and "lost" in complaint


def test_rerun_names_its_package_where_it_is_not_installed(bags, tmp_path, capsys, monkeypatch):
    found = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == "rerun" else found(name, *more))
    code, _, complaint = command(capsys, bags["full"].path, "--out", tmp_path, "--rerun", tmp_path / "a.rrd")
    assert code == 2 and "pip install rerun-sdk" in complaint


def test_an_earlier_replay_of_another_recording_cannot_be_compared(bags, tmp_path, tiny):
    from dysl_vla_ros.errors import BagError

    say = {"instruction": "push the puck"}
    replayed(bags["full"].path, tmp_path / "one", tiny, **say)
    content = (tmp_path / "one" / "replay.json").read_text()
    moved = content.replace('"stamp":17', '"stamp":18')
    (tmp_path / "moved.json").write_text(moved)
    with pytest.raises(BagError, match="made from another recording"):
        replayed(bags["full"].path, tmp_path / "two", tiny, against=tmp_path / "moved.json", **say)
    (tmp_path / "moved.json").write_text(moved.replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(BagError, match="format_version is 99, this version reads 1"):
        replayed(bags["full"].path, tmp_path / "two", tiny, against=tmp_path / "moved.json", **say)
    (tmp_path / "moved.json").write_text("{}")
    with pytest.raises(BagError, match="is no replay.json of this version"):
        replayed(bags["full"].path, tmp_path / "two", tiny, against=tmp_path / "moved.json", **say)


def test_the_worst_moments_are_not_neighbours_and_none_of_the_peaks_is_missed():
    from dysl_vla_ros.interfaces import Observation
    from dysl_vla_ros.replay.pictures import APART, WORST_MOMENTS, Album

    album = Album()
    seen = Observation({"image": np.zeros((4, 4, 3), np.uint8)}, np.zeros(0, np.float32), "")
    peaks = {7 + 30 * number: 10.0 + number for number in range(WORST_MOMENTS + 3)}
    for row in range(30 * len(peaks)):
        near = min(peaks, key=lambda peak: abs(peak - row))
        album.watch(seen, row, 0, max(0.1, peaks[near] - abs(row - near)))
    rows = [row for row, _ in album.worst()]
    assert rows == sorted(peaks, key=lambda row: -peaks[row])[:WORST_MOMENTS]
    assert min(abs(one - other) for one in rows for other in rows if one != other) >= APART
