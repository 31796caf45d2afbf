"""A folder as OpenVLA-OFT's training leaves it, read and checked before memory is made for it. Imports no torch.

Published are ``config.json``, safetensors with an index, ``preprocessor_config.json``, the tokenizer,
``dataset_statistics.json``, and pickles of the action head and of the projector of proprioception, which
``dysl_vla convert`` makes safetensors of. Of a library's code in the folder nothing is run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.files import sha256
from dysl_vla_ros.policies.checkpoint import MEND, looks_like, needed_object
from dysl_vla_ros.policies.openvla.images import SIZE, Normalisation
from dysl_vla_ros.policies.openvla.llama import LlamaSizes, llama_sizes
from dysl_vla_ros.policies.openvla.statistics import STATISTICS, json_part
from dysl_vla_ros.policies.weights_header import Shapes, read_shapes

CONFIG, PREPROCESSOR, TOKENIZER = "config.json", "preprocessor_config.json", "tokenizer.json"
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
HEAD, PROJECTOR = "action_head", "proprio_projector"  # beginnings of their files' names
BACKBONE = "dinosiglip-vit-so-224px"
VARIANTS = {
    "vision_backbone--": "FiLM",
    "noisy_action_projector--": "diffusion",
}  # beginnings of files that other variants have


@dataclass(frozen=True)
class OpenVlaFolder:
    """What the files say; of weights, their headers have been looked at."""

    path: Path
    llama: LlamaSizes
    normalisations: tuple[Normalisation, Normalisation]  # of DINOv2, of SigLIP
    statistics: Mapping[str, Any]  # dataset_statistics.json
    shards: Mapping[Path, Shapes]
    head: Path
    projector: Path
    head_shapes: Shapes
    projector_shapes: Shapes

    @property
    def weights(self) -> tuple[Path, ...]:
        """Every file of weights."""
        return (*self.shards, self.head, self.projector)

    @property
    def dimensions(self) -> int:
        """Values of an action: A."""
        return self.head_shapes["model.fc2.weight"][0]

    @property
    def proprioception(self) -> int:
        """Values of proprioception: P."""
        return self.projector_shapes["fc1.weight"][1]

    @property
    def sizes(self) -> dict[str, int]:
        """Values of actions and of proprioception, by their names in the statistics."""
        return {"action": self.dimensions, "proprio": self.proprioception}

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of every file of weights."""
        return {path.name: sha256(path) for path in self.weights}


def read_folder(path: Path) -> OpenVlaFolder:
    """Read and check a folder.

    Raises:
        CheckpointError: names the file, the key, what was found and what to do.
    """
    config = read_config(path)
    source = path / CONFIG
    llama = llama_sizes(json_part(config, "text_config", source), source)
    whose = "the fine-tuned model's own; the base model's norm_stats do not serve"
    statistics = needed_object(path / STATISTICS, whose)
    if not statistics:
        raise CheckpointError(f"{path / STATISTICS} is empty, it has no data set's statistics; {MEND}")
    refuse_variants(path)
    head, projector = (_converted(path, name) for name in (HEAD, PROJECTOR))
    head_shapes, projector_shapes = read_shapes(head), read_shapes(projector)
    _require_matrix(head_shapes, "model.fc2.weight", head)
    _require_matrix(projector_shapes, "fc1.weight", projector)
    needed_object(path / TOKENIZER, "save the tokenizer as a fast one")  # read again by the library
    return OpenVlaFolder(
        path, llama, _normalisations(path / PREPROCESSOR), statistics, _shards(path), head, projector, head_shapes,
        projector_shapes,
    )  # fmt: skip


def read_config(path: Path) -> dict[str, Any]:
    """Read ``config.json`` and check whose it is.

    Raises:
        CheckpointError: no folder, no such file, another vision backbone.
    """
    if not path.is_dir():
        raise CheckpointError(f"checkpoint '{path}' is not a folder; {MEND}")
    config = needed_object(path / CONFIG)
    if config.get("model_type") != "openvla":
        raise CheckpointError(
            f"{path / CONFIG}: model_type is {config.get('model_type')!r:.60}, expected openvla; {MEND}"
        )
    if config.get("vision_backbone_id") != BACKBONE:
        raise CheckpointError(
            f"{path / CONFIG}: vision_backbone_id is {config.get('vision_backbone_id')!r:.60}, "
            f"this version reads {BACKBONE}"
        )
    return config


def _normalisations(path: Path) -> tuple[Normalisation, Normalisation]:
    """Return how the pictures of both towers are normalised."""
    values = needed_object(path)
    wanted = [[3, SIZE, SIZE]] * 2
    if values.get("input_sizes") != wanted:
        raise CheckpointError(f"{path}: input_sizes is {values.get('input_sizes')!r:.60}, expected {wanted}; {MEND}")
    means, stds = (_pair(values.get(name), name, path) for name in ("means", "stds"))
    if not all(value > 0.0 for own in stds for value in own):
        raise CheckpointError(f"{path}: stds is {stds}, must be above 0; {MEND}")
    return Normalisation(means[0], stds[0]), Normalisation(means[1], stds[1])


def _pair(found: Any, name: str, path: Path) -> list[tuple[float, float, float]]:
    """Return one of ``means`` and ``stds``: of each tower three numbers."""
    fits = isinstance(found, list) and len(found) == 2 and all(isinstance(own, list) and len(own) == 3 for own in found)
    if not fits or not all(type(value) in (int, float) for own in found for value in own):
        raise CheckpointError(f"{path}: {name} is {found!r:.60}, expected two lists of three numbers; {MEND}")
    return [(float(red), float(green), float(blue)) for red, green, blue in found]


def _shards(path: Path) -> dict[Path, Shapes]:
    """Return the files of the big model with what each holds; index and files must say the same."""
    if not (path / INDEX).exists():
        if not (path / SINGLE).exists():
            raise CheckpointError(_without_weights(path))
        return {path / SINGLE: read_shapes(path / SINGLE)}
    place = json_part(needed_object(path / INDEX), "weight_map", path / INDEX)
    names = list(dict.fromkeys(place.values()))
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{path / INDEX}: names {name!r:.80}, expected a .safetensors in the folder itself; {MEND}"
            )
    if missing := [name for name in names if not (path / name).is_file()]:
        raise CheckpointError(f"{path / missing[0]}, which {INDEX} names, is missing ({len(missing)} are); {MEND}")
    found = {path / name: read_shapes(path / name) for name in sorted(names)}
    for file, shapes in found.items():
        said = {key for key, name in place.items() if name == file.name}
        if odd := sorted(said ^ shapes.keys()):
            which = "is not in it" if odd[0] in said else "is not named"
            raise CheckpointError(f"{file} and {INDEX} differ: '{odd[0]}' {which} ({len(odd)} such tensors); {MEND}")
    return found


def _without_weights(path: Path) -> str:
    there = sorted(entry.name for entry in path.iterdir())
    if "lora_adapter" in there or "adapter_config.json" in there:
        return (
            f"{path} has a LoRA adapter and no merged weights ({INDEX}); merge them with OpenVLA-OFT's "
            f"`vla-scripts/merge_lora_weights_and_save.py --base_checkpoint openvla/openvla-7b "
            f"--lora_finetuned_checkpoint_dir {path}`"
        )
    pickled = [name for name in there if name.endswith((".bin", ".pth"))]
    why = f"; {pickled[0]} is not read: a pickle could run code" if pickled else ""
    return f"{path} has neither {INDEX} nor {SINGLE}{why}; {MEND}"


def refuse_variants(path: Path) -> None:
    """Refuse files of OpenVLA-OFT's other variants.

    Raises:
        CheckpointError: there is one; names it.
    """
    for start, variant in VARIANTS.items():
        if odd := sorted(path.glob(f"{start}*")):
            raise CheckpointError(
                f"{odd[0]} is of OpenVLA-OFT's {variant} variant, which this version does not run; use a model with "
                "the L1 head and without FiLM"
            )


def _converted(path: Path, name: str) -> Path:
    """Return the safetensors of the head or the projector."""
    found, pickles = (sorted(path.glob(f"{name}--*.{kind}")) for kind in ("safetensors", "pt"))
    if len(found) == 1:
        return found[0]
    if found:
        steps = ", ".join(file.name for file in found)
        raise CheckpointError(f"{path} has {len(found)} files of the {name}: {steps}; keep the one of your weights")
    if pickles:
        raise CheckpointError(f"{pickles[0]} is a pickle, which could run code; run `dysl_vla convert {path}` once")
    raise CheckpointError(f"{path} has no {name}--*_checkpoint.safetensors or .pt; {MEND}")


def _require_matrix(shapes: Shapes, name: str, path: Path) -> None:
    if len(shapes.get(name, ())) != 2:
        there: Sequence[str] = sorted(shapes)
        raise CheckpointError(
            f"{path} has no matrix '{name}' (there is {', '.join(there[:4]) or 'nothing'}); it is "
            f"{looks_like(path)} or of another model; {MEND}"
        )
