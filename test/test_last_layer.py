"""The last layer against the library's own, with the same random weights."""

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from dysl_vla_ros.policies.last_layer import LastLayer

BATCH, TOKENS, READ, WIDTH = 3, 9, 2, 20


def test_what_is_read_is_the_librarys_and_the_rest_passes_by():
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=24, num_attention_heads=5, num_key_value_heads=5,
        num_hidden_layers=4, vocab_size=3, attn_implementation="sdpa",
    )  # fmt: skip
    ours, theirs = LastLayer(config, 3, READ).eval(), LlamaDecoderLayer(config, 3).eval()
    theirs.load_state_dict(ours.state_dict())
    hidden = torch.randn(BATCH, TOKENS, WIDTH)
    padded = torch.zeros(BATCH, 1, 1, TOKENS)
    padded[1, ..., 2:5] = -1e4
    rotary = LlamaRotaryEmbedding(config)(hidden, torch.arange(TOKENS)[None])
    with torch.inference_mode():
        got, wanted = (layer(hidden, attention_mask=padded, position_embeddings=rotary) for layer in (ours, theirs))
    assert torch.allclose(got[:, -READ:], wanted[:, -READ:], atol=1e-6)
    assert torch.equal(got[:, :-READ], hidden[:, :-READ])
    assert not torch.allclose(wanted[:, :-READ], hidden[:, :-READ], atol=1e-3)  # the library's changes them
