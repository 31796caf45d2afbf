"""The two ways to choose static layers, and the choice between them by what short trainings of both come to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dysl_vla_ros.skipping.importance import informative_static, spread_static
from dysl_vla_ros.skipping.partition import LayerPartition

TRIAL_STEPS = (150, 150)  # of the two parts of stage 1: enough to tell the floors apart


@dataclass(frozen=True)
class StaticChoice:
    """The partition that was chosen, and what it was chosen by."""

    choice: str  # "spread" or "informative"
    partition: LayerPartition
    similarity: tuple[float, ...]  # (L,)
    floor_errors: dict[str, float]  # candidate -> action L1 of its floor after the trial


def candidates(similarity: Sequence[float], count: int) -> dict[str, LayerPartition]:
    """Return both choices of ``count`` static layers, by name, for layers of this mean similarity (L,)."""
    values = np.array(similarity)
    layers = len(values)
    return {
        "spread": LayerPartition(layers, spread_static(layers, count)),
        "informative": LayerPartition(layers, informative_static(values, count)),
    }


def decide(
    similarity: tuple[float, ...], count: int, wanted: str, trial: Callable[[LayerPartition], float]
) -> StaticChoice:
    """Choose ``count`` static layers.

    Args:
        similarity: of each layer (L,).
        count: of static layers.
        wanted: a candidate's name, or "auto": the one of the smaller floor after a trial.
        trial: trains a candidate's floor and returns its action L1.
    """
    both = candidates(similarity, count)
    if wanted != "auto":
        return StaticChoice(wanted, both[wanted], similarity, {})
    errors = {name: trial(partition) for name, partition in both.items()}
    best = min(errors, key=lambda name: errors[name])
    return StaticChoice(best, both[best], similarity, errors)
