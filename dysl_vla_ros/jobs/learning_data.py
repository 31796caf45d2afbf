"""Opens what adapters learn from: demonstrations of the simulator, or bags of any robot, told apart by what is there.

Bags need nothing of the simulator.
"""

import dataclasses
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dysl_vla_ros.bags.folder import is_bag
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import PolicyDescription
from dysl_vla_ros.job_worker.dataset import Recordings
from dysl_vla_ros.jobs.settings import AnyPath, Data, DataSettings
from dysl_vla_ros.policies.lerobot.dataset import is_dataset, read_info
from dysl_vla_ros.runs.training_data import TrainingData
from dysl_vla_ros.simulation.tasks import tasks_named

if TYPE_CHECKING:
    from dysl_vla_ros.runtime.step import Runtime

WHAT = "folder that `dysl_vla demonstrations` wrote, or one or more bags"
ALL_KINDS = f"{WHAT}; for a checkpoint of LeRobot's LeRobotDataset folders (v3) too"
BAGS, DEMONSTRATIONS, DATASETS = "bags", "demonstrations", "LeRobotDataset folders"


def paths_of(data: Data) -> list[Path]:
    """Return one path or several as a list of them."""
    return [Path(data)] if isinstance(data, (str, PathLike)) else [Path(path) for path in data]


def folder_of(checkpoint: AnyPath, adapters: AnyPath = "") -> Path:
    """Return the DySL folder: the one that is named, else ``dysl`` in the checkpoint."""
    return Path(adapters) if adapters else Path(checkpoint) / "dysl"


def has_adapters(folder: Path) -> bool:
    """Tell whether a DySL folder was distilled, or only its static layers are chosen."""
    return any((folder / name).exists() for name in ("config.json", "adapters.safetensors"))  # one alone: damaged


def kind_of(paths: Sequence[Path], settings: DataSettings) -> str:
    """Return :data:`BAGS`, :data:`DEMONSTRATIONS` or :data:`DATASETS`.

    Raises:
        DataError: neither, a mixture, or settings that do not go with it.
    """
    if datasets := [path for path in paths if is_dataset(path)]:
        _require_datasets_alone(paths, datasets, settings)
        return DATASETS
    bags = [path for path in paths if is_bag(path)]
    if len(bags) == len(paths):
        if settings.tasks:
            raise DataError("--tasks names simulated tasks and does nothing for bags; leave it out")
        return BAGS
    refuse_recording_options(settings)
    others = [path for path in paths if path not in bags]
    if bags:
        raise DataError(f"{bags[0]} is a bag, {others[0]} is none; give bags alone, or one folder of demonstrations")
    if len(paths) > 1:
        raise DataError(f"{len(paths)} folders, none of them a bag; give one folder of demonstrations, or bags")
    _require_demonstrations(paths[0])
    return DEMONSTRATIONS


def refuse_recording_options(settings: DataSettings) -> None:
    """Refuse what would do nothing without a bag.

    Raises:
        DataError: names it.
    """
    if options := settings.recordings.as_options():
        raise DataError(f"{options} says how bags are read, and there is no bag; leave it out")


def open_data(paths: Sequence[Path], settings: DataSettings, runtime: "Runtime") -> TrainingData:
    """Open demonstrations or bags for the policy of ``runtime``, and log how much there is.

    Raises:
        DataError: neither, a mixture, or too little.
        BagError: a bag cannot serve the policy.
    """
    from dysl_vla_ros.recordings.source import instruction_judge

    return open_for(paths, settings, runtime.description, instruction_judge(runtime.policy))


def open_for(
    paths: Sequence[Path],
    settings: DataSettings,
    description: PolicyDescription,
    unreadable: Callable[[str], str],
) -> TrainingData:
    """Open data for a policy that may be elsewhere; ``unreadable`` says why it cannot read an instruction.

    Raises as :func:`open_data`.
    """
    kind = kind_of(paths, settings)
    if kind == DATASETS:
        raise DataError(
            f"{paths[0]} is a LeRobotDataset, which serves LeRobot's checkpoints, in the Python of LeRobot; name a "
            f"{WHAT}"
        )
    if kind == BAGS:
        from dysl_vla_ros.recordings.learning_data import open_recordings

        return open_recordings(paths, description, unreadable, settings.recordings)
    from dysl_vla_ros.training.demonstration_data import DemonstrationData

    return DemonstrationData(paths[0], tasks_named(settings.tasks))


def opened(data: Data | TrainingData, settings: DataSettings, runtime: "Runtime") -> TrainingData | None:
    """Return what a job was given, open; None: it was given nothing. Raises as :func:`open_data`."""
    if isinstance(data, TrainingData):
        return data
    paths = paths_of(data)
    return open_data(paths, settings, runtime) if paths else None


def recordings_entry(data: Recordings | None) -> dict[str, Any]:
    """Return the entry of a result file on where the data came from; {} for the simulator."""
    told = data.told() if data else {}
    return {"recordings": told} if told else {}


def _require_datasets_alone(paths: Sequence[Path], datasets: Sequence[Path], settings: DataSettings) -> None:
    """Refuse what is none beside them, another version's layout, and options that do nothing for them."""
    if others := [path for path in paths if path not in datasets]:
        raise DataError(f"{datasets[0]} is a LeRobotDataset, {others[0]} is none; give datasets alone, or bags alone")
    if settings.tasks:
        raise DataError("--tasks names simulated tasks and does nothing for a LeRobotDataset; leave it out")
    others_than_topics = dataclasses.replace(settings.recordings, remapped={})
    refuse_recording_options(dataclasses.replace(settings, recordings=others_than_topics))
    for path in datasets:
        read_info(path)


def _require_demonstrations(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder} is not there; name a {WHAT}")
    if not any(own.is_dir() and any(own.glob("[0-9]*.npz")) for own in folder.iterdir()):
        there = ", ".join(sorted(own.name for own in folder.iterdir())[:5]) or "nothing"
        raise DataError(
            f"{folder} is neither a folder of demonstrations (TASK/*.npz) nor a bag (metadata.yaml, .mcap, .db3) nor a "
            f"LeRobotDataset (meta/info.json): it holds {there}; name a {WHAT}"
        )
