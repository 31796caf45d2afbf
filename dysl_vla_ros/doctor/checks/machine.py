"""What computes, with how many threads, and whether the model fits into the memory that is free."""

import importlib.util
import math
import os
from collections.abc import Iterator
from pathlib import Path

from dysl_vla_ros.doctor.examination import Examination
from dysl_vla_ros.doctor.finding import Finding, fail, ok, warn
from dysl_vla_ros.engines import ONNX, TORCH
from dysl_vla_ros.errors import CheckpointError

INSTALL_TORCH = "requirements/torch.txt (`make setup-training` in the package's folder)"
LIBRARIES = 400 * 2**20  # bytes of a worker before weights: Python, torch, transformers (measured: 0.40 GiB)
SPARE = 1.5  # times the need; below that it is tight
CGROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def execution_providers(examination: Examination) -> Iterator[Finding]:
    """Name what can run a policy: torch with its devices and threads, ONNX Runtime with its providers."""
    cores = len(os.sched_getaffinity(0))
    node = examination.graph.node if examination.graph else None
    threads = int(node.parameter("model.threads", 0)) if node else 0
    used = threads or max(1, cores // 2)
    try:
        import torch
    except ImportError:
        yield _without_torch(examination)
    else:
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        devices = f"cpu{''.join(f', {gpu}' for gpu in gpus)}"
        text = f"{torch.__version__} on {devices}; {cores} cores, the worker takes {used} threads"
        if used > cores:
            yield warn("torch", text, f"set model.threads to at most {cores}, or 0")
        elif cores < 2:
            yield warn("torch", f"{text}: node and model share one core", "give the process two cores or more")
        else:
            yield ok("torch", text)
    try:
        import onnxruntime
    except ImportError:
        yield ok("onnxruntime", "not installed; model.runtime: onnx needs it (requirements/onnx.txt), nothing else")
    else:
        providers = ", ".join(onnxruntime.get_available_providers())
        yield ok("onnxruntime", f"{onnxruntime.__version__}: {providers}")


def _without_torch(examination: Examination) -> Finding:
    """Judge a Python without torch by what else computes here, and by what the running node was told."""
    where, node = examination.worker_python, examination.graph.node if examination.graph else None
    if where:
        return warn(
            "torch",
            f"not in this Python; the worker runs in {where}",
            f"run the doctor there as well: {where} -m dysl_vla_ros.commands.main doctor",
        )
    install = f"{INSTALL_TORCH}, or name an interpreter that has it in model.python"
    if importlib.util.find_spec("onnxruntime") is None:
        return fail(
            "torch",
            "not installed, and ONNX Runtime neither: no policy runs in this Python",
            f"requirements/onnx.txt for what was exported (model.runtime: onnx); else {install}",
        )
    if node and (runtime := str(node.parameter("model.runtime", TORCH))) != ONNX:
        return fail(
            "torch",
            f"not installed, and model.runtime of the running node is {runtime}",
            f"set model.runtime to onnx (the line export says whether this checkpoint can); else {install}",
        )
    return ok(
        "torch", "not installed; ONNX Runtime computes what was exported (model.runtime: onnx). Training needs torch"
    )


def memory(examination: Examination) -> Iterator[Finding]:
    """Compare the memory that is free with what a worker needs for this checkpoint."""
    needed = LIBRARIES
    checkpoint = examination.checkpoint
    adapters = Path(examination.adapters) if examination.adapters else checkpoint / "dysl"
    for path in sorted([*checkpoint.glob("*.safetensors"), *adapters.glob("*.safetensors")]):
        needed += path.stat().st_size + 4 * count_values(path)  # as read, and as float32
    yield judge_memory(free_memory(), needed)


def judge_memory(free: int, needed: int) -> Finding:
    """Judge the bytes that are free against those needed."""
    text = f"{free / 2**30:.1f} GiB free, the worker needs about {needed / 2**30:.2f} GiB while it loads"
    if free < needed:
        return fail("memory", text, "end other programs, raise the container's limit, or take a smaller checkpoint")
    if free < SPARE * needed:
        return warn("memory", f"{text}: tight", "end other programs or raise the container's limit")
    return ok("memory", text)


def free_memory() -> int:
    """Return the bytes that a new process could take: the kernel's estimate, less where a control group limits it."""
    values = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(values["MemAvailable"].split()[0]) * 1024
    for limit_name, usage_name in CGROUPS:
        limit, usage = (Path("/sys/fs/cgroup") / name for name in (limit_name, usage_name))
        if limit.is_file() and usage.is_file() and (text := limit.read_text().strip()).isdigit():
            free = min(free, int(text) - int(usage.read_text()))
    return free


def count_values(path: Path) -> int:
    """Return the number of values in a safetensors file by its header; 0 where it is none, or numpy is not here."""
    try:
        from dysl_vla_ros.policies.weights_header import read_shapes

        return sum(math.prod(shape) for shape in read_shapes(path).values())
    except (CheckpointError, OSError, ImportError):
        return 0
