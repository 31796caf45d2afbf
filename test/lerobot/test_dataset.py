"""LeRobotDataset folders, written by LeRobot itself, as what adapters learn from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import ROBOT
from tiny_dataset import TEXTS, TOP, WRIST, frame, write_dataset

from dysl_vla_ros.errors import DataError, WorkerError
from dysl_vla_ros.job_worker.client import JobWorker
from dysl_vla_ros.job_worker.dataset import WorkerDatasets
from dysl_vla_ros.policies.lerobot.dataset import LeRobotFrames, Stretch, is_dataset
from dysl_vla_ros.policy_options import PolicyOptions
from dysl_vla_ros.runs.frame_store import FrameStore
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.worker.client import WorkerSpec
from job_worker_thread import in_a_thread

COUNTS = (4, 3, 5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "dataset"
    write_dataset(folder, 30, COUNTS)
    return folder


@pytest.fixture(scope="module")
def description(loaded: Callable[..., Any]) -> Any:
    return Runtime(loaded("smolvla"), None).description


def test_frames_are_what_was_recorded(dataset: Path, description: Any) -> None:
    assert is_dataset(dataset)
    frames = LeRobotFrames(dataset, description, {})
    assert frames.stretches() == [Stretch(TEXTS[0], 0, 4), Stretch(TEXTS[1], 4, 7), Stretch(TEXTS[0], 7, 12)]
    for row in (0, 4, 11):
        wanted, seen = frame(row), frames[row]
        assert np.array_equal(seen.images[TOP], wanted[TOP])
        apart = np.abs(seen.images[WRIST].astype(int) - wanted[WRIST])
        assert seen.images[WRIST].dtype == np.uint8 and apart.shape == (40, 48, 3) and apart.mean() < 6
        assert np.array_equal(seen.proprioception, wanted["observation.state"])
    assert [frames[row].instruction for row in (0, 4)] == list(TEXTS)


def test_a_camera_of_another_name_serves_where_it_is_said(dataset: Path, description: Any) -> None:
    frames = LeRobotFrames(dataset, description, {TOP: WRIST, WRIST: TOP})
    assert np.array_equal(frames[1].images[WRIST], frame(1)[TOP])
    with pytest.raises(DataError, match=rf"no pictures side for {TOP}; there are {TOP}, {WRIST}: .* --topic {TOP}:="):
        LeRobotFrames(dataset, description, {TOP: "side"})


BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "an older layout": (lambda it: it.update(codebase_version="v2.1"), "convert_dataset_v21_to_v30"),
    "another rate": (lambda it: it.update(fps=10), "fps is 10, and robot.action.time_step is 0.0333333 s"),
    "another state": (lambda it: it["features"]["observation.state"].update(shape=[7]), "has shape [7], this policy's"),
    "no camera": (lambda it: it["features"].pop(TOP), f"no pictures {TOP}; there are {WRIST}"),
    "no features": (lambda it: it.pop("features"), "has no features"),
}


@pytest.mark.parametrize("damage", BAD)
def test_a_folder_that_cannot_serve_is_refused_by_what_it_says(
    damage: str, dataset: Path, description: Any, tmp_path: Path
) -> None:
    spoil, text = BAD[damage]
    info = json.loads((dataset / "meta" / "info.json").read_text())
    spoil(info)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text(json.dumps(info))
    with pytest.raises(DataError) as refused:
        LeRobotFrames(tmp_path, description, {})
    assert text in str(refused.value) and str(tmp_path) in str(refused.value)


def test_a_folder_of_which_files_are_missing_is_refused_without_a_look_at_any_hub(
    dataset: Path, description: Any, tmp_path: Path
) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_bytes((dataset / "meta" / "info.json").read_bytes())
    with pytest.raises(DataError, match="cannot be read by LeRobot"):
        LeRobotFrames(tmp_path, description, {})


def test_a_worker_writes_what_is_learned_from_and_what_is_held_out(
    dataset: Path, written: Callable[[str], Path], tmp_path: Path
) -> None:
    spec = WorkerSpec(str(written("smolvla")), options=PolicyOptions(ROBOT), threads=1)
    with JobWorker(spec, tmp_path, in_a_thread) as worker:
        with pytest.raises(WorkerError, match="no pictures side for"):
            WorkerDatasets(worker, [dataset], {TOP: "side"})
        data = WorkerDatasets(worker, [dataset], {})
        learned = data.write_learned(100)
        before = worker.frames.digest
        held_out = data.write_held_out(100)
        lengths = data.write_episodes(2, 1000, 2)
        assert worker.frames.count == learned + held_out + sum(lengths) and worker.frames.digest != before
        store = FrameStore(worker.frames.descriptor)
        assert len(store) == worker.frames.count
        states = [own.proprioception.tobytes() for own in store]
        assert data.told() == {"datasets": [str(dataset)]}
    assert learned == 7 and held_out == 5, "of an instruction the last episode; a single short one is learned from"
    assert lengths == [3], "every second frame of the episode that is held out"
    rows = [*range(12), 7, 9, 11]
    assert states == [frame(row)["observation.state"].tobytes() for row in rows]
