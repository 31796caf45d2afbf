"""LeRobotDataset folders where LeRobot cannot read them, or where nothing of theirs is wanted: refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.errors import DataError, WorkerError
from dysl_vla_ros.job_worker.apart import Apart
from dysl_vla_ros.job_worker.dataset import WorkerDatasets
from dysl_vla_ros.job_worker.opening import opened_worker
from dysl_vla_ros.jobs.learning_data import DATASETS, kind_of
from dysl_vla_ros.jobs.settings import DataSettings
from dysl_vla_ros.recordings.corrections import Corrections
from dysl_vla_ros.recordings.source import Choice
from job_worker_thread import in_a_thread
from test_job_worker import parameters
from tiny_openvla import convert, write_tiny_openvla

PICTURE = {"dtype": "video", "shape": [40, 48, 3]}


def write_info(folder: Path, **changed: Any) -> Path:
    """Write what such a folder says of itself, without a single frame."""
    (folder / "meta").mkdir(parents=True)
    features = {"full_image": PICTURE, "observation.state": {"dtype": "float32", "shape": [8]}}
    info = {"codebase_version": "v3.0", "fps": 10, "features": features} | changed
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    return folder


def test_without_the_librarys_extra_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    checkpoint, folder = convert(write_tiny_openvla(tmp_path / "oft")), write_info(tmp_path / "recorded")
    with opened_worker(checkpoint, tmp_path, Apart(parameters(tmp_path)), start=in_a_thread) as worker:
        with pytest.raises(WorkerError) as refused:
            WorkerDatasets(worker, [folder], {})
        assert "pip install 'lerobot[dataset]" in str(refused.value) and str(folder) in str(refused.value)
        assert worker.reads("pick it up") == "", "the worker lives on"


def test_a_checkpoint_of_ours_learns_from_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tiny_checkpoint import make_tiny_checkpoint

    checkpoint, folder = make_tiny_checkpoint(tmp_path / "base"), write_info(tmp_path / "recorded")
    assert main(["calibrate", str(checkpoint), str(folder)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert f"{folder} is a LeRobotDataset, which serves LeRobot's checkpoints" in told[-1]


@pytest.mark.parametrize(
    ("settings", "more", "text"),
    [
        (DataSettings(), "other", "give datasets alone, or bags alone"),
        (DataSettings(tasks=("easy",)), "", "--tasks names simulated tasks"),
        (DataSettings(recordings=Choice(instruction="go")), "", "--instruction go says how bags are read"),
        (DataSettings(recordings=Choice(corrections=Corrections("received"))), "", "--stamps received says how bags"),
    ],
)
def test_what_goes_with_no_such_folder_is_refused(settings: DataSettings, more: str, text: str, tmp_path: Path) -> None:
    folder = write_info(tmp_path / "recorded")
    with pytest.raises(DataError, match=text):
        kind_of([folder, *([tmp_path / more] if more else [])], settings)
    assert kind_of([folder], DataSettings(recordings=Choice(remapped={"full_image": "top"}))) == DATASETS


@pytest.mark.parametrize(("version", "text"), [("v2.1", "convert_dataset_v21_to_v30"), ("v4.0", "reads v3.x"), (3, "")])
def test_another_layout_is_refused_before_anything_is_loaded(version: Any, text: str, tmp_path: Path) -> None:
    folder = write_info(tmp_path / "recorded", codebase_version=version)
    with pytest.raises(DataError, match="codebase_version") as refused:
        kind_of([folder], DataSettings())
    assert text in str(refused.value) and str(folder) in str(refused.value)
    (folder / "meta" / "info.json").write_text('{"codebase_version"')
    with pytest.raises(DataError, match="cannot be read"):
        kind_of([folder], DataSettings())
