"""OpenVLA-OFT with its L1 head, from the folder that its training publishes, driven from outside through its layers.

Tokens, in this order: the beginning of the text, 256 patches a picture, proprioception, the prompt, a slot of zeros
for each value of the chunk, the end of the text. Every token attends to every other, before and behind it. An output is
read one place in front of its slot: from the prompt's last word on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.files import sha256
from dysl_vla_ros.interfaces import FloatArray, Observation
from dysl_vla_ros.policies.identity import base_hash, hash_of
from dysl_vla_ros.policies.interface import CommonPolicy
from dysl_vla_ros.policies.openvla.files import TOKENIZER, OpenVlaFolder, read_folder
from dysl_vla_ros.policies.openvla.images import Normalisation, prepare_picture
from dysl_vla_ros.policies.openvla.meaning import TINY, Meaning, meaning_of
from dysl_vla_ros.policies.openvla.network import PATCHES, OpenVlaNetwork
from dysl_vla_ros.policies.openvla.prompt import STOP, Prompt
from dysl_vla_ros.policies.openvla.weights import load_network
from dysl_vla_ros.policy_options import PolicyOptions
from dysl_vla_ros.skipping.stack import Layer, StackResult
from dysl_vla_ros.skipping.streams import Bridge, Stream

APART = -1e4  # added to what must not be attended to; finite in float16 as well


@dataclass(frozen=True)
class OpenVlaContext:
    """What the layers need beside the hidden state, and where the head reads."""

    token_mask: Tensor | None  # (B, T) bool, false behind a shorter prompt's end; None: all are real
    attention_mask: Tensor  # (B, 1, T, T): 0, or APART where not attended to
    position_embeddings: tuple[Tensor, Tensor]  # rotary cos, sin: (1, T, D / heads)
    last_word: Tensor  # (B,) place of the prompt's last word


class OpenVlaOftPolicy(CommonPolicy):
    """OpenVLA-OFT as a :class:`~dysl_vla_ros.policies.interface.VlaPolicy`."""

    family = "openvla_oft"
    instructions = ()
    image_size = (224, 224)

    def __init__(
        self,
        network: OpenVlaNetwork,
        prompt: Prompt,
        normalisations: tuple[Normalisation, Normalisation],
        meaning: Meaning,
        weights_hash: str,
        also_hashed: Mapping[str, Any],
    ) -> None:
        self.network, self.prompt, self.normalisations, self.meaning = network, prompt, normalisations, meaning
        self.cameras, self.proprioception, self.action = meaning.cameras, meaning.proprioception, meaning.action
        self.weights_hash = weights_hash
        self.base_hash = base_hash(self.family, {"meaning": asdict(meaning), **also_hashed}, weights_hash)
        weight = network.norm.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.streams = (Stream("stack", network.llama.hidden_size),)
        self.unused: tuple[str, ...] = ()  # tensors of the files that nothing reads

    @classmethod
    def load(
        cls, checkpoint: Path, device: torch.device, dtype: torch.dtype | None, options: PolicyOptions
    ) -> "OpenVlaOftPolicy":
        """Load a folder; ``options`` say what no file of it does: horizon, bounds, cameras, state, action, time step.

        Raises:
            CheckpointError: a file is missing, damaged or another model's, or does not fit into memory.
            ContractError: what no file says is not said.
        """
        folder = read_folder(checkpoint)
        meaning = meaning_of(folder, options)
        words, longest = folder.llama.vocab_size, _longest_prompt(folder, meaning)
        prompt = Prompt(folder.path / TOKENIZER, words, longest)
        try:
            network, _, unused = load_network(folder, device, dtype)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise CheckpointError(_too_large(folder, device, dtype)) from error
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            raise CheckpointError(_too_large(folder, device, dtype)) from error
        also = {
            "llama": asdict(folder.llama),
            "normalisations": [asdict(own) for own in folder.normalisations],
            "tokenizer": sha256(folder.path / TOKENIZER),
        }
        policy = cls(network, prompt, folder.normalisations, meaning, hash_of(folder.hashes()), also)
        policy.unused = unused
        return policy

    @property
    def layers(self) -> Sequence[Layer]:
        """The stack's layers, bound to the way that they are called."""
        return [partial(self._run_layer, index) for index in range(len(self.network.layers))]

    def parts(self) -> Mapping[str, Sequence[Tensor]]:
        """Return the weights by part."""
        network = self.network
        vision = (network.dino, network.siglip, network.projector)
        return {
            "vision": tuple(weight for module in vision for weight in module.parameters()),
            "instruction": tuple(network.words.parameters()),
            "proprioception": tuple(network.proprioception.parameters()),
            "stack": tuple(network.layers.parameters()),
            "head": (*network.norm.parameters(), *network.head.parameters()),
        }

    def check_instruction(self, instruction: str) -> tuple[str, ...]:
        """Refuse what no prompt can be made of; of others nothing is warned."""
        self.prompt.encode(instruction)
        return ()

    def prepare(self, observations: Sequence[Observation], noise: Any = None) -> tuple[Tensor, OpenVlaContext]:
        """Embed observations: (B, T, D); shorter prompts' rows are padded at their end."""
        words = [self.prompt.encode(observation.instruction) for observation in observations]
        state = torch.stack([self._proprioception(observation) for observation in observations])
        pictures = torch.stack([self._pictures(observation) for observation in observations])
        seen = self.network.see(pictures)  # (B, N * 256, D)
        own = self.network.proprioception(state)[:, None]  # (B, 1, D)
        rows = [self._row(ids, seen[place], own[place]) for place, ids in enumerate(words)]
        tokens = max(len(row) for row in rows)
        hidden = torch.stack([torch.nn.functional.pad(row, (0, 0, 0, tokens - len(row))) for row in rows])  # (B, T, D)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        real = torch.arange(tokens, device=self.device) < lengths[:, None]  # (B, T)
        mask = (~real[:, None, None, :]).to(self.dtype) * APART
        last = torch.tensor([seen.shape[1] + len(ids) for ids in words], device=self.device)
        same = len(set(map(len, words))) == 1
        attention = mask.expand(-1, 1, tokens, -1)
        return hidden, OpenVlaContext(None if same else real, attention, self.network.angles(hidden), last)

    def decode(
        self, result: StackResult, context: Any, state: None, noise: None, bridge: Bridge
    ) -> tuple[Tensor, None]:
        """Return normalised actions (B, H, A) from the tokens in front of the slots."""
        horizon, dimensions = self.action.horizon, self.action.dimensions
        places = context.last_word[:, None] + torch.arange(horizon * dimensions, device=self.device)  # (B, H * A)
        rows = torch.arange(len(places), device=self.device)[:, None]
        read = self.network.norm(result.hidden[rows, places])  # (B, H * A, D)
        return self.network.head(read.reshape(len(places), horizon, -1)), None

    def actions(self, normalised: Tensor, context: Any) -> FloatArray:
        """Return (B, H, A) in physical units, in the arithmetic of OpenVLA-OFT: double precision."""
        values = normalised.double().cpu().numpy()
        center, scale = np.array(self.action.center), np.array(self.action.scale)
        return (values * scale + center).astype(np.float32)

    def collate(self, contexts: Sequence[OpenVlaContext]) -> OpenVlaContext:
        """Join the contexts of B observations whose prompts are equally long."""
        lengths = {context.attention_mask.shape[-1] for context in contexts}
        assert len(lengths) == 1, f"prompts of {sorted(lengths)} tokens in one batch"
        return OpenVlaContext(
            None,
            torch.cat([context.attention_mask for context in contexts]),
            contexts[0].position_embeddings,
            torch.cat([context.last_word for context in contexts]),
        )

    def _run_layer(self, index: int, hidden: Tensor, context: OpenVlaContext) -> Tensor:
        """Run one decoder layer: (B, T, D) -> (B, T, D)."""
        output: Tensor = self.network.layers[index](
            hidden, attention_mask=context.attention_mask, position_embeddings=context.position_embeddings
        )
        return output

    def _row(self, ids: Sequence[int], seen: Tensor, own: Tensor) -> Tensor:
        """Return the tokens (T, D) of one observation."""
        words = self.network.words(torch.tensor([*ids, STOP], device=self.device))
        slots = words.new_zeros(self.action.horizon * self.action.dimensions, words.shape[1])
        return torch.cat([words[:1], seen, own, words[1:-1], slots, words[-1:]])

    def _pictures(self, observation: Observation) -> Tensor:
        """Return (N, 2, 3, 224, 224)."""
        prepared = [prepare_picture(observation.images[camera]) for camera in self.cameras]
        values = np.stack([[own.apply(picture) for own in self.normalisations] for picture in prepared])
        return torch.from_numpy(values).to(self.device, self.dtype)

    def _proprioception(self, observation: Observation) -> Tensor:
        """Return (P,), normalised and clipped to -1 .. 1, of an observation that has all that is needed."""
        values = self.require_served(observation)
        own = self.meaning.state
        low, high = np.array(own.low), np.array(own.high)
        normalised = np.where(own.mask, 2 * (values - low) / (high - low + TINY) - 1, values)
        return torch.from_numpy(np.clip(normalised, -1.0, 1.0).astype(np.float32)).to(self.device, self.dtype)


def _longest_prompt(folder: OpenVlaFolder, meaning: Meaning) -> int:
    """Return how many tokens of the text's are left of those that the model has places for."""
    taken = len(meaning.cameras) * PATCHES + 2 + meaning.action.horizon * meaning.action.dimensions
    return folder.llama.max_position_embeddings - taken


def _too_large(folder: OpenVlaFolder, device: torch.device, dtype: torch.dtype | None) -> str:
    size = sum(path.stat().st_size for path in folder.weights) / 1e9
    kind = str(dtype).removeprefix("torch.") if dtype else "their own type"
    return (
        f"{folder.path}: the weights ({size:.1f} GB on disk) do not fit into the memory of {device} in {kind}; set "
        "model.dtype to bfloat16, free memory there, or name another model.device"
    )
