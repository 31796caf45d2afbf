"""Time that goes on while the policy computes: virtual, so that results repeat and no machine's load is in them.

An inference lasts ``slow_down`` control periods times its cost over that of full depth; costs are those that were
measured once (:mod:`dysl_vla_ros.runtime.cost_model`), vision, head and verification included.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dysl_vla_ros.engines import TORCH
from dysl_vla_ros.evaluation.slow_down import require_slow_down
from dysl_vla_ros.interfaces import SkipTrace
from dysl_vla_ros.runtime.cost_model import CostModel
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.simulation.scene import STEPS_PER_TICK
from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD, SIMULATION_STEP

ROUNDING = 1e-9  # of a step: a delay that is a whole number of them takes no more


@dataclass(frozen=True)
class RealTime:
    """How long inferences last, by the weights that compute them."""

    slow_down: float  # control periods of an inference at full depth
    full_ms: float = 0.0  # milliseconds of an inference at full depth, of the policy that the slow-down is of
    costs: Mapping[str, CostModel] = field(default_factory=dict)  # by :func:`cost_name`; none: not measured

    def __post_init__(self) -> None:
        """Refuse a slow-down that is none."""
        require_slow_down(self.slow_down)

    def seconds(self, name: str, trace: SkipTrace) -> float:
        """Return how long an inference lasts, s of virtual time; ``name``: of what computes it, :func:`cost_name`."""
        calls, verified = np.array([trace.layer_calls], float), np.array([trace.verified], float)
        milliseconds = float(self.costs[name].milliseconds(calls, verified)[0])
        return self.slow_down * CONTROL_PERIOD * milliseconds / self.full_ms

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "slow_down": self.slow_down,
            "full_ms": round(self.full_ms, 4),
            "costs": {name: cost_to_json(own) for name, own in self.costs.items()},
        }


def cost_name(runtime: Runtime) -> str:
    """Return what a runtime's cost is kept under: the hash of its weights, and what computes, unless it is torch."""
    policy = runtime.policy
    on = policy.engine.name
    return policy.weights_hash if on == TORCH else f"{policy.weights_hash}:{on}"


def cost_to_json(cost: CostModel) -> dict[str, float]:
    """Return a cost as plain values, milliseconds."""
    return {name: round(getattr(cost, name), 4) for name in ("base", "layer", "verification", "spread")}


def whole_steps(seconds: float) -> int:
    """Return after how many simulation steps an inference of so many seconds has ended: one at least."""
    return max(1, math.ceil(seconds / SIMULATION_STEP - ROUNDING))


def phase(seed: int) -> int:
    """Return by how many simulation steps the control tick comes after the cameras' images in an episode.

    On a robot the two clocks know nothing of each other; here each phase comes as often.
    """
    return seed % STEPS_PER_TICK
