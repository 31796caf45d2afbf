"""A random SmolVLA of six layers, written by LeRobot's own ``save_pretrained`` and processors."""

from pathlib import Path
from typing import Any

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

WORDS = ["<pad>", "<unk>", "<fake_token_around_image>", "<global-img>", "<image>", "<end_of_utterance>", "\n"]
WORDS += ["pick", "up", "the", "red", "green", "blue", "cube", "ball", "box", "and", "put", "it", "in", "tray"]


def write_hub(folder: Path) -> None:
    """Write what `model.tokenizer` names: a language model's configuration and processor, without weights."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={
            "fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>",
            "image_token": "<image>", "end_of_utterance_token": "<end_of_utterance>",
        },
    )  # fmt: skip
    text = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": len(WORDS), "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 64, "patch_size": 16,
    }  # fmt: skip
    config = SmolVLMConfig(vision_config=vision, text_config=text, scale_factor=2, image_token_id=4, pad_token_id=0)
    config.save_pretrained(folder)
    SmolVLMProcessor(SmolVLMImageProcessor(), tokenizer, SmolVLMVideoProcessor(), 4).save_pretrained(folder)


CAMERAS = {"observation.images.top": (3, 48, 64), "observation.images.wrist": (3, 32, 32)}
LAYERS, STATE, ACTION, HORIZON, FLOW_STEPS = 6, 6, 6, 8, 3


def config(vlm: Path, **changed: Any) -> SmolVLAConfig:
    """Return the configuration of six layers in both streams."""
    values: dict[str, Any] = {
        "vlm_model_name": str(vlm), "num_vlm_layers": LAYERS, "chunk_size": HORIZON, "n_action_steps": HORIZON,
        "num_steps": FLOW_STEPS, "resize_imgs_with_padding": (64, 64), "device": "cpu", "tokenizer_max_length": 12,
        "input_features": {
            "observation.state": PolicyFeature(FeatureType.STATE, (STATE,)),
            **{name: PolicyFeature(FeatureType.VISUAL, shape) for name, shape in CAMERAS.items()},
        },
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (ACTION,))},
    }  # fmt: skip
    return SmolVLAConfig(**(values | changed))


def statistics(size: int) -> dict[str, dict[str, torch.Tensor]]:
    """Return what a data set would say of state and action, in degrees and percent."""
    spread = torch.linspace(20.0, 40.0, size)
    return {
        "observation.state": {"mean": torch.linspace(-5.0, 5.0, size), "std": spread},
        "action": {"mean": torch.linspace(-10.0, 10.0, size), "std": spread},
    }


def write(folder: Path, vlm: Path, **changed: Any) -> SmolVLAPolicy:
    """Write a checkpoint as ``lerobot-train`` does, and return the policy that was saved."""
    torch.manual_seed(7)
    policy = SmolVLAPolicy(config(vlm, **changed)).eval()
    for parameter in policy.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)  # norms are not all ones, biases not zero
    policy.save_pretrained(folder)
    for processor in make_pre_post_processors(
        policy.config, dataset_stats=statistics(policy.config.action_feature.shape[0])
    ):
        processor.save_pretrained(folder)
    return policy
