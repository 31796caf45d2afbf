"""Thresholds for adapters that are trained: searched on full-depth runs, written to ``calibration.json``."""

from dataclasses import dataclass
from pathlib import Path

from dysl_vla_ros.calibration import signals
from dysl_vla_ros.calibration.signals import Signal
from dysl_vla_ros.calibration.threshold_search import Trial, prior_verdict, search
from dysl_vla_ros.jobs.learning_data import folder_of, opened, recordings_entry, refuse_recording_options
from dysl_vla_ros.jobs.settings import AnyPath, CalibrateSettings, Data
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.runs.training_data import TrainingData
from dysl_vla_ros.runtime.devices import device_named
from dysl_vla_ros.runtime.folder import save_dysl
from dysl_vla_ros.runtime.step import Runtime


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


def search_thresholds(
    checkpoint: AnyPath,
    data: Data | TrainingData = (),
    adapters: AnyPath = "",
    settings: CalibrateSettings | None = None,
) -> Thresholds:
    """Search on full-depth runs, write controllers' offsets and ``calibration.json``; adapters stay.

    See :func:`~dysl_vla_ros.jobs.calibrate.calibrate`.
    """
    settings, folder = settings or CalibrateSettings(), folder_of(checkpoint, adapters)
    device_named(settings.device, "--device")
    runtime = Runtime.load(str(checkpoint), str(folder), settings.device, calibrated=False)
    assert runtime.dysl is not None
    m, config = settings.actions_per_inference, runtime.dysl.config
    seen = opened(data, settings.data, runtime)
    runs = _full_depth_runs(checkpoint, seen, runtime, settings)
    found = search(runtime, runs, m, settings.target_layers * runtime.dysl.partition.num_layers)
    best, inferences = found.best, sum(len(run.chunks) for run in runs)
    save_dysl(
        folder,
        runtime.dysl.partition,
        runtime.dysl.modules,
        family=runtime.policy.family,
        base_sha256=runtime.policy.weights_hash,
        choice=config["partition"]["choice"],
        module_sizes=runtime.dysl.module_sizes,
        calibration={
            "guidance": best.to_json()["guidance"],
            "actions_per_inference": m,
            "runs": len(runs),
            "inferences": inferences,
            "chosen": best.to_json(),
            "front": [trial.to_json() for trial in found.front],
            "signals": signals.to_json(found.signals),
            **recordings_entry(seen),
        },
        training=config.get("training"),
    )
    verdict = prior_verdict(best.evenness)
    return Thresholds(
        folder,
        best,
        tuple(found.front),
        found.signals,
        inferences,
        runtime.dysl.partition.num_layers,
        (verdict,) if verdict else (),
    )


def _full_depth_runs(
    checkpoint: AnyPath, seen: TrainingData | None, runtime: Runtime, settings: CalibrateSettings
) -> list[FullDepthRun]:
    """Take what is held out of bags; without bags, play in the simulator."""
    from dysl_vla_ros.recordings.learning_data import RecordedData

    if isinstance(seen, RecordedData):
        every_layer = Runtime(runtime.policy, None)  # whether or not there are thresholds yet
        return seen.held_out_runs(every_layer, settings.actions_per_inference)
    from dysl_vla_ros.evaluation.calibration_runs import SimulatedRuns, simulated_runs

    refuse_recording_options(settings.data)
    played = SimulatedRuns(settings.data.tasks, settings.seeds, settings.jobs)
    return simulated_runs(Path(checkpoint), settings.actions_per_inference, played)
