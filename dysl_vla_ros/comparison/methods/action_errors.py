"""How far a depth rule's actions lie from full depth's, on full-depth runs: what methods of equal depth are set by."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dysl_vla_ros.engines import TORCH
from dysl_vla_ros.interfaces import FloatArray, Observation
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.skipping.stack import DepthRule, SkippableStack, StackContext
from dysl_vla_ros.skipping.streams import Bridge

if TYPE_CHECKING:
    from dysl_vla_ros.policies.interface import VlaPolicy

OBSERVATIONS = 256  # that rules are compared on, spread evenly over the runs
BATCH = 64  # of them, where the engine computes several at once


class ActionErrors:
    """Observations of the runs as they enter the stack, in batches, and the actions of full depth."""

    def __init__(self, policy: "VlaPolicy", runs: Sequence[FullDepthRun], m: int, bridge: Bridge) -> None:
        self._bridge = bridge
        self._policy, self._m, self._stack = policy, m, SkippableStack(policy.layers, policy.run_lengths)
        moments = [(o, chunk) for run in runs for o, chunk in zip(run.observations, run.chunks, strict=True)]
        places = np.linspace(0, len(moments) - 1, min(OBSERVATIONS, len(moments))).round().astype(int)
        chosen = [moments[place] for place in places]
        self.count = len(chosen)
        self._batches: list[tuple[Any, StackContext, FloatArray]] = []
        size = BATCH if policy.engine.name == TORCH else 1
        with policy.engine.computing():
            for start in range(0, len(chosen), size):
                part = chosen[start : start + size]
                wanted = np.stack([policy.action.normalise(chunk[:m]) for _, chunk in part])
                self._batches.append((*self._prepared([seen for seen, _ in part]), wanted))

    def errors(self, rule: DepthRule) -> FloatArray:
        """Return the mean absolute difference of the played actions to full depth's (n,), normalised."""
        found = []
        with self._policy.engine.computing():
            for hidden, context, wanted in self._batches:
                result = self._stack.run(hidden, context, rule)
                count = len(wanted)
                state, noise = self._policy.initial_state(count), self._policy.noise([0] * count)
                actions, _ = self._policy.decode(result, context, state, noise, self._bridge)
                given = self._policy.engine.numpy(actions)[:, : self._m]
                found.append(np.abs(given - wanted).mean(axis=(1, 2)))
        return np.concatenate(found)

    def _prepared(self, seen: Sequence[Observation]) -> tuple[Any, StackContext]:
        """Return observations as they enter the stack, in one batch."""
        policy = self._policy
        prepared = [policy.prepare([observation], policy.noise([0])) for observation in seen]
        if len(prepared) == 1:
            return prepared[0]
        import torch  # several at once: see BATCH

        hidden, contexts = zip(*prepared, strict=True)
        return torch.cat(hidden), policy.collate(contexts)
