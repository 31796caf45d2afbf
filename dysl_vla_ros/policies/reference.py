"""The reference policy: a small VLA of 24 Llama decoder layers, trained in this project.

Tokens, in this order: patches of the fixed camera, patches of the wrist camera, words of the instruction (padded),
proprioception, action queries. Attention goes both ways, but that in the layout ``causal`` patches attend to patches
alone, as in decoders that read images before words; padding is masked. The head reads the action queries, and
training the token of proprioception: the last layer changes no others. Checked with transformers 5.20 to 5.24, whose
``LlamaDecoderLayer`` runs unchanged in front of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding

from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.policies.checkpoint import read_tensors, write_checkpoint
from dysl_vla_ros.policies.identity import base_hash
from dysl_vla_ros.policies.interface import CommonPolicy
from dysl_vla_ros.policies.last_layer import LastLayer
from dysl_vla_ros.policies.reference_config import (
    FAMILY,
    PADDING,
    QUERIES,
    STEM_STRIDE,
    WEIGHTS,
    ReferenceConfig,
    encode_words,
    instruction_warnings,
    read_reference,
)
from dysl_vla_ros.policies.weights_header import load_exactly, require_fitting
from dysl_vla_ros.policy_options import AS_THE_FILES_SAY, PolicyOptions
from dysl_vla_ros.skipping.stack import Layer, StackResult
from dysl_vla_ros.skipping.streams import Bridge, Stream


@dataclass(frozen=True)
class ReferenceContext:
    """What the layers need beside the hidden state."""

    token_mask: Tensor  # (B, T) bool, false at padding words
    attention_mask: Tensor  # (B, 1, 1 or T, T): 0, or -1e4 where not attended to; added: every kernel takes it
    position_embeddings: tuple[Tensor, Tensor]  # rotary cos, sin: (1, T, D / heads)


class ImageStem(nn.Module):
    """Turns a picture (B, 3, S, S) into (S / 24)^2 tokens by four strided convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [(3, 32, 5, 2, 2), (32, 64, 3, 2, 1), (64, 96, 3, 2, 1)]
        parts: list[nn.Module] = []
        for inputs, outputs, kernel, stride, padding in sizes:
            parts += [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.GroupNorm(8, outputs), nn.GELU()]
        self.convolutions = nn.Sequential(*parts, nn.Conv2d(96, width, 3, 3))

    def forward(self, pictures: Tensor) -> Tensor:
        """Return tokens (B, N, D), row by row."""
        return self.convolutions(pictures).flatten(2).transpose(1, 2)


class ReferenceNetwork(nn.Module):
    """The weights: stems and embeddings before the stack, the layers, the head behind it."""

    rotary_cos: Tensor
    rotary_sin: Tensor

    def __init__(self, config: ReferenceConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.llama = llama = LlamaConfig(
            hidden_size=width,
            intermediate_size=config.feed_forward,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            vocab_size=3,  # unused: words have their own embedding
            attn_implementation="sdpa",
        )
        self.stems = nn.ModuleDict({camera: ImageStem(width) for camera in config.cameras})
        self.words = nn.Embedding(len(config.vocabulary) + 2, width)
        self.proprioception = nn.Sequential(
            nn.Linear(len(config.proprioception.names), width), nn.SiLU(), nn.Linear(width, width)
        )
        patches = sum((size // STEM_STRIDE) ** 2 for size in config.cameras.values())
        self.words_at = patches
        self.proprioception_at = patches + config.max_words
        self.tokens = self.proprioception_at + 1 + QUERIES  # T
        self.places = nn.Parameter(torch.randn(self.tokens, width) * 0.02)  # action queries are places alone
        self.layers = nn.ModuleList(LlamaDecoderLayer(llama, index) for index in range(config.layers - 1))
        self.layers.append(LastLayer(llama, config.layers - 1, read=self.tokens - self.proprioception_at))
        self.norm = LlamaRMSNorm(width)
        outputs = config.action.horizon * config.action.dimensions
        self.head = nn.Sequential(nn.Linear(QUERIES * width, width), nn.SiLU(), nn.Linear(width, outputs))
        # rotary angles depend on nothing but T: computed once
        rotary = LlamaRotaryEmbedding(llama)
        cos, sin = rotary(self.places, torch.arange(self.tokens)[None])
        self.register_buffer("rotary_cos", cos, persistent=False)
        self.register_buffer("rotary_sin", sin, persistent=False)

    def embed(self, pictures: dict[str, Tensor], words: Tensor, proprioception: Tensor) -> tuple[Tensor, Any]:
        """Return the stack's input and context.

        Args:
            pictures: camera -> (B, 3, S, S) in 0..1.
            words: (B, W) ids, 0 where padded.
            proprioception: (B, P) in the declared units.
        """
        config = self.config
        mean, std = (
            words.new_tensor(v, dtype=torch.float32) for v in (config.proprioception_mean, config.proprioception_std)
        )
        dtype = self.places.dtype
        parts = [self.stems[camera]((pictures[camera] - 0.5).to(dtype)) for camera in config.cameras]
        parts += [self.words(words), self.proprioception(((proprioception - mean) / std).to(dtype))[:, None]]
        parts += [parts[-1].new_zeros(len(words), QUERIES, config.width)]
        hidden = torch.cat(parts, dim=1) + self.places  # (B, T, D)
        mask = torch.ones(len(words), self.tokens, dtype=torch.bool, device=words.device)
        mask[:, self.words_at : self.proprioception_at] = words != PADDING
        attention = (~mask[:, None, None, :]).to(hidden.dtype) * -1e4
        if config.layout == "causal":
            apart = hidden.new_zeros(self.tokens, self.tokens)
            apart[: self.words_at, self.words_at :] = -1e4
            attention = torch.minimum(attention, apart)  # (B, 1, T, T)
        return hidden, ReferenceContext(mask, attention, (self.rotary_cos, self.rotary_sin))

    def run_layer(self, index: int, hidden: Tensor, context: ReferenceContext) -> Tensor:
        """Run one decoder layer: (B, T, D) -> (B, T, D)."""
        return self.layers[index](
            hidden, attention_mask=context.attention_mask, position_embeddings=context.position_embeddings
        )

    def compile_layers(self) -> None:
        """Compile each layer, for many equal passes: the same arithmetic, about three times as fast on a CPU in bf16.

        Eager attention is the one that the compiler fuses at these lengths. Bits may differ from those of a deployed
        policy. Needs a C++ compiler; takes a few seconds a layer, at its first use.
        """
        if self.llama._attn_implementation == "eager":
            return  # they are
        self.llama._attn_implementation = "eager"
        for layer in self.layers:
            layer.compile(dynamic=False)

    def read_out(self, hidden: Tensor) -> Tensor:
        """Return normalised actions (B, H, A) from the stack's output."""
        queries = self.norm(hidden[:, -QUERIES:]).flatten(1)  # (B, 2 D)
        return self.head(queries).unflatten(1, (self.config.action.horizon, self.config.action.dimensions))

    def forward(self, pictures: dict[str, Tensor], words: Tensor, proprioception: Tensor) -> tuple[Tensor, Tensor]:
        """Run everything at full depth; return actions (B, H, A) and what leaves the stack (B, T, D)."""
        hidden, context = self.embed(pictures, words, proprioception)
        for index in range(len(self.layers)):
            hidden = self.run_layer(index, hidden, context)
        return self.read_out(hidden), hidden


def picture_to_tensor(picture: np.ndarray, size: int) -> Tensor:
    """Turn a picture (height, width, 3) uint8 rgb into (1, 3, size, size) in 0..1, averaging over areas."""
    # a copy: the picture may be a read-only view of memory that is written again after this step
    tensor = torch.from_numpy(np.array(picture, order="C")).permute(2, 0, 1)[None].float() / 255.0
    if tensor.shape[-2:] == (size, size):
        return tensor
    return functional.interpolate(tensor, (size, size), mode="area")


class ReferencePolicy(CommonPolicy):
    """The reference policy as a :class:`~dysl_vla_ros.policies.interface.VlaPolicy`."""

    family = FAMILY

    def __init__(self, network: ReferenceNetwork, weights_hash: str) -> None:
        self.network = network.eval().requires_grad_(False)
        config = network.config
        self.weights_hash = weights_hash
        self.base_hash = base_hash(self.family, config.to_json(), weights_hash)
        self.config = config
        self.cameras = tuple(config.cameras)
        self.proprioception = config.proprioception
        self.action = config.action
        self.device, self.dtype = network.places.device, network.places.dtype
        self.streams = (Stream("stack", config.width),)
        self.instructions = config.instructions

    @classmethod
    def load(
        cls,
        checkpoint: Path,
        device: torch.device,
        dtype: torch.dtype | None,
        options: PolicyOptions = AS_THE_FILES_SAY,
    ) -> "ReferencePolicy":
        """Load a folder whose hashes were checked; it computes in float32 where nobody wants another ``dtype``.

        Its files say everything: of the options none is needed.
        """
        files, path = read_reference(checkpoint), checkpoint / WEIGHTS
        config = files.config
        require_fitting(lambda: ReferenceNetwork(config), files.shapes, path)
        network = ReferenceNetwork(config)
        load_exactly(network, read_tensors(path, str(device), dtype), path)
        return cls(network.to(device, dtype or torch.float32), files.weights_hash)

    @property
    def layers(self) -> Sequence[Layer]:
        """The stack's layers, bound to the way that they are called."""
        return [partial(self.network.run_layer, index) for index in range(len(self.network.layers))]

    def parts(self) -> Mapping[str, Sequence[Tensor]]:
        """Return the weights by part; ``places`` are positions and action queries."""
        network = self.network
        return {
            "vision": tuple(network.stems.parameters()),
            "instruction": tuple(network.words.parameters()),
            "proprioception": tuple(network.proprioception.parameters()),
            "places": (network.places,),
            "stack": tuple(network.layers.parameters()),
            "head": (*network.norm.parameters(), *network.head.parameters()),
        }

    def check_instruction(self, instruction: str) -> tuple[str, ...]:
        """Return a warning that names the words which the policy was not trained on."""
        return instruction_warnings(instruction, self.config)

    def prepare(self, observations: Sequence[Observation], noise: Any = None) -> tuple[Tensor, ReferenceContext]:
        """Embed observations: (B, T, D)."""
        inputs = [self._inputs(observation) for observation in observations]
        images, words, proprioception = zip(*inputs, strict=True)
        together = {camera: torch.cat([own[camera] for own in images]) for camera in self.config.cameras}
        return self.network.embed(together, torch.cat(words), torch.cat(proprioception))

    def _inputs(self, observation: Observation) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return images, words and proprioception of one observation, each of batch 1."""
        proprioception = self.require_served(observation)
        device = self.device
        pictures = {
            camera: picture_to_tensor(observation.images[camera], size).to(device)
            for camera, size in self.config.cameras.items()
        }
        words = torch.tensor([encode_words(observation.instruction, self.config)], device=device)
        return pictures, words, torch.from_numpy(proprioception)[None].to(device)

    def decode(
        self, result: StackResult, context: Any, state: None, noise: None, bridge: Bridge
    ) -> tuple[Tensor, None]:
        """Return normalised actions (B, H, A); this family keeps no state and draws nothing."""
        return self.network.read_out(result.hidden), None

    def collate(self, contexts: Sequence[ReferenceContext]) -> ReferenceContext:
        """Join the contexts of B observations."""
        return ReferenceContext(
            torch.cat([context.token_mask for context in contexts]),
            torch.cat([context.attention_mask for context in contexts]),
            contexts[0].position_embeddings,
        )


def save_reference(network: ReferenceNetwork, folder: Path, training: dict[str, Any]) -> None:
    """Write a checkpoint folder: fp16 weights, config with hashes, and what it was trained on."""
    config = {"family": FAMILY, "model": network.config.to_json(), "training": training}
    write_checkpoint(folder, config, {WEIGHTS: network.state_dict()})
