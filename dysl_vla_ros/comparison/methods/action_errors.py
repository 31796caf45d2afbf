"""How far a depth rule's actions lie from full depth's, on full-depth runs: what methods of equal depth are set by."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dysl_vla_ros.interfaces import FloatArray
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.skipping.stack import DepthRule, SkippableStack, StackContext
from dysl_vla_ros.skipping.streams import Bridge

OBSERVATIONS = 256  # that rules are compared on, spread evenly over the runs
BATCH = 64


class ActionErrors:
    """Observations of the runs as they enter the stack, in batches, and the actions of full depth."""

    def __init__(self, policy: VlaPolicy, runs: Sequence[FullDepthRun], m: int, bridge: Bridge) -> None:
        self._bridge = bridge
        self._policy, self._m, self._stack = policy, m, SkippableStack(policy.layers)
        moments = [(o, chunk) for run in runs for o, chunk in zip(run.observations, run.chunks, strict=True)]
        places = np.linspace(0, len(moments) - 1, min(OBSERVATIONS, len(moments))).round().astype(int)
        chosen = [moments[place] for place in places]
        self.count = len(chosen)
        self._batches: list[tuple[Tensor, StackContext, FloatArray]] = []
        with torch.inference_mode():
            for start in range(0, len(chosen), BATCH):
                part = chosen[start : start + BATCH]
                hidden, contexts = zip(*(policy.prepare([seen], policy.noise([0])) for seen, _ in part), strict=True)
                wanted = np.stack([policy.action.normalise(chunk[:m]) for _, chunk in part])
                self._batches.append((torch.cat(hidden), policy.collate(contexts), wanted))

    def errors(self, rule: DepthRule) -> FloatArray:
        """Return the mean absolute difference of the played actions to full depth's (n,), normalised."""
        found = []
        with torch.inference_mode():
            for hidden, context, wanted in self._batches:
                result = self._stack.run(hidden, context, rule)
                count = len(hidden)
                state, noise = self._policy.initial_state(count), self._policy.noise([0] * count)
                actions, _ = self._policy.decode(result, context, state, noise, self._bridge)
                given = actions[:, : self._m].float().cpu().numpy()
                found.append(np.abs(given - wanted).mean(axis=(1, 2)))
        return np.concatenate(found)
