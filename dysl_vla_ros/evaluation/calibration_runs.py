"""Full-depth runs that thresholds are searched on, played in scenes that neither demonstrations nor tables use."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings, full_depth_runs
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.settings import RuntimeSettings
from dysl_vla_ros.simulation.seeds import calibration_seeds
from dysl_vla_ros.simulation.tasks import tasks_named

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SimulatedRuns:
    """Which runs are played."""

    tasks: tuple[str, ...] = ()  # names; (): easy and hard
    seeds: int = 2  # runs a task
    jobs: int = os.cpu_count() or 1  # processes that play them
    device: str = "cpu"  # where the policy computes in each


def simulated_runs(checkpoint: Path, m: int, settings: SimulatedRuns | None = None) -> list[FullDepthRun]:
    """Play full-depth runs of a checkpoint, ``m`` actions of each chunk.

    Raises:
        CheckpointError: it is none.
        DataError: an unknown task or one that is held out, or more seeds than there are calibration scenes.
        SettingError: the device is not there.
    """
    settings = settings or SimulatedRuns()
    seeds = calibration_seeds(settings.seeds)
    evaluation = EvaluationSettings(
        runtime=RuntimeSettings(actions_per_inference=m),
        first_seed=seeds.start,
        seeds=len(seeds),
        checkpoint=str(checkpoint),
        tasks=tuple(tasks_named(settings.tasks)),
        device=settings.device,
    )
    LOG.info("playing %d full-depth runs of %d tasks ...", settings.seeds, len(evaluation.tasks))
    runs, failed = full_depth_runs(evaluation, settings.jobs)
    if failed == len(evaluation.tasks) * len(seeds):
        LOG.warning(
            "full depth failed in all of them, which says little of a good motion; see that the checkpoint "
            "knows these tasks (--tasks), or raise --seeds"
        )
    elif failed:
        LOG.info("full depth failed in %d of them: left out", failed)
    return runs
