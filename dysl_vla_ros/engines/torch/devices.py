"""Where a policy computes, and in which numbers: by the names that settings have, and by what is quick there."""

from contextlib import AbstractContextManager, nullcontext

import torch

from dysl_vla_ros.errors import SettingError

CPU = torch.device("cpu")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_named(name: str, option: str = "model.device") -> torch.device:
    """Return the device of ``model.device``, or of another ``option``.

    Raises:
        SettingError: it is not there; says what is. A policy never runs elsewhere than it was told to.
    """
    there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in there:
        raise SettingError(f"{option} is {name!r}, this machine has {', '.join(there)} (as torch sees it)")
    return torch.device(wanted)


def dtype_named(name: str) -> torch.dtype | None:
    """Return what ``model.dtype`` stands for; None: the checkpoint's own."""
    return DTYPES[name] if name else None


def use_threads(number: int) -> None:
    """Compute in so many threads in this process, at least 1; bits depend on it."""
    torch.set_num_threads(number)


def cpu_has_bfloat16() -> bool:
    """Tell whether matrix products in bfloat16 have instructions of their own here (AVX-512 and later)."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def quick_on_cpu() -> AbstractContextManager[None]:
    """Return the autocast in which frozen layers run while something is trained through them on a CPU."""
    return torch.autocast("cpu", torch.bfloat16) if cpu_has_bfloat16() else nullcontext()
