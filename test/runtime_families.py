"""The policy families that the runtime is tested with, and what every such test needs: observations, actions, hooks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from dysl_vla_ros.interfaces import FloatArray, Observation
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.policies.reference import ReferenceNetwork, ReferencePolicy
from dysl_vla_ros.runtime.folder import DyslFolder
from dysl_vla_ros.runtime.noise import FRESH, noise_seed
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import GuidanceSettings, RuntimeSettings
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import full_result
from dysl_vla_ros.skipping.streams import no_bridge
from flow_policy import FlowPolicy
from small_stacks import trained_like
from stateful_policy import StatefulPolicy
from tiny_checkpoint import tiny_config


@dataclass(frozen=True)
class Family:
    """A policy under test: how it is made, the modules of its streams for hooks, its head's last layer."""

    make: Callable[..., VlaPolicy]  # takes a dtype
    modules: Callable[[Any], Any]
    head: Callable[[Any], torch.nn.Linear]
    followers: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)  # by stream


def reference_policy(dtype: torch.dtype = torch.float32) -> ReferencePolicy:
    torch.manual_seed(6)
    return ReferencePolicy(ReferenceNetwork(tiny_config(8)).to(dtype), "6" * 64)


FAMILIES_UNDER_TEST = {
    "reference": Family(reference_policy, lambda p: p.network.layers, lambda p: p.network.head[-1]),
    "stateful": Family(StatefulPolicy, lambda p: p.stack.model.layers, lambda p: p.head),
    "flow": Family(FlowPolicy, lambda p: p.leads, lambda p: p.leave, {"expert": lambda p: p.experts}),
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
    modules = trained_like(PARTITION, policy.streams)
    for layer in PARTITION.dynamic:
        modules.controller(layer).offset.fill_(eagerness)
        modules.controller(layer).outer.weight.mul_(0.0 if eagerness else 5.0)
        modules.controller(layer).outer.bias.zero_()
    return Runtime(policy, DyslFolder(PARTITION, modules.to(policy.dtype), {}, CALIBRATED))


def observation(policy: VlaPolicy, seed: int = 0) -> Observation:
    random = np.random.default_rng(seed)
    return Observation(
        images={camera: random.integers(0, 256, (72, 96, 3), dtype=np.uint8) for camera in policy.cameras},
        proprioception=random.normal(size=len(policy.proprioception.names)).astype(np.float32),
        instruction=policy.sample().instruction,
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
        for number, seen in enumerate(episode):
            hidden, context = policy.prepare([seen])
            for layer in policy.layers:
                hidden = layer(hidden, context)
            noise = policy.noise([noise_seed(FRESH, 0, number)])
            result = full_result(hidden, len(policy.layers))
            actions, state = policy.decode(result, context, state, noise, no_bridge)
    return policy.actions(actions, context)[0]


class Calls(list[int]):
    """Layers of the leading stream that ran, in their order; ``calls[stream]``: those of a follower."""

    def __init__(self, followers: Sequence[str]) -> None:
        super().__init__()
        self.followers: dict[str, list[int]] = {name: [] for name in followers}

    def __getitem__(self, place: Any) -> Any:
        return self.followers[place] if isinstance(place, str) else super().__getitem__(place)

    def clear(self) -> None:
        super().clear()
        for calls in self.followers.values():
            calls.clear()


class Recorded:
    """What hooks on the policy's layers saw while the block ran."""

    def __init__(self, family: str, policy: VlaPolicy) -> None:
        own = FAMILIES_UNDER_TEST[family]
        self.layers = own.modules(policy)
        self.followers = {name: modules(policy) for name, modules in own.followers.items()}

    def __enter__(self) -> Calls:
        calls = Calls(list(self.followers))
        streams = [(calls, self.layers), *((calls.followers[name], own) for name, own in self.followers.items())]
        self.hooks = [
            layer.register_forward_hook(lambda *_, index=index, calls=calls: calls.append(index))
            for calls, layers in streams
            for index, layer in enumerate(layers)
        ]
        return calls

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()
