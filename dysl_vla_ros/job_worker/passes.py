"""Runs that a worker has looked at, as thresholds are searched on them: only figures travel."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from dysl_vla_ros.calibration.remembered_passes import RememberedStep
from dysl_vla_ros.interfaces import ActionSpec, FloatArray
from dysl_vla_ros.job_worker.client import JobWorker
from dysl_vla_ros.job_worker.messages import (
    AskFloor,
    AskOutputs,
    Chunks,
    FloorPart,
    Remember,
    Remembered,
    ReplayRuns,
)
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.settings import RuntimeSettings
from dysl_vla_ros.skipping.partition import LayerPartition


class WorkerPasses:
    """The :class:`~dysl_vla_ros.calibration.remembered_passes.Passes` of a worker.

    Attributes:
        runs: chunks at full depth; their observations are the worker's.
    """

    runs: tuple[FullDepthRun, ...]

    def __init__(self, worker: JobWorker, folder: str, m: int, lengths: Sequence[int]) -> None:
        """Have the worker run every layer on runs of ``lengths`` frames, which were written last, for a DySL folder."""
        self._worker = worker
        chunks: dict[int, list[FloatArray]] = defaultdict(list)

        def take(part: Chunks) -> None:
            chunks[part.run].append(part.actions)

        found = worker.pieces(Remember(folder, m, tuple(lengths)), Remembered, take)
        self.runs = tuple(FullDepthRun((), np.concatenate(chunks[run])) for run in range(len(lengths)))
        self._partition = LayerPartition(worker.description.layers_total, found.static, found.per_block)

    @property
    def partition(self) -> LayerPartition:
        """Which layers may be skipped, and where."""
        return self._partition

    @property
    def action(self) -> ActionSpec:
        """What the policy's actions are."""
        return self._worker.description.action

    def replay(self, settings: RuntimeSettings, runs: Sequence[int] | None = None) -> Iterator[RememberedStep]:
        """ReplayRuns runs; of each chunk come the actions that are played."""
        for part in self._worker.parts(ReplayRuns(settings, tuple(range(len(self.runs)) if runs is None else runs))):
            told = zip(part.layer_calls, part.verified, part.allow_points, part.warming_up, strict=True)
            for actions, step in zip(part.actions, told, strict=True):
                yield RememberedStep(actions, *step)

    def at_floor(self, m: int) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Yield for each run chunks, up to the m-th action, and skip probabilities at the floor."""
        found: dict[int, list[FloorPart]] = defaultdict(list)
        for part in self._worker.parts(AskFloor(m)):
            found[part.run].append(part)
        for run in range(len(self.runs)):
            own = found[run]
            yield np.concatenate([part.actions for part in own]), np.concatenate([part.probabilities for part in own])

    def outputs(self) -> FloatArray:
        """Return what controllers say along the deepest and along the shallowest way of every observation."""
        return np.concatenate([part.values for part in self._worker.parts(AskOutputs())])
