"""A random pi0 or pi0.5 of six layers, written by LeRobot's own ``save_pretrained`` and processors.

The sizes of both Gemmas and of the vision tower are constants in the library: `shrink` makes them small, in tests.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lerobot.policies.pi0.modeling_pi0 as pi0
import lerobot.policies.pi05.modeling_pi05 as pi05
import lerobot.processor.tokenizer_processor as tokenizers
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.pi0.configuration_pi0 import PI0Config
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CAMERAS = {"observation.images.top": (3, 48, 64), "observation.images.wrist": (3, 32, 32)}
LAYERS, STATE, ACTION, HORIZON, FLOW_STEPS = 6, 6, 6, 8, 3
LETTERS = ["<pad>", "<unk>", "<bos>", "\n", *map(chr, range(32, 127))]


def shrink(module: Any) -> None:
    """Make a library's module build small models."""
    paligemma, gemma = module.PaliGemmaForConditionalGenerationWithPiGemma, module.PiGemmaForCausalLM

    def small_paligemma(config: Any) -> Any:
        config.text_config.vocab_size = len(LETTERS)
        config.projection_dim = config.vision_config.projection_dim = config.text_config.hidden_size
        for name, value in {
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "patch_size": 16,
        }.items():  # fmt: skip
            setattr(config.vision_config, name, value)
        return paligemma(config)

    def small_gemma(config: Any) -> Any:
        config.vocab_size = len(LETTERS)
        return gemma(config)

    sizes = {"gemma_2b": (32, 48), "gemma_300m": (24, 32)}
    module.get_gemma_config = lambda name: module.GemmaConfig(sizes[name][0], LAYERS, sizes[name][1], 8, 1, 4)
    module.PaliGemmaForConditionalGenerationWithPiGemma, module.PiGemmaForCausalLM = small_paligemma, small_gemma


for library in (pi0, pi05):
    shrink(library)


def write_hub(folder: Path) -> None:
    """Write a tokenizer of letters."""
    letters = Tokenizer(models.WordLevel({letter: number for number, letter in enumerate(LETTERS)}, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=letters, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>"
    ).save_pretrained(folder)


def write(folder: Path, hub: Path, kind: Any = (PI0Config, pi0.PI0Policy), **changed: Any) -> Any:
    """Write a checkpoint as ``lerobot-train`` does, and return the policy that was saved."""
    config_class, policy_class = kind
    config = config_class(
        chunk_size=HORIZON, n_action_steps=HORIZON, num_inference_steps=FLOW_STEPS, image_resolution=(32, 32),
        device="cpu",
        tokenizer_max_length=96,
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (STATE,)),
            **{name: PolicyFeature(FeatureType.VISUAL, shape) for name, shape in CAMERAS.items()},
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTION,))},
        **changed,
    )  # fmt: skip
    torch.manual_seed(7)
    policy = policy_class(config).eval()
    for parameter in policy.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)  # norms are not all ones, biases not zero
    policy.save_pretrained(folder)
    center, spread = torch.linspace(-10.0, 10.0, ACTION), torch.linspace(20.0, 40.0, ACTION)
    kinds = {"mean": center, "std": spread, "q01": center - spread, "q99": center + spread}
    statistics = {"observation.state": kinds, "action": kinds}
    tokenizer = PreTrainedTokenizerFast.from_pretrained(hub)
    tokenizers.AutoTokenizer, own = SimpleNamespace(from_pretrained=lambda name: tokenizer), tokenizers.AutoTokenizer
    try:
        processors = make_pre_post_processors(config, dataset_stats=statistics)
    finally:
        tokenizers.AutoTokenizer = own
    for processor in processors:
        for step in processor.steps:
            if hasattr(step, "input_tokenizer"):
                step.tokenizer_name = str(hub)
        processor.save_pretrained(folder)
    return policy
