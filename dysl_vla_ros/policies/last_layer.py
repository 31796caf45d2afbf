"""The last decoder layer, computed only where somebody reads it.

Behind the last layer comes a head that reads a few tokens; what the layer would make of all others is thrown away. Keys
and values still come from every token, so the tokens that are read are those of the plain layer, up to rounding. Where
two layers of twenty-four run, a third of one is worth having. Measured over all tokens, input and output of such a
layer are nearly equal: for the last layer, which always runs, that similarity says nothing of its importance.
"""

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, rotate_half


class LastLayer(LlamaDecoderLayer):
    """A decoder layer with the weights of the library's that changes the last tokens only; the others pass it by."""

    def __init__(self, config: LlamaConfig, index: int, read: int) -> None:
        """Make layer ``index`` of a stack behind which only the last ``read`` tokens are read."""
        super().__init__(config, index)
        self.read = read

    def forward(  # of the library's arguments, those that this policy gives
        self, hidden_states: Tensor, attention_mask: Tensor, position_embeddings: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Return (B, T, D) for ``hidden_states`` (B, T, D); arguments as for the library's layer."""
        attention = self.self_attn
        tokens = self.input_layernorm(hidden_states)
        asking = tokens[:, -self.read :].flatten(0, 1)  # of a slice with three dimensions a product takes a slower way
        query, key, value = (
            projected.view(len(tokens), -1, attention.config.num_attention_heads, attention.head_dim).transpose(1, 2)
            for projected in (attention.q_proj(asking), attention.k_proj(tokens), attention.v_proj(tokens))
        )  # (B, heads, tokens, D / heads) each
        cos, sin = position_embeddings
        query = _rotated(query, cos[:, None, -self.read :], sin[:, None, -self.read :])
        key = _rotated(key, cos[:, None], sin[:, None])
        mask = attention_mask[:, :, -self.read :].to(query.dtype)  # training runs in bfloat16
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        read = hidden_states[:, -self.read :] + attention.o_proj(attended.transpose(1, 2).flatten(2))
        read = read + self.mlp(self.post_attention_layernorm(read))
        return torch.cat([hidden_states[:, : -self.read], read], dim=1)


def _rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.addcmul(states * cos, rotate_half(states), sin)
