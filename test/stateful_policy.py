"""A second family for the tests: transformers' Llama layers with random weights, and a decoder that has a state."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dysl_vla_ros.errors import InstructionError, ObservationError
from dysl_vla_ros.interfaces import ActionSpec, Observation, ProprioceptionSpec
from dysl_vla_ros.policies.interface import CommonPolicy
from dysl_vla_ros.skipping.stack import StackResult
from dysl_vla_ros.skipping.streams import Bridge, Stream
from small_stacks import WIDTH, Context, SmallStack, llama_stack

WORDS, PATCHES = 4, 6


class StatefulPolicy(CommonPolicy):
    """Patches of one camera, hashed words (padded), proprioception; the head reads a decaying mean of past outputs."""

    family = "stateful"
    weights_hash = "5" * 64
    base_hash = "7" * 64
    cameras = ("image",)
    proprioception = ProprioceptionSpec(("ee.x", "ee.y"), ("m", "m"))
    action = ActionSpec(5, 0.1, True, (0.01,) * 6 + (0.5,), (0.02,) * 6 + (0.5,))
    streams = (Stream("stack", WIDTH),)
    instructions = ("lift it",)

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.stack: SmallStack = llama_stack()
        torch.manual_seed(4)
        self.patches = nn.Linear(3, WIDTH).requires_grad_(False)
        self.words = nn.Embedding(17, WIDTH).requires_grad_(False)
        self.joints = nn.Linear(2, WIDTH).requires_grad_(False)
        self.head = nn.Linear(WIDTH, 5 * 7).requires_grad_(False)
        self.layers = self.stack.layers
        for module in (self.stack.model, self.patches, self.words, self.joints, self.head):
            module.to(dtype)

    def parts(self) -> Mapping[str, Sequence[Tensor]]:
        modules = {"vision": self.patches, "instruction": self.words, "proprioception": self.joints, "head": self.head}
        weights = {name: tuple(module.parameters()) for name, module in modules.items()}
        return weights | {"stack": tuple(self.stack.model.layers.parameters())}

    def check_instruction(self, instruction: str) -> tuple[str, ...]:
        words = instruction.split()
        if not words:
            raise InstructionError("this policy needs an instruction")
        return (f"only the first {WORDS} words are read",) if len(words) > WORDS else ()

    def prepare(self, observations: Sequence[Observation], noise: object = None) -> tuple[Tensor, Context]:
        hidden, contexts = zip(*map(self._prepared, observations), strict=True)
        return torch.cat(hidden), self.collate(contexts)

    def _prepared(self, observation: Observation) -> tuple[Tensor, Context]:
        words = observation.instruction.split()[:WORDS]
        self.check_instruction(observation.instruction)
        if "image" not in observation.images:
            raise ObservationError("this policy needs the camera 'image'")
        bands = np.array_split(observation.images["image"].reshape(-1, 3) / 255.0, PATCHES)
        colours = torch.tensor(np.array([band.mean(axis=0) for band in bands]), dtype=self.dtype)
        ids = torch.tensor([sum(word.encode()) % 17 for word in words] + [0] * (WORDS - len(words)))
        joints = self.joints(torch.from_numpy(observation.proprioception).to(self.dtype))[None]
        embedded = torch.cat([self.patches(colours), joints, self.words(ids)])[None]  # (1, T, D)
        mask = torch.ones(1, embedded.shape[1], dtype=torch.bool)
        mask[:, embedded.shape[1] - WORDS + len(words) :] = False
        _, _, context, hidden = self.stack.own_forward(embedded, mask)  # also clears the record of calls
        return hidden, context

    def decode(
        self, result: StackResult, context: Context, state: Tensor, noise: None, bridge: Bridge
    ) -> tuple[Tensor, Tensor]:
        real = context.token_mask[:, :, None]
        pooled = torch.where(real, self.stack.model.norm(result.hidden), 0.0).sum(dim=1) / real.sum(dim=1)
        state = 0.5 * state + pooled
        return self.head(state).reshape(-1, 5, 7), state

    def collate(self, contexts: Sequence[Context]) -> Context:
        masks = [context.arguments["attention_mask"] for context in contexts]  # None where all tokens are real
        some = next((mask for mask in masks if mask is not None), None)
        if some is not None:
            whole = torch.ones_like(some) if some.dtype == torch.bool else torch.zeros_like(some)
            some = torch.cat([whole if mask is None else mask for mask in masks])
        arguments = contexts[0].arguments | {"attention_mask": some}
        return Context(torch.cat([context.token_mask for context in contexts]), arguments)

    def initial_state(self, batch: int = 1) -> Tensor:
        return torch.zeros(batch, WIDTH, dtype=self.dtype)
