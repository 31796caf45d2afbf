"""Calibration and distillation of other projects' checkpoints: recordings are read here, a worker computes.

The worker runs in the Python that ``model.python`` names, where the policy's library lives; see
:mod:`dysl_vla_ros.job_worker`. Thresholds come from recorded episodes alone: such an arm has no simulator.
"""

import dataclasses
import logging
from pathlib import Path

from dysl_vla_ros.calibration.threshold_search import prior_verdict, search_passes
from dysl_vla_ros.control.chunk_time import require_actions
from dysl_vla_ros.distillation.beside.plan import DistillationPlan
from dysl_vla_ros.distillation.candidates import TRIAL_STEPS, StaticChoice
from dysl_vla_ros.distillation.chosen_layers import STATIC_LAYERS
from dysl_vla_ros.distillation.settings import DistillationSettings
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.files import write_json
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.job_worker.client import JobWorker
from dysl_vla_ros.job_worker.dataset import Recordings, WorkerDatasets
from dysl_vla_ros.job_worker.messages import (
    ChooseLayers,
    ChosenByWorker,
    Distill,
    Done,
    FramesThere,
    SaveThresholds,
    TrainedByWorker,
)
from dysl_vla_ros.job_worker.passes import WorkerPasses
from dysl_vla_ros.jobs.learning_data import DATASETS, kind_of, open_for, paths_of, recordings_entry
from dysl_vla_ros.jobs.results import Distilled, Thresholds, calibration_entry
from dysl_vla_ros.jobs.settings import CalibrateSettings, Data, DataSettings, DistillSettings
from dysl_vla_ros.recordings.full_depth import SHORTEST_RUN
from dysl_vla_ros.recordings.learning_data import RecordedData
from dysl_vla_ros.runs.training_data import TrainingData
from dysl_vla_ros.settings import actions_judged
from dysl_vla_ros.skipping.importance import check_count, static_count
from dysl_vla_ros.skipping.partition import LayerPartition

LOG = logging.getLogger(__name__)
HELD_OUT = 256  # frames to judge by at most
TRIAL_BATCH = 8  # frames a step of the trials of static layers
SEARCHED_ON = 1000  # inferences, at most: each way through the layers is one pass over each of them


def open_here(worker: JobWorker, data: Data | Recordings, settings: DataSettings) -> Recordings:
    """Open recordings for the worker's policy, unless they are open.

    Raises:
        DataError: there are none, or too little.
        BagError: a bag cannot serve the policy.
        WorkerError: a LeRobotDataset cannot be read there, or cannot serve the policy; says why.
    """
    if isinstance(data, TrainingData | WorkerDatasets):
        return data
    paths = paths_of(data)
    if not paths:
        raise DataError("thresholds of another project's checkpoint are searched on recordings: name one or more bags")
    if kind_of(paths, settings) == DATASETS:
        return WorkerDatasets(worker, paths, settings.recordings.remapped)
    known: dict[str, str] = {}

    def unreadable(text: str) -> str:
        if text not in known:
            known[text] = worker.reads(text)
        return known[text]

    return open_for(paths, settings, worker.description, unreadable)


def choose_layers(worker: JobWorker, seen: Recordings, folder: Path, settings: CalibrateSettings) -> StaticChoice:
    """Have similarity measured and both floors tried, and write ``static_layers.json``."""
    layers, wanted = worker.description.layers_total, settings.static_layers
    count = static_count(layers, settings.static_ratio) if wanted is None else check_count(layers, wanted)
    _write_frames(worker, seen, settings.observations)
    hidden_steps, action_steps = TRIAL_STEPS
    trial = DistillationSettings(hidden_steps=hidden_steps, action_steps=action_steps, batch_size=TRIAL_BATCH)
    found = worker.ask(ChooseLayers(count, settings.static, trial, settings.apart.together), ChosenByWorker)
    partition = LayerPartition(layers, found.static)
    write_json(
        folder / STATIC_LAYERS,
        {
            "base_sha256": worker.description.weights_hash,
            "choice": found.choice,
            "static": list(found.static),
            "similarity": list(found.similarity),
            "floor_errors": dict(found.floor_errors),
            **recordings_entry(seen),
        },
    )
    return StaticChoice(found.choice, partition, found.similarity, dict(found.floor_errors))


def train(worker: JobWorker, seen: Recordings, folder: Path, settings: DistillSettings) -> Distilled:
    """Have both stages trained and the DySL folder written, without thresholds."""
    if settings.variants:
        raise DataError(
            f"--variants {settings.variants}: frames are not varied for another project's checkpoint, whose pictures "
            "its library prepares; give --variants 0"
        )
    _write_frames(worker, seen, settings.observations)
    plan = DistillationPlan(
        str(folder.absolute()),
        dataclasses.replace(settings.stages, compile=False),
        settings.modules,
        str(settings.go_on_from.absolute()) if settings.go_on_from else "",
        settings.apart.together,
        worker.frames.digest,
        seen.told(),
    )
    made = worker.ask(Distill(plan), TrainedByWorker)
    return Distilled(folder, made.report, made.warnings, seen)


def search_thresholds(worker: JobWorker, seen: Recordings, folder: Path, settings: CalibrateSettings) -> Thresholds:
    """Search on recorded episodes that are held out, and have controllers' offsets and ``calibration.json`` written."""
    m, layers = actions_judged(settings.actions_per_inference), worker.description.layers_total
    require_actions(m, worker.description.action.horizon)
    lengths = _write_runs(worker, seen, m)
    passes = WorkerPasses(worker, str(folder.absolute()), m, lengths)
    found = search_passes(passes, m, settings.target_layers * layers)
    best, inferences = found.best, sum(lengths)
    calibration = calibration_entry(found, m, len(lengths), inferences, recordings_entry(seen))
    worker.ask(SaveThresholds(best.tolerated_error, calibration), Done)
    verdict = prior_verdict(best.evenness)
    return Thresholds(
        folder, best, tuple(found.front), found.signals, inferences, layers, (verdict,) if verdict else ()
    )


def _write_frames(worker: JobWorker, seen: Recordings, count: int) -> None:
    """Put frames to learn from, and frames to judge by, where the worker reads them."""
    if isinstance(seen, WorkerDatasets):
        learned, held_out = seen.write_learned(count), seen.write_held_out(HELD_OUT)
    else:
        learned = worker.frames.add(seen.observations(seen.learned_count(count)))
        held_out = worker.frames.add(seen.held_out_observations(HELD_OUT))
    if learned < 2 or not held_out:
        raise DataError(f"{learned} frames to learn from and {held_out} to judge by are too few; record more")
    LOG.info("%d frames to learn from, %d to judge by", learned, held_out)
    worker.tell(FramesThere(learned, held_out))


def _write_runs(worker: JobWorker, seen: Recordings, m: int) -> list[int]:
    """Put held-out episodes behind the frames that are there; return how long each is."""
    if not worker.frames.count:
        worker.tell(FramesThere(0, 0))
    if isinstance(seen, WorkerDatasets):
        lengths = seen.write_episodes(m, SEARCHED_ON, SHORTEST_RUN)
    else:
        lengths = _write_episodes(worker, seen, m)
    if not lengths:
        raise DataError(f"no episode that is held out has {SHORTEST_RUN} inferences; record longer ones")
    return lengths


def _write_episodes(worker: JobWorker, seen: TrainingData, m: int) -> list[int]:
    if isinstance(seen, RecordedData):
        moments = seen.held_out_episodes(m, SEARCHED_ON)
    else:
        frames, begins = seen.in_order(SEARCHED_ON * m, held_out=True)
        moments = zip(frames, begins, strict=True)
    lengths: list[int] = []
    episode: list[Observation] = []
    for observation, begin in (*moments, (None, True)):
        if begin and episode:
            if len(episode) >= SHORTEST_RUN:
                worker.frames.add(episode)
                lengths.append(len(episode))
            episode = []
        if observation is not None:
            episode.append(observation)
    return lengths
