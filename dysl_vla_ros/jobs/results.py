"""What calibration and distillation leave, whichever process has computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dysl_vla_ros.calibration import signals
from dysl_vla_ros.calibration.signals import Signal
from dysl_vla_ros.calibration.threshold_search import Search, Trial
from dysl_vla_ros.job_worker.dataset import Recordings


@dataclass(frozen=True)
class Thresholds:
    """What a search for thresholds has found and written."""

    folder: Path  # the DySL folder, with ``calibration.json``
    best: Trial
    front: tuple[Trial, ...]  # no other beats them in both layers and error, shallowest first
    signals: dict[str, Signal]  # what each knows of the floor's action error
    inferences: int  # at full depth, that were searched on
    num_layers: int
    warnings: tuple[str, ...]


def calibration_entry(
    found: Search, m: int, runs: int, inferences: int, recordings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what ``calibration.json`` holds of a search; ``recordings``: the entry on where its data came from."""
    return {
        "guidance": found.best.to_json()["guidance"],
        "actions_per_inference": m,
        "runs": runs,
        "inferences": inferences,
        "chosen": found.best.to_json(),
        "front": [trial.to_json() for trial in found.front],
        "signals": signals.to_json(found.signals),
        **recordings,
    }


@dataclass(frozen=True)
class Distilled:
    """What a distillation has left."""

    folder: Path  # the DySL folder, without ``calibration.json``
    report: Mapping[str, Any]  # what ``distillation.json`` in it holds
    warnings: tuple[str, ...]  # what is wrong with the result, with what to do
    data: Recordings  # what was learned from, open: ``calibrate`` takes it too
