"""A small OpenVLA-OFT checkpoint with random weights, in exactly the layout that is published: files, keys, types."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from torch import Tensor

from dysl_vla_ros.policy_options import PolicyOptions
from dysl_vla_ros.robot_contract import RobotContract

DINO, SIGLIP, LAYERS, WIDTH, WORDS = 32, 48, 8, 32, 32064
DIMENSIONS, STATE, HORIZON = 7, 8, 4
BLOCKS = 3
JOINTS = tuple(f"joint_{number}" for number in range(1, 8))
STATE_NAMES = (*JOINTS, "gripper.opening")
INSTRUCTION = "pick up the bowl"
DATA_SET = "bowls_no_noops"
HEAD, PROJECTOR = "action_head--150000_checkpoint", "proprio_projector--150000_checkpoint"


def said(*cameras: str, **changes: Any) -> PolicyOptions:
    """Return what the user of the tiny checkpoint says of it."""
    cameras = cameras or ("full_image", "wrist_image")
    robot = RobotContract(
        cameras={name: f"/{name}" for name in cameras},
        state_names=STATE_NAMES,
        state_units=("rad",) * 7 + ("1",),
        action_kind="end_effector_delta",
        time_step=0.1,
    )
    return PolicyOptions(**{"robot": robot, "horizon": HORIZON, "bounds": "q99", **changes})


def write_tiny_openvla(folder: Path, dtype: torch.dtype = torch.float32, shards: int = 2) -> Path:
    """Write the folder as it is published, head and projector as pickles, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(11)
    tensors = {name: value.to(dtype) for name, value in big_model().items()}
    names = sorted(tensors)
    place = {}
    for number in range(shards):
        own = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        save_file({name: tensors[name] for name in own}, folder / file, {"format": "pt"})
        place |= dict.fromkeys(own, file)
    total = sum(value.nbytes for value in tensors.values())
    write(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": place})
    for name, own in ((HEAD, action_head()), (PROJECTOR, proprio_projector())):
        torch.save({f"module.{key}": value.to(dtype) for key, value in own.items()}, folder / f"{name}.pt")
    write(folder / "config.json", configuration())
    write(folder / "preprocessor_config.json", preprocessor())
    write(folder / "dataset_statistics.json", {DATA_SET: statistics()})
    write_tokenizer(folder)
    (folder / "lora_adapter").mkdir(exist_ok=True)
    (folder / "modeling_prismatic.py").write_text("raise SystemExit('code of a checkpoint was run')\n")
    return folder


def convert(folder: Path) -> Path:
    """Make safetensors of both pickles, as `dysl_vla convert` does, and return the folder."""
    for name in (HEAD, PROJECTOR):
        own = torch.load(folder / f"{name}.pt", weights_only=True)
        save_file({key.removeprefix("module."): value for key, value in own.items()}, folder / f"{name}.safetensors")
    return folder


def write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2))


def some(*shape: int) -> Tensor:
    return torch.randn(*shape) * (0.5 / shape[-1] ** 0.5 if len(shape) > 1 else 0.1)


def linear(name: str, outputs: int, *inputs: int, bias: bool = True) -> dict[str, Tensor]:
    return {f"{name}.weight": some(outputs, *inputs)} | ({f"{name}.bias": some(outputs)} if bias else {})


def norm(name: str, width: int) -> dict[str, Tensor]:
    return {f"{name}.weight": 1 + some(width), f"{name}.bias": some(width)}


def tower(prefix: str, width: int, dino: bool) -> dict[str, Tensor]:
    """Return a vision transformer's weights by timm's names."""
    own = linear("patch_embed.proj", width, 3, 14, 14) | {"pos_embed": some(1, 256, width)} | norm("norm", width)
    if dino:
        own |= {"cls_token": some(1, 1, width), "reg_token": some(1, 4, width)}
    hidden = 4 * width if dino else 3 * width + 5
    for number in range(BLOCKS):
        block = f"blocks.{number}."
        own |= norm(f"{block}norm1", width) | norm(f"{block}norm2", width)
        own |= linear(f"{block}attn.qkv", 3 * width, width) | linear(f"{block}attn.proj", width, width)
        own |= linear(f"{block}mlp.fc1", hidden, width) | linear(f"{block}mlp.fc2", width, hidden)
        if dino:
            own |= {f"{block}ls1.scale_factor": 1 + some(width), f"{block}ls2.scale_factor": 1 + some(width)}
    if not dino:
        pool = "attn_pool."
        own |= {f"{pool}latent": some(1, 1, width)} | norm(f"{pool}norm", width)
        own |= linear(f"{pool}q", width, width) | linear(f"{pool}kv", 2 * width, width)
        own |= linear(f"{pool}proj", width, width) | linear(f"{pool}mlp.fc1", hidden, width)
        own |= linear(f"{pool}mlp.fc2", width, hidden)
    return {f"{prefix}.{name}": value for name, value in own.items()}


def big_model() -> dict[str, Tensor]:
    """Return everything but head and projector."""
    own = tower("vision_backbone.featurizer", DINO, True) | tower("vision_backbone.fused_featurizer", SIGLIP, False)
    seen = DINO + SIGLIP
    own |= linear("projector.fc1", 4 * seen, seen) | linear("projector.fc2", WIDTH, 4 * seen)
    own |= linear("projector.fc3", WIDTH, WIDTH)
    language = "language_model.model"
    own |= {f"{language}.embed_tokens.weight": torch.randn(WORDS, WIDTH) * 0.5}
    own |= {f"{language}.norm.weight": 1 + some(WIDTH)}
    for number in range(LAYERS):
        layer = f"{language}.layers.{number}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            own |= linear(f"{layer}.self_attn.{name}", WIDTH, WIDTH, bias=False)
        for name, sides in (("gate_proj", (48, WIDTH)), ("up_proj", (48, WIDTH)), ("down_proj", (WIDTH, 48))):
            own |= linear(f"{layer}.mlp.{name}", *sides, bias=False)
        for name in ("input_layernorm", "post_attention_layernorm"):
            own |= {f"{layer}.{name}.weight": 1 + some(WIDTH)}
    return own | linear("language_model.lm_head", WORDS, WIDTH, bias=False)


def action_head() -> dict[str, Tensor]:
    own = norm("model.layer_norm1", DIMENSIONS * WIDTH) | linear("model.fc1", WIDTH, DIMENSIONS * WIDTH)
    for number in range(2):
        own |= norm(f"model.mlp_resnet_blocks.{number}.ffn.0", WIDTH)
        own |= linear(f"model.mlp_resnet_blocks.{number}.ffn.1", WIDTH, WIDTH)
    return own | norm("model.layer_norm2", WIDTH) | linear("model.fc2", DIMENSIONS, WIDTH)


def proprio_projector() -> dict[str, Tensor]:
    return linear("fc1", WIDTH, STATE) | linear("fc2", WIDTH, WIDTH)


def configuration() -> dict[str, Any]:
    return {
        "architectures": ["OpenVLAForActionPrediction"],
        "arch_specifier": "no-align+fused-gelu-mlp",
        "auto_map": {"AutoModelForVision2Seq": "modeling_prismatic.OpenVLAForActionPrediction"},
        "hf_llm_id": "meta-llama/Llama-2-7b-hf",
        "image_resize_strategy": "resize-naive",
        "image_sizes": [224, 224],
        "llm_backbone_id": "llama2-7b-pure",
        "llm_max_length": 2048,
        "model_type": "openvla",
        "n_action_bins": 256,
        "norm_stats": {"bridge_orig": statistics()},
        "pad_to_multiple_of": 64,
        "pad_token_id": 32000,
        "text_config": {
            "model_type": "llama", "pad_token_id": 32000, "torch_dtype": "bfloat16", "vocab_size": WORDS,
            "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
        },
        "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
        "timm_override_act_layers": [None, None],
        "torch_dtype": "bfloat16",
        "use_fused_vision_backbone": True,
        "vision_backbone_id": "dinosiglip-vit-so-224px",
    }  # fmt: skip


def preprocessor() -> dict[str, Any]:
    return {
        "image_processor_type": "PrismaticImageProcessor",
        "image_resize_strategy": "resize-naive",
        "input_sizes": [[3, 224, 224], [3, 224, 224]],
        "interpolations": ["bicubic", "bicubic"],
        "means": [[0.484375, 0.455078125, 0.40625], [0.5, 0.5, 0.5]],
        "processor_class": "PrismaticProcessor",
        "stds": [[0.228515625, 0.2236328125, 0.224609375], [0.5, 0.5, 0.5]],
        "use_fused_vision_backbone": True,
    }


def statistics() -> dict[str, Any]:
    """Return a data set's statistics: metres and radians within 0.1 s, the gripper as it is."""
    both = {"action": DIMENSIONS, "proprio": STATE}
    own: dict[str, Any] = {"num_transitions": 1000, "num_trajectories": 10}
    for name, size in both.items():
        reach = [0.02 + 0.001 * place for place in range(size)] if name == "action" else [1.5] * size
        own[name] = {
            "mean": [0.0] * size,
            "std": [value / 3 for value in reach],
            "min": [-1.5 * value for value in reach],
            "max": [1.25 * value for value in reach],
            "q01": [-value for value in reach],
            "q99": [1.1 * value for value in reach],
        }
    own["action"]["mask"] = [True] * 6 + [False]
    return own


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of Llama 2's kind: sentence pieces with bytes for what has none, spaces as a low line."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = "▁" + "".join(map(chr, range(32, 127)))
    pieces += list(letters.replace(" ", ""))
    vocabulary = {piece: number for number, piece in enumerate(pieces)} | {"▁▁": 29871}
    model = models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in ("<unk>", "<s>", "</s>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    write(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True})


def changed(path: Path, change: Mapping[str, Any]) -> None:
    """Put other values into a JSON file."""
    write(path, json.loads(path.read_text()) | change)
