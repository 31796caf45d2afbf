"""A folder of LeRobot's, read and checked before the library sees it. Imports neither LeRobot nor torch.

The library's loaders leave a policy random where a file is damaged, pass tensors over that are missing, take emptied
statistics for none, and run what a processor's file names. So everything that they would trust is looked at first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.files import sha256
from dysl_vla_ros.interfaces import ActionSpec
from dysl_vla_ros.json_files import build_from
from dysl_vla_ros.policies.checkpoint import MEND, looks_like, needed_object
from dysl_vla_ros.policies.lerobot import action_spaces
from dysl_vla_ros.policies.weights_header import Shapes, read_shapes

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
STATE, ACTION = "observation.state", "action"
EMPTY_CAMERA = "observation.images.empty_camera_"
# The steps that a processor may have, by the names under which the library registers them; no other is ever made.
STEPS = frozenset(
    {
        "rename_observations_processor", "to_batch_processor", "device_processor", "tokenizer_processor",
        "normalizer_processor", "unnormalizer_processor", "relative_actions_processor", "absolute_actions_processor",
        "smolvla_new_line_processor", "pi0_new_line_processor", "pi05_prepare_state_tokenizer_processor_step",
        "xvla_image_scale", "xvla_image_to_float", "xvla_imagenet_normalize", "xvla_add_domain_id",
    }
)  # fmt: skip
NORMALIZERS = {PREPROCESSOR: "normalizer_processor", POSTPROCESSOR: "unnormalizer_processor"}
# mode -> the statistics that it needs: of a centre and a deviation, or of a lower and an upper end
MODES = {
    "IDENTITY": (), "MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}  # fmt: skip
MERGE = (
    "merge the adapter into its base where you trained: load it with peft's PeftModel.from_pretrained(base, folder), "
    "call merge_and_unload() and save_pretrained(), and copy both policy_*processor.json with their safetensors there"
)
MIGRATE = "python -m lerobot.processor.migrate_policy_normalization --pretrained-path"

Statistics = Mapping[str, np.ndarray]  # of one feature, by name: (size,) each


@dataclass(frozen=True)
class Feature:
    """One input or output of the model."""

    type: str  # STATE, VISUAL, ACTION, ...
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Said:
    """Of ``config.json`` what every family's says."""

    type: str
    input_features: dict[str, Feature]
    output_features: dict[str, Feature]
    normalization_mapping: dict[str, str] = field(default_factory=dict)
    use_peft: bool = False
    empty_cameras: int = 0


@dataclass(frozen=True)
class LeRobotFolder:
    """What the files say, checked; the weights have been looked at by their header alone."""

    path: Path
    type: str
    config: Mapping[str, Any]  # config.json as it is
    cameras: Mapping[str, tuple[int, ...]]  # key -> (channels, height, width) as trained
    state_size: int
    action_size: int
    shapes: Shapes  # of the weights
    statistics: Mapping[str, Statistics]  # of state and action, as normalised; () where nothing is
    modes: Mapping[str, str]  # of state and action
    hashes: Mapping[str, str]  # SHA-256 of every file that decides the motion

    def where(self, part: str) -> str:
        """Return which file says it, and under which key, of ``cameras``, ``state`` or ``action``."""
        key = {"state": f": {STATE}", "action": f": {ACTION}"}.get(part, "")
        return f"{self.path / CONFIG}{key}"

    @property
    def implied(self) -> Mapping[str, Any]:
        """What the files say of the actions' meaning, as fields of a contract."""
        return action_spaces.implied(self.config)

    def contradictions(self, action: ActionSpec) -> list[str]:
        """Return where what the user says of the actions is not what the files say."""
        return action_spaces.contradictions(self.config, str(self.path / CONFIG), action)

    def center_and_scale(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return what ``normalised = (action - center) / scale`` is made with."""
        return center_and_scale(self.modes[ACTION], self.statistics[ACTION], self.action_size)


def read_folder(path: Path) -> LeRobotFolder:
    """Read and check a folder.

    Raises:
        CheckpointError: names file, key, what was found and what to do.
    """
    if not path.is_dir():
        raise CheckpointError(f"checkpoint '{path}' is not a folder; {MEND}")
    config = needed_object(path / CONFIG)
    _require_files(path, config)
    said: _Said = build_from(_Said, config, "", path / CONFIG, MEND, lenient=True)
    state, action = (_vector(features, name, path) for features, name in (
        (said.input_features, STATE), (said.output_features, ACTION)))  # fmt: skip
    cameras = {name: it.shape for name, it in said.input_features.items() if it.type == "VISUAL"}
    empty = [name for name in cameras if name.startswith(EMPTY_CAMERA)]
    if empty or said.empty_cameras:
        raise CheckpointError(
            f"{path / CONFIG}: empty_cameras is {said.empty_cameras} ({', '.join(empty) or 'none in input_features'}); "
            "a missing camera is never replaced: train with the cameras that the robot has"
        )
    if not cameras:
        raise CheckpointError(f"{path / CONFIG}: input_features has no camera (type VISUAL)")
    found: dict[str, dict[str, Statistics]] = {}
    modes: dict[str, str] = {}
    hashes = {}
    for name in (PREPROCESSOR, POSTPROCESSOR):
        for step in _steps(path / name):
            if file := step.get("state_file"):
                hashes[file] = sha256(_own_file(path, name, file))
            if step["registry_name"] == NORMALIZERS[name]:
                sizes = {STATE: state, ACTION: action} if name == PREPROCESSOR else {ACTION: action}
                found[name], modes_here = _statistics(path / name, step, sizes)
                modes = modes_here | modes
        if name not in found:
            raise CheckpointError(
                f"{path / name}: no step {NORMALIZERS[name]}, so that nothing would be normalised; {MEND}"
            )
    before, behind = found[PREPROCESSOR].get(ACTION, {}), found[POSTPROCESSOR].get(ACTION, {})
    if any(not np.array_equal(before[key], behind[key]) for key in behind if key in before):
        raise CheckpointError(
            f"{path / POSTPROCESSOR} and {PREPROCESSOR} have other statistics of {ACTION}: they are of two trainings"
        )
    for name in (CONFIG, PREPROCESSOR, POSTPROCESSOR, WEIGHTS):
        hashes[name] = sha256(path / name)
    statistics = {STATE: found[PREPROCESSOR].get(STATE, {}), ACTION: behind}
    shapes = read_shapes(path / WEIGHTS)
    return LeRobotFolder(path, said.type, config, cameras, state, action, shapes, statistics, modes, hashes)


def center_and_scale(mode: str, statistics: Statistics, size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return what ``normalised = (value - center) / scale`` has to be for statistics of a mode.

    A value that was the same in all of the training has no spread: its scale is 1.
    """
    if mode == "IDENTITY":
        return (0.0,) * size, (1.0,) * size
    first, second = (statistics[name].astype(np.float64) for name in MODES[mode])
    center, scale = (first, second) if mode == "MEAN_STD" else ((first + second) / 2, (second - first) / 2)
    return tuple(map(float, center)), tuple(float(it) or 1.0 for it in scale)


def _require_files(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse what has no whole policy in it, with what to do about it."""
    there = {entry.name for entry in path.iterdir()}
    if WEIGHTS not in there and (
        config.get("use_peft") or there & {"adapter_config.json", "adapter_model.safetensors"}
    ):
        raise CheckpointError(f"{path} holds a LoRA adapter alone, no whole policy ({WEIGHTS}); {MERGE}")
    if not there & {PREPROCESSOR, POSTPROCESSOR}:
        raise CheckpointError(
            f"{path} has neither {PREPROCESSOR} nor {POSTPROCESSOR}: it is from before LeRobot had processors; migrate "
            f"it in the LeRobot environment: {MIGRATE} {path}"
        )
    for name in (PREPROCESSOR, POSTPROCESSOR, WEIGHTS):
        if not (path / name).is_file():
            pickled = sorted(other for other in there if other.endswith((".bin", ".pt", ".pth", ".ckpt")))
            why = f"; {', '.join(pickled)} is not read: a pickle could run code" if name == WEIGHTS and pickled else ""
            raise CheckpointError(f"{path / name} is missing{why}; {MEND}")


def _vector(features: Mapping[str, Feature], name: str, path: Path) -> int:
    feature = features.get(name)
    if feature is None or len(feature.shape) != 1 or not 1 <= feature.shape[0] <= 256:
        shape = "missing" if feature is None else f"of shape {list(feature.shape)}"
        raise CheckpointError(f"{path / CONFIG}: the feature {name} is {shape}, expected a shape of one size, 1 to 256")
    return feature.shape[0]


def _steps(path: Path) -> list[dict[str, Any]]:
    """Return a processor's steps; each is one of those that we know."""
    steps = needed_object(path).get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise CheckpointError(f"{path}: steps is {steps!r:.60}, expected a list of objects; {MEND}")
    for index, step in enumerate(steps):
        name = step.get("registry_name")
        if "class" in step or not isinstance(name, str) or name not in STEPS:
            said = f"class {step['class']!r:.60}" if "class" in step else f"registry_name {name!r:.60}"
            raise CheckpointError(
                f"{path}: steps[{index}] has {said}; only steps of the names that this version knows are made, because "
                f"another could run any code: {', '.join(sorted(STEPS))}"
            )
        if not isinstance(step.get("config", {}), dict):
            raise CheckpointError(
                f"{path}: steps[{index}].config is {step['config']!r:.60}, expected an object; {MEND}"
            )
    return steps


def _own_file(path: Path, source: str, name: Any) -> Path:
    """Return the path of a file that ``source`` names: it lies in the folder, and is safetensors."""
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
        raise CheckpointError(
            f"{path / source}: state_file is {name!r:.80}, expected a .safetensors in the folder itself"
        )
    if not (path / name).is_file():
        raise CheckpointError(f"{path / name}, which {source} names, is missing; {MEND}")
    return path / name


def _statistics(
    path: Path, step: Mapping[str, Any], sizes: Mapping[str, int]
) -> tuple[dict[str, Statistics], dict[str, str]]:
    """Return the statistics of a normalizer's features, and the mode of each: there, finite, of the right size."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    config = step.get("config", {})
    modes = {name: str(config.get("norm_map", {}).get("STATE" if name == STATE else "ACTION")) for name in sizes}
    for name, mode in modes.items():
        if mode not in MODES:
            raise CheckpointError(f"{path}: norm_map gives {name} the mode {mode!r:.40}, expected {', '.join(MODES)}")
    needed = [name for name in sizes if MODES[modes[name]]]
    if not needed:
        return {}, modes
    if not step.get("state_file"):
        raise CheckpointError(f"{path}: {step['registry_name']} has no state_file, so no statistics; {MEND}")
    file = _own_file(path.parent, path.name, step["state_file"])
    read_shapes(file)
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is {looks_like(file)}: {error}; {MEND}") from error
    found: dict[str, Statistics] = {}
    for name in needed:
        own: dict[str, np.ndarray] = {}
        for kind in MODES[modes[name]]:
            values = tensors.get(f"{name}.{kind}")
            where = f"{file}: {name}.{kind}"
            if values is None:
                raise CheckpointError(
                    f"{where} is missing, so that {name} would not be normalised ({modes[name]}); there is "
                    f"{', '.join(sorted(tensors)) or 'nothing'}; {MEND}"
                )
            if values.shape != (sizes[name],):
                raise CheckpointError(f"{where} has shape {list(values.shape)}, expected [{sizes[name]}]; {MEND}")
            if not np.isfinite(values).all():
                raise CheckpointError(f"{where}[{int(np.argmin(np.isfinite(values)))}] is not finite; {MEND}")
            own[kind] = values
        found[name] = own
    return found, modes
