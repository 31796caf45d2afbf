"""Starts a training run in several processes of this machine, as torchrun does; for anything larger, use a launcher."""

import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from dysl_vla_ros.errors import WorkerError
from dysl_vla_ros.parent_process import die_with_parent
from dysl_vla_ros.simulation.tasks import Task
from dysl_vla_ros.training.options import TrainingSettings, as_arguments

MODULE = "dysl_vla_ros.training"
REASON = "DYSL_VLA_TRAINING_REASON"  # environment: the file in which a process says why it ends


def default_processes() -> int:
    """One a GPU; without any, one a core that this process may use."""
    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def train_in_processes(
    data: Path, output: Path, tasks: Sequence[Task], settings: TrainingSettings, processes: int = 0
) -> None:
    """Train the reference policy at full depth, or go on with a run that was ended; a bar shows how far it is.

    Args:
        data: folder of demonstrations.
        output: checkpoint folder that is written; an unfinished one is trained on.
        tasks: of the demonstrations.
        settings: sizes, steps, rates, and what the run begins with.
        processes: that average their gradients; 0: one a GPU, without any one a core. Never more than frames a step.

    Raises:
        CheckpointError: what it begins with is missing or damaged.
        DataError: what it begins with or the demonstrations cannot serve.
        WorkerError: a process ended early, with its own reason; call again to go on.
    """
    if settings.teacher or settings.base:
        from dysl_vla_ros.training.teacher import load_origin

        load_origin(tasks, settings)  # what cannot be started from is found out here, by one process and in one line
    launch(as_arguments(data, output, tasks, settings), min(processes or default_processes(), settings.batch_size))


def launch(arguments: list[str], processes: int) -> None:
    """Run :mod:`dysl_vla_ros.training` with ``arguments`` in ``processes`` processes and wait for their end.

    Raises:
        WorkerError: one of them ended early, with its own reason.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are here; the machine's name need not lead to an address
    with tempfile.TemporaryDirectory(prefix="dysl-vla-training-") as folder:
        os.environ[REASON] = str(Path(folder) / "reason")
        logging.disable(logging.ERROR)  # torchrun's lines about an end that is said here
        try:
            torchrun(["--standalone", f"--nproc-per-node={processes}", "-m", MODULE, *arguments])
        except ChildFailedError as error:
            if reason := said_reason():
                raise WorkerError(f"{reason}; then run again to go on") from error
            _, failure = error.get_first_failure()
            raise WorkerError(
                f"a training process ended early, exit code {failure.exitcode}; its own message stands above. "
                "Run again to go on"
            ) from error
        finally:
            logging.disable(logging.NOTSET)
            del os.environ[REASON]


def say_reason(text: str) -> bool:
    """Leave for the launcher, if it is ours, why this process ends; return whether one has done so.

    The one that says it first counts: the others fail by its end, or alike.
    """
    if not (path := os.environ.get(REASON)):
        return False
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        pass
    except OSError:  # a full disk, perhaps: the terminal is left
        return False
    return True


def said_reason() -> str:
    """Return why a process has ended, "" where none has said it."""
    try:
        return Path(os.environ.get(REASON, "")).read_text(encoding="utf-8")
    except OSError:
        return ""


def end_with_launcher() -> None:
    """Where torchrun started this process, have the kernel kill it with torchrun, so that none trains on alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    if not die_with_parent(os.getppid()):
        sys.exit("the launcher ended")
