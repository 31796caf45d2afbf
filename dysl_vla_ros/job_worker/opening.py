"""A worker with another project's checkpoint loaded, as the user's parameter file says."""

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dysl_vla_ros.files import require_writable
from dysl_vla_ros.job_worker.apart import Apart
from dysl_vla_ros.job_worker.client import JobWorker, Start, start_process
from dysl_vla_ros.params_file import read_params_file
from dysl_vla_ros.worker.client import WorkerSpec

LARGEST_LOAD = 600.0  # s that loading may take where the parameter file does not say it


@contextmanager
def opened_worker(
    checkpoint: str | os.PathLike[str],
    folder: Path,
    apart: Apart,
    device: str = "cpu",
    start: Start = start_process,
    threads: int | None = None,
) -> Iterator[JobWorker]:
    """Load a checkpoint in the worker's Python, for the length of a ``with`` block.

    Args:
        checkpoint: folder of the base.
        folder: in which frames lie for that time.
        apart: what its files do not say.
        device: where to compute; ``cpu``: as the parameter file says.
        start: makes the process.
        threads: compute threads; None: as the parameter file says.

    Raises:
        SettingError: the parameter file cannot be read.
        WorkerError: the checkpoint cannot be loaded there; says why.
        DataError: ``folder`` cannot be written to.
    """
    require_writable(folder)
    spec = worker_spec(checkpoint, apart, device)
    if threads is not None:
        spec = dataclasses.replace(spec, threads=threads)
    with JobWorker(spec, folder, start) as worker:
        yield worker


def worker_spec(checkpoint: str | os.PathLike[str], apart: Apart, device: str) -> WorkerSpec:
    """Return what the worker loads and where it runs: as the parameter file says, but for what the user says beside."""
    if apart.params is None:
        return WorkerSpec(str(checkpoint), python=apart.python, device=device, load_timeout=LARGEST_LOAD)
    given = read_params_file(apart.params)
    spec = WorkerSpec.from_settings(given.groups["model"], given.robot)
    told = "model.load_timeout" in given.given
    return dataclasses.replace(
        spec,
        checkpoint=str(checkpoint),
        adapters="",
        python=apart.python or spec.python,
        device=spec.device if device == "cpu" else device,  # the option has that default
        load_timeout=spec.load_timeout if told else LARGEST_LOAD,
    )
