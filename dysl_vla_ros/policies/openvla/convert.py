"""Head and projector of OpenVLA-OFT as safetensors, once, from the pickles in which its training leaves them.

The one place in this package that reads a pickle, with torch's loader that makes tensors and plain containers alone.
What the file then holds must be exactly one of the two modules; anything else is refused.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.files import written_together
from dysl_vla_ros.policies.checkpoint import MEND, POINTER, fill_tensors, looks_like, require_finite
from dysl_vla_ros.policies.openvla.files import HEAD, PROJECTOR, read_config, refuse_variants

WRAPPED = "module."  # in front of every key that was trained on several GPUs
_LINEAR = ("fc1", "fc2")
_HEAD = (
    "model.layer_norm1", "model.fc1", "model.layer_norm2", "model.fc2",
    *(f"model.mlp_resnet_blocks.{block}.ffn.{part}" for block in (0, 1) for part in (0, 1)),
)  # fmt: skip
KEYS = {
    name: frozenset(f"{module}.{kind}" for module in modules for kind in ("weight", "bias"))
    for name, modules in ((HEAD, _HEAD), (PROJECTOR, _LINEAR))
}


def convert_folder(folder: Path) -> list[Path]:
    """Write safetensors beside the pickles of head and projector: of both, or nothing changes. The pickles stay.

    Returns:
        What was written; none where all was there before.

    Raises:
        CheckpointError: no such folder, a pickle that is missing, damaged or holds something else; names file and key.
        DataError: the folder cannot be written to.
    """
    read_config(folder)
    refuse_variants(folder)
    sources = [source for name in KEYS if (source := _source(folder, name)) is not None]
    read = {source.with_suffix(".safetensors"): read_pickle(source) for source in sources}
    with written_together() as files:
        for path, tensors in read.items():
            files.add(path, fill_tensors(tensors, {"format": "pt"}))
    return list(read)


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a head or a projector.

    Raises:
        CheckpointError: see :func:`convert_folder`.
    """
    name = path.name.partition("--")[0]
    if looks_like(path) == POINTER:
        raise CheckpointError(f"{path} is {POINTER}, no weights; {MEND}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how old the pickle is
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged file the loader raises whatever comes
        said = str(error).strip().partition("\n")[0][:160]
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) cannot be read as tensors alone: {type(error).__name__}: {said}; "
            f"what could run code is never loaded; {MEND}"
        ) from error
    tensors = _tensors(found, path)
    if odd := [*sorted(tensors.keys() - KEYS[name]), *sorted(KEYS[name] - tensors.keys())]:
        what = "is missing" if odd[0] in KEYS[name] else f"is not of an OpenVLA-OFT {name}"
        raise CheckpointError(
            f"{path}: '{odd[0]}' {what} ({len(odd)} such keys); this version converts the L1 {name} alone"
        )
    for key, value in tensors.items():
        require_finite(path, key, value)
    return {key: value.contiguous().clone() for key, value in tensors.items()}  # each with memory of its own


def _tensors(found: Any, path: Path) -> dict[str, Tensor]:
    """Return a file's tensors by their names without the wrapping."""
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, expected tensors by their names; {MEND}")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or not value.is_floating_point():
            kind = f"tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise CheckpointError(f"{path}: {key!r:.80} is a {kind}, expected a tensor of numbers with a point; {MEND}")
    return {key.removeprefix(WRAPPED): value for key, value in found.items()}


def _source(folder: Path, name: str) -> Path | None:
    """Return the pickle to convert; None where it was converted before."""
    done, pickles = (sorted(folder.glob(f"{name}--*.{kind}")) for kind in ("safetensors", "pt"))
    if len(pickles) > 1:
        raise CheckpointError(f"{folder} has {len(pickles)} files {name}--*.pt; keep the one of your weights")
    if done:
        return None
    if not pickles:
        raise CheckpointError(f"{folder} has no {name}--*_checkpoint.pt; {MEND}")
    if not pickles[0].is_file():
        raise CheckpointError(f"{pickles[0]} is no file; {MEND}")
    return pickles[0]
