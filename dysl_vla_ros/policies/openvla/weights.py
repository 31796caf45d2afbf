"""The published files' tensors under the names of our network: each is used once, or named as one that nothing reads.

The vision towers have timm's names in the files and transformers' here, where query, key and value are three.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.policies.checkpoint import MEND, read_tensors
from dysl_vla_ros.policies.openvla.files import OpenVlaFolder
from dysl_vla_ros.policies.openvla.network import (
    PATCH,
    TOWER_HEADS,
    OpenVlaNetwork,
    Sizes,
    TowerSizes,
)
from dysl_vla_ros.policies.weights_header import Shapes

DINO, SIGLIP = "vision_backbone.featurizer.", "vision_backbone.fused_featurizer."
LANGUAGE = "language_model.model."

# timm's name -> transformers' name below the tower, or three names for the thirds of one tensor
_SAME = ("norm1", "norm2", "mlp.fc1", "mlp.fc2")
_DINO_BLOCK = {name: (name,) for name in _SAME} | {
    "attn.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attn.proj": ("attention.o_proj",),
}
_SIGLIP_BLOCK = {
    "norm1": ("layer_norm1",),
    "norm2": ("layer_norm2",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
    "attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.proj": ("self_attn.out_proj",),
}
_SCALES = {"ls1.scale_factor": "layer_scale1.lambda1", "ls2.scale_factor": "layer_scale2.lambda1"}
_DINO_FRONT = {
    "cls_token": "embeddings.cls_token",
    "reg_token": "embeddings.register_tokens",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
}
_SIGLIP_FRONT = {
    "pos_embed": "embeddings.position_embedding.weight",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+?)(?:\.(weight|bias))?$")


def sizes_of(folder: OpenVlaFolder) -> Sizes:
    """Return the sizes that the weights have.

    Raises:
        CheckpointError: a tensor that says one is missing or of another kind.
    """
    shapes = _merged(folder)
    towers = [_tower(shapes, prefix, folder.path) for prefix in (DINO, SIGLIP)]
    layers = {key.split(".")[3] for key in shapes if key.startswith(f"{LANGUAGE}layers.")}
    if len(layers) != folder.llama.num_hidden_layers:  # each costs memory even where the files have none
        raise CheckpointError(
            f"{folder.path / 'config.json'}: text_config.num_hidden_layers is {folder.llama.num_hidden_layers}, the "
            f"weights have {len(layers)} layers; {MEND}"
        )
    return Sizes(towers[0], towers[1], folder.llama.arguments, folder.dimensions, folder.proprioception)


def load_network(
    folder: OpenVlaFolder, device: torch.device, dtype: torch.dtype | None
) -> tuple[OpenVlaNetwork, torch.dtype, tuple[str, ...]]:
    """Load the network; every name and shape is compared before memory is made for it.

    Returns:
        The network, the type that it computes in (``dtype``, or what most of the weights are kept in), and the names of
        the tensors that nothing reads.

    Raises:
        CheckpointError: tensors that are missing, left over or of another shape, or not finite; all at fault are named.
    """
    sizes = sizes_of(folder)
    with torch.device("meta"):
        network = OpenVlaNetwork(sizes)
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    depths = (sizes.dino.blocks, sizes.siglip.blocks)
    unused = _require_complete(folder, wanted, depths)
    dtype = dtype or _kept_in(next(iter(folder.shards)))
    loaded: dict[str, Tensor] = {}
    for file in folder.weights:
        for key, value in read_tensors(file, str(device), dtype).items():
            names = places_of(_full_key(folder, file, key), depths)
            for name, piece in zip(names, _pieces(key, value, names), strict=True):
                loaded[name] = piece
    loaded |= _made_up(sizes, device, dtype)
    network.load_state_dict(loaded, assign=True)
    network.finish(device)
    assert not any(value.is_meta for value in (*network.parameters(), *network.buffers()))
    return network.eval().requires_grad_(False), dtype, unused


def places_of(key: str, depths: tuple[int, int]) -> tuple[str, ...]:
    """Return the names that a tensor of the files has in the network: three of one that is split, none of an unused.

    Raises:
        KeyError: it is not of this model.
    """
    for prefix, tower, front, block, depth in (
        (DINO, "dino", _DINO_FRONT, _DINO_BLOCK, depths[0]),
        (SIGLIP, "siglip", _SIGLIP_FRONT, _SIGLIP_BLOCK, depths[1]),
    ):
        if key.startswith(prefix):
            return _tower_places(key[len(prefix) :], tower, front, block, depth)
    if key.startswith("projector."):
        return (key,)
    if key == f"{LANGUAGE}embed_tokens.weight":
        return ("words.weight",)
    if key.startswith((f"{LANGUAGE}layers.", f"{LANGUAGE}norm.")):
        return () if key.endswith("rotary_emb.inv_freq") else (key[len(LANGUAGE) :],)
    if key == "language_model.lm_head.weight":
        return ()  # the L1 head stands in its place
    if key.startswith("head.model."):
        return (f"head.{key[len('head.model.') :]}",)
    if key.startswith("proprioception."):
        return (key,)
    raise KeyError(key)


def _tower_places(
    key: str, tower: str, front: Mapping[str, str], block: Mapping[str, tuple[str, ...]], depth: int
) -> tuple[str, ...]:
    path = f"{tower}."
    if key in front:
        return (path + front[key],)
    if key in ("norm.weight", "norm.bias") or (tower == "siglip" and key.startswith("attn_pool.")):
        return ()  # behind the block that is read
    found = _BLOCK.match(key)
    if not found:
        raise KeyError(key)
    number, name, kind = int(found[1]), found[2], found[3]
    if kind is None and tower == "dino" and name in _SCALES:
        inside: tuple[str, ...] = (_SCALES[name],)
    elif kind is not None:
        inside = tuple(f"{part}.{kind}" for part in block[name])
    else:
        raise KeyError(key)
    if number == depth - 1:
        return ()  # the last block
    layers = "layer" if tower == "dino" else "layers"
    return tuple(f"{path}encoder.{layers}.{number}.{part}" for part in inside)


def _pieces(key: str, value: Tensor, names: tuple[str, ...]) -> tuple[Tensor, ...]:
    if key == f"{DINO}pos_embed":  # timm adds no place to the class token, transformers one of zeros
        return (torch.cat([value.new_zeros(1, 1, value.shape[2]), value], dim=1),)
    if key == f"{SIGLIP}pos_embed":
        return (value[0],)
    return value.chunk(3) if len(names) == 3 else (value,) * len(names)


def _piece_shapes(key: str, shape: tuple[int, ...], names: tuple[str, ...]) -> list[tuple[int, ...]]:
    """Return what shapes :func:`_pieces` gives."""
    if key == f"{DINO}pos_embed" and len(shape) == 3:
        return [(shape[0], shape[1] + 1, shape[2])]
    if key == f"{SIGLIP}pos_embed" and len(shape) == 3 and shape[0] == 1:
        return [shape[1:]]
    if len(names) == 3 and shape and shape[0] % 3 == 0:
        return [(shape[0] // 3, *shape[1:])] * 3
    return [shape] * len(names)


def _require_complete(
    folder: OpenVlaFolder, wanted: Mapping[str, tuple[int, ...]], depths: tuple[int, int]
) -> tuple[str, ...]:
    """Return the names of tensors that nothing reads, after comparing all others with what the network wants."""
    found: dict[str, tuple[tuple[int, ...], str, Path]] = {}
    unused, faults = [], []
    for file, shapes in _files(folder):
        for key, shape in shapes.items():
            full = _full_key(folder, file, key)
            try:
                names = places_of(full, depths)
            except KeyError:
                faults.append(f"{file}: '{key}' is not of this model")
                continue
            if not names:
                unused.append(key)
            found |= {
                name: (own, key, file) for name, own in zip(names, _piece_shapes(full, shape, names), strict=True)
            }
    for name, shape in wanted.items():
        if name in found and found[name][0] != shape:
            own, key, file = found[name]
            faults.append(f"{file}: '{key}' gives {own} for {name}, expected {shape}")
        elif name not in found and name not in _MADE_UP:
            faults.append(f"{folder.path}: no file has a tensor for {name}")
    faults += [f"{file}: '{key}' is not of this model" for name, (_, key, file) in found.items() if name not in wanted]
    if faults:
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise CheckpointError(f"{'; '.join(sorted(faults)[:4])}{more}; {MEND}")
    return tuple(unused)


_MADE_UP = ("dino.embeddings.mask_token",)  # for training alone


def _made_up(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: torch.zeros(1, sizes.dino.width, device=device, dtype=dtype) for name in _MADE_UP}


def _files(folder: OpenVlaFolder) -> Iterator[tuple[Path, Shapes]]:
    yield from folder.shards.items()
    yield folder.head, folder.head_shapes
    yield folder.projector, folder.projector_shapes


def _full_key(folder: OpenVlaFolder, file: Path, key: str) -> str:
    return f"head.{key}" if file == folder.head else f"proprioception.{key}" if file == folder.projector else key


def _merged(folder: OpenVlaFolder) -> dict[str, tuple[int, ...]]:
    return {key: shape for shapes in folder.shards.values() for key, shape in shapes.items()}


def _tower(shapes: Shapes, prefix: str, path: Path) -> TowerSizes:
    """Return a tower's sizes by the shapes of its tensors."""
    blocks = {int(found[1]) for key in shapes if (found := _BLOCK.match(key.removeprefix(prefix))) and prefix in key}
    front, feed = shapes.get(f"{prefix}patch_embed.proj.weight", ()), shapes.get(f"{prefix}blocks.0.mlp.fc1.weight", ())
    if len(front) != 4 or len(feed) != 2 or blocks != set(range(len(blocks))) or len(blocks) < 2:
        raise CheckpointError(
            f"{path}: '{prefix}*' has blocks {sorted(blocks)[:40]}, patch_embed.proj.weight {front} and "
            f"blocks.0.mlp.fc1.weight {feed}; expected at least two blocks without a gap, and those tensors; {MEND}"
        )
    width, feed_forward = front[0], feed[0]
    if front[1:] != (3, PATCH, PATCH) or width % TOWER_HEADS or not width or feed_forward < 1:
        raise CheckpointError(
            f"{path}: '{prefix}patch_embed.proj.weight' is {front}, expected (width, 3, {PATCH}, {PATCH}) with a "
            f"width for {TOWER_HEADS} heads; {MEND}"
        )
    if prefix == DINO and feed_forward % width:
        raise CheckpointError(
            f"{path}: '{prefix}blocks.0.mlp.fc1.weight' is {feed}, no multiple of the width {width}; {MEND}"
        )
    return TowerSizes(width, feed_forward, len(blocks))


def _kept_in(file: Path) -> torch.dtype:
    """Return the type of the weights in a file that was read before: of its first matrix, where there are several."""
    from safetensors import safe_open

    with safe_open(file, "pt") as source:
        kinds = [own.get_dtype() for own in map(source.get_slice, sorted(source.keys())) if len(own.get_shape()) == 2]
    return {"BF16": torch.bfloat16, "F16": torch.float16}.get(kinds[0] if kinds else "", torch.float32)
