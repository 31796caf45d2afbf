"""``random``: skips by chance, drawn from the episode's seed, so often that it comes to the mean depth of ``dysl``."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dysl_vla_ros.comparison.methods.method import CalibrationScenes, Method, MethodInputs, Prepared, trained, unguided
from dysl_vla_ros.skipping.depth_rules import RandomSkipping
from dysl_vla_ros.skipping.partition import LayerPartition

PROBABILITY = "random_probability"


def skip_probability(partition: LayerPartition, depth: float) -> float:
    """Return the probability with which :class:`RandomSkipping` runs ``depth`` layers on average."""

    def layers(probability: float) -> float:
        run = 1.0 - probability
        asked = (
            sum(point <= layer for point in points)  # skip points that let this layer run
            for points, (first, end) in zip(partition.points, partition.blocks, strict=True)
            for layer in range(first, end)
        )
        return len(partition.static) + sum(run**count for count in asked)

    low, high = 0.0, 1.0  # layers fall as the probability grows
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if layers(middle) > depth else (low, middle)
    return (low + high) / 2


def _set_up(scenes: CalibrationScenes) -> Mapping[str, Any]:
    _, dysl = scenes.loaded()
    assert scenes.depth is not None
    return {PROBABILITY: skip_probability(dysl.partition, scenes.depth)}


def _prepare(given: MethodInputs) -> Prepared:
    runtime, dysl = given.loaded()
    probability, generator = given.values[PROBABILITY], np.random.default_rng()
    runtime.rule_override = lambda points: RandomSkipping(dysl.partition, dysl.modules, probability, generator)

    def begin(seed: int) -> None:
        nonlocal generator
        generator = np.random.default_rng(seed)

    return Prepared(runtime, unguided(given.settings), trained(dysl), begin)


METHOD = Method("skips by chance, at equal mean depth", _prepare, depth=True, set_up=_set_up, sets=(PROBABILITY,))
