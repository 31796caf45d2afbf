"""What a safetensors file says of its tensors, held against the file before anything is made for them; without torch.

A ``config.json`` of a hundred bytes may ask for a network of terabytes. So the shapes that it implies are worked out
without memory and compared with those in the header of the weights, whose sizes are compared with the file.
"""

import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.policies.checkpoint import MEND, looks_like

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

LARGEST_HEADER = 100_000_000  # bytes, as the safetensors library has it
LONGEST_SHAPE = 16  # sides
LENGTH = struct.Struct("<Q")  # of the header, in front of it
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip
Shapes = Mapping[str, tuple[int, ...]]


def read_shapes(path: Path) -> Shapes:
    """Read the names and shapes of the tensors in a safetensors file, and check that each lies in the file.

    Raises:
        CheckpointError: it is no such file, or says of itself what cannot be; names file, tensor, number and limit.
    """
    try:
        with path.open("rb") as source:
            size = source.seek(0, 2)
            source.seek(0)
            start = source.read(LENGTH.size)
            length = LENGTH.unpack(start)[0] if len(start) == LENGTH.size else 0
            most = min(size - LENGTH.size, LARGEST_HEADER)
            if not 0 < length <= most:
                raise _refused(path, f"it says that its header has {length} bytes, expected 1 to {max(most, 0)}")
            header = json.loads(source.read(length))
    except (OSError, ValueError, RecursionError) as error:
        raise _refused(path, f"its header cannot be read ({error!s:.120})") from error
    if not isinstance(header, dict):
        raise _refused(path, "its header is no JSON object")
    there = size - LENGTH.size - length
    return {name: _shape(path, name, said, there) for name, said in header.items() if name != "__metadata__"}


def require_fitting(make: "Callable[[], Module]", found: Shapes, path: Path) -> None:
    """Refuse weights that are not those of the module that ``make`` makes. It is made without memory for its weights.

    Raises:
        CheckpointError: missing, surplus or misshapen tensors, all named at once.
    """
    import torch

    with torch.device("meta"):
        module = make()
    _require_same(module, found, path)


def load_exactly(module: "Module", tensors: "dict[str, Tensor]", path: Path) -> None:
    """Make tensors the weights of a module, not copies of them; every name and shape must fit, all faults are named.

    Raises:
        CheckpointError: missing, surplus or misshapen tensors.
    """
    _require_same(module, {name: tuple(value.shape) for name, value in tensors.items()}, path)
    module.load_state_dict(tensors, assign=True)


def _require_same(module: "Module", found: Shapes, path: Path) -> None:
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    faults = [f"'{name}' is missing" for name in wanted.keys() - found.keys()]
    faults += [f"'{name}' is not of this model" for name in found.keys() - wanted.keys()]
    faults += [
        f"'{name}' is {found[name]}, expected {wanted[name]}"
        for name in wanted.keys() & found.keys()
        if wanted[name] != found[name]
    ]
    if faults:
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise CheckpointError(f"{path} does not fit its config.json: {'; '.join(sorted(faults)[:4])}{more}")


def _shape(path: Path, name: str, said: Any, there: int) -> tuple[int, ...]:
    """Return a tensor's shape by its entry in the header; ``there``: bytes behind the header."""
    known = said if isinstance(said, dict) else {}
    shape, place = (_sizes(known.get(key)) for key in ("shape", "data_offsets"))
    kind = known.get("dtype")
    if not isinstance(kind, str) or kind not in BITS or shape is None or place is None or len(place) != 2:
        raise _refused(path, f"its header says {said!r:.80} of tensor '{name:.60}'")
    needed = math.prod(shape) * BITS[kind] // 8
    if not place[0] <= place[1] <= there or place[1] - place[0] != needed:
        raise _refused(
            path,
            f"tensor '{name:.60}' says that it is {str(shape):.60} of {kind} at bytes {str(place):.60}, "
            f"{there} bytes are there",
        )
    return shape


def _sizes(values: Any) -> tuple[int, ...] | None:
    """Return a list of sizes as a tuple, None where it is none."""
    if not isinstance(values, list) or len(values) > LONGEST_SHAPE:
        return None
    return tuple(values) if all(type(value) is int and 0 <= value < 2**63 for value in values) else None


def _refused(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is {looks_like(path)}: {why}; {MEND}")
