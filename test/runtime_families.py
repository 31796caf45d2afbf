"""The policy families that the runtime is tested with, and what every such test needs: observations, actions, hooks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from dysl_vla_ros.interfaces import FloatArray, Observation
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.policies.reference import ReferenceNetwork, ReferencePolicy
from dysl_vla_ros.runtime.folder import DyslFolder
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import GuidanceSettings, RuntimeSettings
from dysl_vla_ros.skipping.partition import LayerPartition
from small_stacks import trained_like
from stateful_policy import StatefulPolicy
from tiny_checkpoint import tiny_config


@dataclass(frozen=True)
class Family:
    """A policy under test: how it is made, its stack's modules for hooks, its head's last layer."""

    make: Callable[[], VlaPolicy]
    modules: Callable[[Any], Any]
    head: Callable[[Any], torch.nn.Linear]


def reference_policy() -> ReferencePolicy:
    torch.manual_seed(6)
    return ReferencePolicy(ReferenceNetwork(tiny_config(8)), "6" * 64)


FAMILIES_UNDER_TEST = {
    "reference": Family(reference_policy, lambda p: p.network.layers, lambda p: p.network.head[-1]),
    "stateful": Family(StatefulPolicy, lambda p: p.stack.model.layers, lambda p: p.head),
}
PARTITION = LayerPartition(8, (0, 4, 7))
CALIBRATED = {"step": 0.2, "verify_threshold": 1e-6, "dead_band": 0.0, "stride": "integral", "verify_on": "any"}
UNGUIDED = RuntimeSettings(guidance=GuidanceSettings(prior=False, verify=False, warmup=0))
VERIFYING = RuntimeSettings(guidance=GuidanceSettings(prior=False, warmup=0))

families = pytest.mark.parametrize("family", FAMILIES_UNDER_TEST)
policy_of = cache(lambda family: FAMILIES_UNDER_TEST[family].make())


def runtime(family: str, eagerness: float = 9.0, policy: VlaPolicy | None = None) -> Runtime:
    """Return a runtime whose controllers skip wherever they may (9.0), nowhere (-9.0), or by the observation (0.0)."""
    policy = policy or policy_of(family)
    modules = trained_like(PARTITION, policy.width)
    for layer in PARTITION.dynamic:
        modules.controller(layer).offset.fill_(eagerness)
        modules.controller(layer).outer.weight.mul_(0.0 if eagerness else 5.0)
        modules.controller(layer).outer.bias.zero_()
    return Runtime(policy, DyslFolder(PARTITION, modules, {}, CALIBRATED))


def observation(policy: VlaPolicy, seed: int = 0) -> Observation:
    random = np.random.default_rng(seed)
    return Observation(
        images={camera: random.integers(0, 256, (72, 96, 3), dtype=np.uint8) for camera in policy.cameras},
        proprioception=random.normal(size=len(policy.proprioception.names)).astype(np.float32),
        instruction=policy.instructions[0],
    )


def nothing(policy: VlaPolicy) -> FloatArray:
    return np.zeros((0, policy.action.dimensions), dtype=np.float32)


def still(policy: VlaPolicy, count: int = 3) -> FloatArray:
    """Return actions that do not differ, so that any other action makes continuity fall."""
    return policy.action.denormalise(np.full((count, policy.action.dimensions), 5.0, dtype=np.float32))


def own_output(policy: VlaPolicy, *episode: Observation) -> FloatArray:
    """Return the chunk of the policy's own layers, one after the other, at the end of an episode."""
    state = policy.initial_state()
    with torch.inference_mode():
        for seen in episode:
            hidden, context = policy.prepare(seen)
            for layer in policy.layers:
                hidden = layer(hidden, context)
            actions, state = policy.decode(hidden, context, state)
    return policy.action.denormalise(actions[0].numpy())


class Recorded:
    """What hooks on the policy's layers saw while the block ran."""

    def __init__(self, family: str, policy: VlaPolicy) -> None:
        self.layers = FAMILIES_UNDER_TEST[family].modules(policy)

    def __enter__(self) -> list[int]:
        calls: list[int] = []
        self.hooks = [
            layer.register_forward_hook(lambda *_, index=index: calls.append(index))
            for index, layer in enumerate(self.layers)
        ]
        return calls

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()
