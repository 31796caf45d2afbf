"""What is chosen on full-depth runs: static layers before distillation, thresholds after it.

Static layers go to ``static_layers.json``, thresholds of adapters that are trained to ``calibration.json``.
"""

from pathlib import Path

from dysl_vla_ros.calibration.threshold_search import prior_verdict, search
from dysl_vla_ros.distillation.candidates import StaticChoice
from dysl_vla_ros.distillation.chosen_layers import STATIC_LAYERS
from dysl_vla_ros.distillation.static_choice import choose_static
from dysl_vla_ros.engines.torch.devices import device_named
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.files import require_writable, write_json
from dysl_vla_ros.jobs.distill import record_teacher
from dysl_vla_ros.jobs.learning_data import folder_of, has_adapters, opened, recordings_entry, refuse_recording_options
from dysl_vla_ros.jobs.results import Thresholds, calibration_entry
from dysl_vla_ros.jobs.settings import AnyPath, CalibrateSettings, Data
from dysl_vla_ros.policies.layouts import OURS, layout_of
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.runs.training_data import TrainingData
from dysl_vla_ros.runtime.folder import save_dysl
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import actions_judged
from dysl_vla_ros.skipping.importance import check_count, static_count

HELD_OUT = 256  # frames that both floors are judged on


def calibrate(
    checkpoint: AnyPath,
    data: Data | TrainingData = (),
    adapters: AnyPath = "",
    settings: CalibrateSettings | None = None,
) -> StaticChoice | Thresholds:
    """Choose static layers; where the DySL folder has adapters, search their thresholds instead.

    Args:
        checkpoint: folder of the base.
        data: a folder that ``dysl_vla demonstrations`` wrote, or one or more bags; for LeRobot's checkpoints
            LeRobotDataset folders too; or what ``distill`` had opened.
            Thresholds are searched on what is held out of bags, else on runs that are played in the simulator (of
            another project's checkpoint on recordings alone).
        adapters: DySL folder, made where it is missing; "": ``dysl`` in the checkpoint.
        settings: None: the defaults of the command line.

    Raises:
        CheckpointError: a folder cannot be used.
        DataError: too little data, or it is neither demonstrations nor bags; a folder cannot be written to.
        BagError: a bag cannot serve the policy.
        SettingError: the device or the number of static layers is none that there is.
        WorkerError: another project's checkpoint cannot be loaded in its Python; says why.
    """
    if has_adapters(folder_of(checkpoint, adapters)):
        return thresholds(checkpoint, data, adapters, settings)
    return static_layers(checkpoint, data, adapters, settings)


def static_layers(
    checkpoint: AnyPath,
    data: Data | TrainingData,
    adapters: AnyPath = "",
    settings: CalibrateSettings | None = None,
) -> StaticChoice:
    """Choose static layers of any checkpoint; see :func:`calibrate`."""
    if layout_of(Path(checkpoint)) == OURS:
        return choose_layers(checkpoint, data, adapters, settings)
    from dysl_vla_ros.job_worker.opening import opened_worker
    from dysl_vla_ros.jobs import apart

    settings, folder = settings or CalibrateSettings(), folder_of(checkpoint, adapters)
    with opened_worker(checkpoint, folder, settings.apart, settings.device) as worker:
        return apart.choose_layers(worker, apart.open_here(worker, data, settings.data), folder, settings)


def thresholds(
    checkpoint: AnyPath,
    data: Data | TrainingData = (),
    adapters: AnyPath = "",
    settings: CalibrateSettings | None = None,
) -> Thresholds:
    """Search thresholds of any checkpoint's adapters; see :func:`calibrate`."""
    if layout_of(Path(checkpoint)) == OURS:
        return search_thresholds(checkpoint, data, adapters, settings)
    from dysl_vla_ros.job_worker.opening import opened_worker
    from dysl_vla_ros.jobs import apart

    settings, folder = settings or CalibrateSettings(), folder_of(checkpoint, adapters)
    with opened_worker(checkpoint, folder, settings.apart, settings.device) as worker:
        return apart.search_thresholds(worker, apart.open_here(worker, data, settings.data), folder, settings)


def choose_layers(
    checkpoint: AnyPath,
    data: Data | TrainingData,
    adapters: AnyPath = "",
    settings: CalibrateSettings | None = None,
) -> StaticChoice:
    """Measure similarity, try both floors, write ``static_layers.json``.

    See :func:`calibrate`.
    """
    settings, folder = settings or CalibrateSettings(), folder_of(checkpoint, adapters)
    policy = load_policy(Path(checkpoint), device_named(settings.device, "--device"))
    layers, wanted = len(policy.layers), settings.static_layers
    count = static_count(layers, settings.static_ratio) if wanted is None else check_count(layers, wanted)
    require_writable(folder)
    seen = opened(data, settings.data, Runtime(policy, None))
    if seen is None:
        raise DataError(f"{folder} has no adapters yet, so static layers are chosen first: name the data folder too")
    frames, both = seen.learned_count(settings.observations), settings.static == "auto"
    kept = None if both else ()  # without a trial only similarity is measured
    activations = record_teacher(policy, seen, frames, kept, folder=folder)
    held_out = record_teacher(policy, seen, HELD_OUT, held_out=True, label="the same, held out") if both else None
    choice = choose_static(activations, count, settings.static, held_out=held_out)
    write_json(
        folder / STATIC_LAYERS,
        {
            "base_sha256": policy.weights_hash,
            "choice": choice.choice,
            "static": list(choice.partition.static),
            "similarity": list(choice.similarity),
            "floor_errors": choice.floor_errors,
            **recordings_entry(seen),
        },
    )
    return choice


def search_thresholds(
    checkpoint: AnyPath,
    data: Data | TrainingData = (),
    adapters: AnyPath = "",
    settings: CalibrateSettings | None = None,
) -> Thresholds:
    """Search on full-depth runs, write controllers' offsets and ``calibration.json``; adapters stay.

    See :func:`calibrate`.
    """
    settings, folder = settings or CalibrateSettings(), folder_of(checkpoint, adapters)
    device_named(settings.device, "--device")
    runtime = Runtime.load(str(checkpoint), str(folder), settings.device, calibrated=False)
    assert runtime.dysl is not None
    m, config = actions_judged(settings.actions_per_inference), runtime.dysl.config
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
        calibration=calibration_entry(found, m, len(runs), inferences, recordings_entry(seen)),
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
        return seen.held_out_runs(every_layer, actions_judged(settings.actions_per_inference))
    from dysl_vla_ros.evaluation.calibration_runs import SimulatedRuns, simulated_runs

    refuse_recording_options(settings.data)
    played = SimulatedRuns(settings.data.tasks, settings.seeds, settings.jobs, settings.device)
    return simulated_runs(Path(checkpoint), actions_judged(settings.actions_per_inference), played)
