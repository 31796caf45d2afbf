"""A random X-VLA of six blocks, written by LeRobot's own ``save_pretrained`` and processors."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lerobot.processor.tokenizer_processor as tokenizers
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.xvla.configuration_xvla import XVLAConfig
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
from tiny_pi0 import CAMERAS, LAYERS, LETTERS, write_hub
from transformers import PreTrainedTokenizerFast

__all__ = ["FLOW_STEPS", "write", "write_hub"]
STATE, ACTION, POSES, HORIZON, FLOW_STEPS = 6, 6, 20, 8, 3
FLORENCE = {
    "vision_config": {
        "depths": [1, 1], "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1],
        "patch_prenorm": [False, True], "embed_dim": [8, 16], "num_heads": [2, 2], "num_groups": [2, 2],
        "window_size": 4, "projection_dim": 24, "drop_path_rate": 0.0,
    },
    "text_config": {
        "model_type": "bart", "d_model": 24, "vocab_size": len(LETTERS), "encoder_layers": 2, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
        "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2,
    },
    "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2,
}  # fmt: skip


def write(folder: Path, hub: Path, actions: int = ACTION, **changed: Any) -> XVLAPolicy:
    """Write a checkpoint of so many actions as ``lerobot-train`` does, and return the policy; POSES: absolute ones."""
    poses, normalised = actions == POSES, actions == ACTION
    config = XVLAConfig(
        chunk_size=HORIZON, n_action_steps=HORIZON, num_denoising_steps=FLOW_STEPS, device="cpu",
        florence_config=FLORENCE, tokenizer_name=str(hub), tokenizer_max_length=32, resize_imgs_with_padding=(32, 32),
        hidden_size=32, depth=LAYERS, num_heads=4, num_domains=3, len_soft_prompts=2, dim_time=8, max_len_seq=128,
        action_mode="ee6d" if poses else "auto", max_action_dim=10, max_state_dim=POSES if poses else 8,
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (STATE,)),
            **{name: PolicyFeature(FeatureType.VISUAL, shape) for name, shape in CAMERAS.items()},
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (actions,))},
        normalization_mapping={
            "VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD" if normalised else "IDENTITY"
        },
        **changed,
    )  # fmt: skip
    torch.manual_seed(7)
    policy = XVLAPolicy(config).eval()
    for parameter in policy.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)  # norms are not all ones, biases not zero
    policy.save_pretrained(folder)
    statistics = {
        name: {"mean": torch.linspace(-10.0, 10.0, size), "std": torch.linspace(20.0, 40.0, size)}
        for name, size in (("observation.state", STATE), ("action", actions))
    }
    tokenizer = PreTrainedTokenizerFast.from_pretrained(hub)
    tokenizers.AutoTokenizer, own = SimpleNamespace(from_pretrained=lambda name: tokenizer), tokenizers.AutoTokenizer
    try:
        for processor in make_pre_post_processors(config, dataset_stats=statistics):
            processor.save_pretrained(folder)
    finally:
        tokenizers.AutoTokenizer = own
    return policy
