"""Whether a CPU is quicker in bfloat16: without instructions for it that costs five times as long as float32."""

from contextlib import AbstractContextManager, nullcontext

import torch


def cpu_has_bfloat16() -> bool:
    """Tell whether matrix products in bfloat16 have instructions of their own here (AVX-512 and later)."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def quick_on_cpu() -> AbstractContextManager[None]:
    """Return the autocast in which frozen layers run while something is trained through them on a CPU."""
    return torch.autocast("cpu", torch.bfloat16) if cpu_has_bfloat16() else nullcontext()
