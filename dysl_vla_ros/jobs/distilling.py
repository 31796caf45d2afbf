"""Distillation and what follows it, over one loaded policy where loading takes long: what ``dysl_vla distill`` does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dysl_vla_ros.control.chunk_time import require_actions
from dysl_vla_ros.job_worker.dataset import Recordings
from dysl_vla_ros.jobs.learning_data import folder_of
from dysl_vla_ros.jobs.results import Distilled, Thresholds
from dysl_vla_ros.jobs.settings import AnyPath, CalibrateSettings, Data, DistillSettings
from dysl_vla_ros.policies.layouts import OURS, layout_of
from dysl_vla_ros.runs.training_data import TrainingData

if TYPE_CHECKING:
    from dysl_vla_ros.job_worker.client import JobWorker


@dataclass(frozen=True)
class Distilling:
    """A checkpoint that is distilled and calibrated; ``worker``: that has it loaded, None: this process loads it."""

    checkpoint: AnyPath
    adapters: AnyPath
    settings: DistillSettings
    worker: "JobWorker | None"

    def require_actions(self, m: int) -> None:
        """Refuse more actions an inference than a chunk has.

        Raises:
            SettingError: there are fewer.
        """
        if self.worker:
            require_actions(m, self.worker.description.action.horizon)
        elif m > 1:
            from dysl_vla_ros.policies.registry import load_policy

            require_actions(m, load_policy(Path(self.checkpoint)).action.horizon)

    def distill(self, data: Data) -> Distilled:
        """Train adapters and controllers; see :func:`dysl_vla_ros.jobs.distill.distill`."""
        from dysl_vla_ros.jobs import apart
        from dysl_vla_ros.jobs.distill import distill

        if self.worker is None:
            return distill(self.checkpoint, data, self.adapters, self.settings)
        folder = folder_of(self.checkpoint, self.adapters)
        return apart.train(self.worker, apart.open_here(self.worker, data, self.settings.data), folder, self.settings)

    def search_thresholds(self, data: Recordings, settings: CalibrateSettings) -> Thresholds:
        """Search thresholds on what is held out of the same data."""
        from dysl_vla_ros.jobs import apart
        from dysl_vla_ros.jobs.calibrate import search_thresholds

        if self.worker is None:
            assert isinstance(data, TrainingData), "datasets are read by a worker"
            return search_thresholds(self.checkpoint, data, self.adapters, settings)
        return apart.search_thresholds(self.worker, data, folder_of(self.checkpoint, self.adapters), settings)


@contextmanager
def opened_distilling(checkpoint: AnyPath, adapters: AnyPath, settings: DistillSettings) -> Iterator[Distilling]:
    """Have a worker load another project's checkpoint, for the length of a ``with`` block.

    Raises:
        WorkerError: it cannot be loaded; says why.
    """
    if layout_of(Path(checkpoint)) == OURS:
        yield Distilling(checkpoint, adapters, settings, None)
        return
    from dysl_vla_ros.job_worker.opening import opened_worker

    folder = folder_of(checkpoint, adapters)
    with opened_worker(checkpoint, folder, settings.apart, settings.device) as worker:
        yield Distilling(checkpoint, adapters, settings, worker)
