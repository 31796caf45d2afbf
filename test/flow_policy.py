"""A third family for the tests: torch's own layers, an action expert that follows the leading stack, and noise.

In every flow step the expert's layers look at what the leading layers of the same number have left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dysl_vla_ros.errors import InstructionError, ObservationError
from dysl_vla_ros.interfaces import ActionSpec, Observation, ProprioceptionSpec
from dysl_vla_ros.policies.interface import CommonPolicy
from dysl_vla_ros.skipping.stack import StackResult
from dysl_vla_ros.skipping.streams import Bridge, Stream, follow

LAYERS, WIDTH, NARROW, STEPS, WORDS, PATCHES = 8, 32, 16, 3, 4, 6


@dataclass
class FlowContext:
    token_mask: Tensor  # (B, T) bool
    kept: list[Tensor | None] = field(default_factory=lambda: [None] * LAYERS)  # by layer, (B, T, NARROW), overwritten


class FlowPolicy(CommonPolicy):
    family, weights_hash, base_hash = "flow", "8" * 64, "9" * 64
    cameras, instructions = ("image",), ()
    proprioception = ProprioceptionSpec(("ee.x", "ee.y"), ("m", "m"))
    action = ActionSpec(6, 0.1, False, (0.01, 0.0, 0.02, 0.5), (0.02, 0.03, 0.02, 0.5))
    streams = (Stream("stack", WIDTH), Stream("expert", NARROW, STEPS))

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        torch.backends.mha.set_fastpath_enabled(False)  # it is left out where there are hooks: other bits
        torch.manual_seed(5)
        self.patches, self.words = nn.Linear(3, WIDTH), nn.Embedding(17, WIDTH)
        self.joints, self.enter, self.leave = nn.Linear(2, WIDTH), nn.Linear(4 + 1, NARROW), nn.Linear(NARROW, 4)
        form: dict[str, Any] = {"dropout": 0.0, "batch_first": True, "norm_first": True}
        self.leads = nn.ModuleList(nn.TransformerEncoderLayer(WIDTH, 2, 48, **form) for _ in range(LAYERS))
        self.memories = nn.ModuleList(nn.Linear(WIDTH, NARROW) for _ in range(LAYERS))
        self.experts = nn.ModuleList(nn.TransformerDecoderLayer(NARROW, 2, 24, **form) for _ in range(LAYERS))
        for module in vars(self).values():
            if isinstance(module, nn.Module):
                module.eval().requires_grad_(False).to(dtype)
        self.layers = [partial(self._lead, index) for index in range(LAYERS)]

    def _lead(self, index: int, hidden: Tensor, context: FlowContext) -> Tensor:
        hidden = self.leads[index](hidden, src_key_padding_mask=~context.token_mask)
        context.kept[index] = self.memories[index](hidden)
        return hidden

    def parts(self) -> Mapping[str, Sequence[Tensor]]:
        return {name: tuple(module.parameters()) for name, module in vars(self).items() if name in (
            "patches", "words", "joints", "enter", "leave", "memories", "experts")} | {
            "stack": tuple(self.leads.parameters())}  # fmt: skip

    def check_instruction(self, instruction: str) -> tuple[str, ...]:
        if not (words := instruction.split()):
            raise InstructionError("this policy needs an instruction")
        return (f"only the first {WORDS} words are read",) if len(words) > WORDS else ()

    def prepare(self, observations: Sequence[Observation], noise: Any = None) -> tuple[Tensor, FlowContext]:
        rows, masks = [], []
        for observation in observations:
            self.check_instruction(observation.instruction)
            if "image" not in observation.images:
                raise ObservationError("this policy needs the camera 'image'")
            bands = np.array_split(observation.images["image"].reshape(-1, 3) / 255.0, PATCHES)
            colours = torch.tensor(np.array([band.mean(axis=0) for band in bands]), dtype=self.dtype)
            ids = [sum(word.encode()) % 17 for word in observation.instruction.split()[:WORDS]]
            masks.append([True] * (PATCHES + 1 + len(ids)) + [False] * (WORDS - len(ids)))
            words = self.words(torch.tensor(ids + [0] * (WORDS - len(ids))))
            joints = self.joints(torch.from_numpy(observation.proprioception).to(self.dtype))[None]
            rows.append(torch.cat([self.patches(colours), joints, words]))
        return torch.stack(rows), FlowContext(torch.tensor(masks))

    def noise(self, seeds: Sequence[int]) -> Tensor:
        drawn = [torch.randn(6, 4, generator=torch.Generator().manual_seed(seed % 2**63)) for seed in seeds]
        return torch.stack(drawn).to(self.dtype)

    def decode(
        self, result: StackResult, context: FlowContext, state: None, noise: Tensor, bridge: Bridge
    ) -> tuple[Tensor, None]:
        actions = noise
        for step in range(STEPS):
            actions = actions + self._velocity(result, context, actions, step, bridge) / STEPS
        return actions, None

    def halfway(
        self, result: StackResult, context: FlowContext, state: None, noise: Tensor, moment: float, bridge: Bridge
    ) -> tuple[Tensor, int]:
        actions, taken = noise, int(moment * STEPS)
        for step in range(taken):
            actions = actions + self._velocity(result, context, actions, step, bridge) / STEPS
        return actions, taken

    def probe(
        self, result: StackResult, context: FlowContext, state: None, noise: Tensor, halfway: tuple[Tensor, int],
        bridge: Bridge,
    ) -> Tensor:  # fmt: skip
        return self._velocity(result, context, *halfway, bridge)

    def _velocity(
        self, result: StackResult, context: FlowContext, actions: Tensor, step: int, bridge: Bridge
    ) -> Tensor:
        def run(index: int, hidden: Tensor) -> Tensor:
            return self.experts[index](hidden, context.kept[index], memory_key_padding_mask=~context.token_mask)

        moment = torch.full_like(actions[..., :1], step / STEPS)
        hidden = self.enter(torch.cat([actions, moment], dim=-1))
        return self.leave(follow(result.plan, hidden, run, "expert", bridge))

    def collate(self, contexts: Sequence[FlowContext]) -> FlowContext:
        return FlowContext(torch.cat([context.token_mask for context in contexts]))
