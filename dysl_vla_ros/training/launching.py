"""Starts a training run in several processes of this machine, as torchrun does; for anything larger, use a launcher."""

import os
import sys

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from dysl_vla_ros.errors import WorkerError
from dysl_vla_ros.parent_process import die_with_parent

MODULE = "dysl_vla_ros.training"


def default_processes() -> int:
    """One a GPU; without any, one a core that this process may use."""
    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def launch(arguments: list[str], processes: int) -> None:
    """Run :mod:`dysl_vla_ros.training` with ``arguments`` in ``processes`` processes and wait for their end.

    Raises:
        WorkerError: one of them ended early.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are here; the machine's name need not lead to an address
    try:
        torchrun(["--standalone", f"--nproc-per-node={processes}", "-m", MODULE, *arguments])
    except ChildFailedError as error:
        raise WorkerError("a training process ended early; its own message stands above. Run again to go on") from error


def end_with_launcher() -> None:
    """Where torchrun started this process, have the kernel kill it with torchrun, so that none trains on alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    if not die_with_parent(os.getppid()):
        sys.exit("the launcher ended")
