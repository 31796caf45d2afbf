"""``dataset_statistics.json``: the ends of actions and proprioception that became -1 and 1 in training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.policies.checkpoint import MEND

STATISTICS = "dataset_statistics.json"
BOUNDS = {"q99": ("q01", "q99"), "min_max": ("min", "max")}  # model.bounds -> the lower and the upper end


@dataclass(frozen=True)
class Statistics:
    """Of actions or proprioception: the ends that become -1 and 1, and which values are normalised at all."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    mask: tuple[bool, ...]


def choose_statistics(
    statistics: Mapping[str, Any], source: Path, sizes: Mapping[str, int], key: str, bounds: str
) -> tuple[str, Statistics, Statistics]:
    """Return the key of a data set, and its statistics of actions and of proprioception.

    Args:
        statistics: the whole file.
        source: its path.
        sizes: of ``action`` and ``proprio``, as the weights have them.
        key: of the data set, ``model.statistics_key``; "": the only one.
        bounds: one of BOUNDS.

    Raises:
        CheckpointError: there is no such key, several to choose from, or what it names cannot serve.
    """
    known = ", ".join(statistics)
    if not key and len(statistics) > 1:
        raise CheckpointError(
            f"{source} has statistics of several data sets; set model.statistics_key to one of {known}"
        )
    key = key or next(iter(statistics))
    if key not in statistics:
        raise CheckpointError(f"{source} has no {key!r:.80}; set model.statistics_key to one of {known}")
    own = json_part(statistics, key, source)
    action, proprioception = (
        _statistics(json_part(own, name, source, f"{key}."), f"{key}.{name}", size, bounds, source)
        for name, size in sizes.items()
    )
    return key, action, proprioception


def _statistics(values: Mapping[str, Any], where: str, size: int, bounds: str, source: Path) -> Statistics:
    faults, ends = [], []
    for name in BOUNDS[bounds]:
        found = values.get(name)
        if not isinstance(found, list) or not all(type(value) in (int, float) for value in found):
            faults.append(f"{where}.{name} is {found!r:.60}, expected a list of numbers (model.bounds is {bounds})")
        elif len(found) != size:
            faults.append(f"{where}.{name} has {len(found)} values, the weights {size}")
        elif not all(map(math.isfinite, found)):
            faults.append(f"{where}.{name} is not finite")
        else:
            ends.append(tuple(map(float, found)))
    mask = values.get("mask", [True] * size)
    if not isinstance(mask, list) or not all(type(value) is bool for value in mask) or len(mask) != size:
        faults.append(f"{where}.mask is {mask!r:.60}, expected {size} times true or false")
    if not faults:
        places = [f"{i}" for i, (low, high) in enumerate(zip(*ends, strict=True)) if low > high]
        faults += [f"{where}: the lower end lies above the upper one at {', '.join(places)}"] if places else []
    if faults:
        raise CheckpointError(f"{source}: {'; '.join(faults)}; {MEND}")
    return Statistics(ends[0], ends[1], tuple(mask))


def json_part(values: Mapping[str, Any], name: str, source: Path, parent: str = "") -> Mapping[str, Any]:
    """Return the object that ``values`` has under a name.

    Raises:
        CheckpointError: there is none; names the key, with ``parent`` in front.
    """
    found = values.get(name)
    if not isinstance(found, dict):
        raise CheckpointError(f"{source}: {parent}{name} is {found!r:.60}, expected a JSON object; {MEND}")
    return found
