"""OpenVLA-OFT put together from transformers' own modules: two vision towers, a projector, Llama's layers, an L1 head.

Of each tower the second-last block is read, so that its last block and its final norm are left out. Small parts that no
library has, the projectors and the head, are here. Checked with transformers 5.20 to 5.24.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    LlamaConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding

from dysl_vla_ros.policies.openvla.images import SIZE

PATCH = 14  # px
PATCHES = (SIZE // PATCH) ** 2  # of a picture
TOWER_HEADS = 16  # of both towers; their widths and depths follow from the weights
REGISTERS = 4  # tokens of DINOv2 beside the patches and its class token
NORM_EPSILON = 1e-6
BLOCKS_IN_HEAD = 2


@dataclass(frozen=True)
class TowerSizes:
    """Of a vision tower what its weights say."""

    width: int
    feed_forward: int
    blocks: int  # in the file; one less is run


@dataclass(frozen=True)
class Sizes:
    """Everything that a network is made by."""

    dino: TowerSizes
    siglip: TowerSizes
    llama: dict[str, Any]  # arguments of LlamaConfig
    dimensions: int  # values of an action: A
    proprioception: int  # P


class Projector(nn.Module):
    """Linear layers with GELU between them."""

    def __init__(self, *widths: int) -> None:
        """Make layers ``fc1``, ``fc2``, ... from each width to the next."""
        super().__init__()
        self.count = len(widths) - 1
        for number, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False), 1):
            self.add_module(f"fc{number}", nn.Linear(inputs, outputs))

    def forward(self, values: Tensor) -> Tensor:
        """Return (..., last width) for (..., first width)."""
        for number in range(1, self.count + 1):
            values = self.get_submodule(f"fc{number}")(values if number == 1 else functional.gelu(values))
        return values


class HeadBlock(nn.Module):
    """A layer with a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, values: Tensor) -> Tensor:
        """Return (..., D)."""
        return self.ffn(values) + values


class ActionHead(nn.Module):
    """The L1 head: an action from the hidden states of its values' tokens."""

    def __init__(self, width: int, dimensions: int) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(width * dimensions)
        self.fc1 = nn.Linear(width * dimensions, width)
        self.mlp_resnet_blocks = nn.ModuleList(HeadBlock(width) for _ in range(BLOCKS_IN_HEAD))
        self.layer_norm2 = nn.LayerNorm(width)
        self.fc2 = nn.Linear(width, dimensions)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return normalised actions (B, H, A) for ``hidden`` (B, H, A * D)."""
        values = functional.relu(self.fc1(self.layer_norm1(hidden)))
        for block in self.mlp_resnet_blocks:
            values = block(values)
        return self.fc2(self.layer_norm2(values))


class OpenVlaNetwork(nn.Module):
    """The weights, and what is computed before the stack and behind it."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.llama = llama = LlamaConfig(**sizes.llama, attn_implementation="sdpa")
        width = llama.hidden_size
        self.dino = Dinov2WithRegistersModel(_dino_config(sizes.dino))
        self.siglip = SiglipVisionModel(_siglip_config(sizes.siglip))
        self.dino.layernorm = nn.Identity()  # the block's own output is read
        self.siglip.post_layernorm = nn.Identity()
        seen = sizes.dino.width + sizes.siglip.width
        self.projector = Projector(seen, 4 * seen, width, width)
        self.proprioception = Projector(sizes.proprioception, width, width)
        self.words = nn.Embedding(llama.vocab_size, width)
        self.layers = nn.ModuleList(LlamaDecoderLayer(llama, index) for index in range(llama.num_hidden_layers))
        self.norm = LlamaRMSNorm(width, eps=llama.rms_norm_eps)
        self.head = ActionHead(width, sizes.dimensions)

    def finish(self, device: torch.device) -> None:
        """Make what no file has, once the weights are there: places of patches, rotary angles."""
        self.siglip.embeddings.position_ids = torch.arange(PATCHES, device=device)[None]
        self.rotary = LlamaRotaryEmbedding(self.llama).to(device)  # in float32, whatever the weights are

    def see(self, pictures: Tensor) -> Tensor:
        """Return tokens (B, N * 256, D) of N pictures an observation.

        Args:
            pictures: (B, N, 2, 3, 224, 224), normalised for DINOv2 and for SigLIP.
        """
        together = pictures.flatten(0, 1)  # (B * N, 2, 3, 224, 224)
        dino = self.dino(together[:, 0]).last_hidden_state[:, 1 + REGISTERS :]
        siglip = self.siglip(together[:, 1]).last_hidden_state
        tokens = self.projector(torch.cat([dino, siglip], dim=2))  # (B * N, 256, D)
        return tokens.unflatten(0, pictures.shape[:2]).flatten(1, 2)

    def angles(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rotary cos and sin of all tokens, (1, T, D / heads) each."""
        cos, sin = self.rotary(hidden, torch.arange(hidden.shape[1], device=hidden.device)[None])
        return cos, sin


def _dino_config(sizes: TowerSizes) -> Dinov2WithRegistersConfig:
    return Dinov2WithRegistersConfig(
        hidden_size=sizes.width,
        mlp_ratio=sizes.feed_forward // sizes.width,
        num_hidden_layers=sizes.blocks - 1,
        num_attention_heads=TOWER_HEADS,
        image_size=SIZE,
        patch_size=PATCH,
        num_register_tokens=REGISTERS,
        layer_norm_eps=NORM_EPSILON,
        hidden_act="gelu",
        attn_implementation="sdpa",
    )


def _siglip_config(sizes: TowerSizes) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=sizes.width,
        intermediate_size=sizes.feed_forward,
        num_hidden_layers=sizes.blocks - 1,
        num_attention_heads=TOWER_HEADS,
        image_size=SIZE,
        patch_size=PATCH,
        layer_norm_eps=NORM_EPSILON,
        hidden_act="gelu",  # as it was trained; the library's own default is an approximation of it
        vision_use_head=False,
        attn_implementation="sdpa",
    )
