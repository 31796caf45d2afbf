"""What a checkpoint of the reference family says of itself, and what its words mean: all of it that needs no torch."""

import re
import unicodedata
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dysl_vla_ros.errors import CheckpointError, InstructionError
from dysl_vla_ros.interfaces import GRIPPER_OPENING, ActionSpec, ProprioceptionSpec
from dysl_vla_ros.joint_units import range_faults
from dysl_vla_ros.json_files import build_from
from dysl_vla_ros.policies.action_meaning import action_to_json, with_meaning
from dysl_vla_ros.policies.action_statistics import action_faults
from dysl_vla_ros.policies.checkpoint import read_config
from dysl_vla_ros.policies.identity import base_hash
from dysl_vla_ros.policies.weights_header import Shapes, read_shapes

FAMILY = "reference"
WEIGHTS = "model.safetensors"
PADDING, UNKNOWN = 0, 1  # word ids below the vocabulary's
QUERIES = 2
LARGEST_SIZE = 4096  # of a model's sides: a damaged number must not become an allocation
LARGEST_STATISTIC, SMALLEST_DEVIATION = 1e6, 1e-9  # of proprioception, in its units: what float32 can compute with
RESTORE = "train again or restore the file"
LAYOUTS = ("open", "causal")
STEM_STRIDE = 24  # px of a camera picture that become one token, each way


@dataclass(frozen=True)
class ReferenceConfig:
    """Everything that a checkpoint's ``config.json`` says of the model."""

    vocabulary: tuple[str, ...]
    action: ActionSpec
    proprioception_mean: tuple[float, ...]
    proprioception_std: tuple[float, ...]
    instructions: tuple[str, ...]
    layers: int = 24
    width: int = 160
    heads: int = 5
    feed_forward: int = 384
    max_words: int = 8
    cameras: dict[str, int] = field(default_factory=lambda: {"image": 96, "wrist_image": 48})  # name -> input px
    proprioception: ProprioceptionSpec = ProprioceptionSpec(
        ("ee.x", "ee.y", "ee.z", GRIPPER_OPENING), ("m", "m", "m", "1"), "base"
    )
    layout: str = LAYOUTS[0]  # "open": every token attends to every other; "causal": patches to patches alone

    @staticmethod
    def from_json(values: Any, source: Path) -> "ReferenceConfig":
        """Read what :meth:`to_json` wrote.

        Raises:
            CheckpointError: a field is missing, unknown, of the wrong type, or has a value that no model has; names it.
        """
        if isinstance(values, dict):
            values = {"layout": LAYOUTS[0], **values}
            values |= {"action": with_meaning(values["action"])} if "action" in values else {}
            if isinstance(state := values.get("proprioception"), dict):
                values["proprioception"] = {"low": [], "high": [], **state}
        config: ReferenceConfig = build_from(ReferenceConfig, values, "model", source, RESTORE)
        if faults := [*config.faults(), *action_faults(config.action, "model.action")]:
            raise CheckpointError(f"{source}: {'; '.join(faults)}; {RESTORE}")
        return config

    def faults(self) -> list[str]:
        """Return which values no model has, by their keys: sizes, lengths, statistics of proprioception."""
        sizes = {
            "layers": (self.layers, 1), "width": (self.width, 1), "heads": (self.heads, 1),
            "feed_forward": (self.feed_forward, 1), "max_words": (self.max_words, 1),
        }  # fmt: skip
        sizes |= {f"cameras.{name}": (pixels, STEM_STRIDE) for name, pixels in self.cameras.items()}
        found = [
            f"model.{name} is {size}, expected {least} to {LARGEST_SIZE}"
            for name, (size, least) in sizes.items()
            if not least <= size <= LARGEST_SIZE
        ]
        names = ("vocabulary", "instructions", "cameras")
        found += [f"model.{name} is empty" for name in names if not getattr(self, name)]
        if self.layout not in LAYOUTS:
            found.append(f"model.layout is {self.layout!r:.40}, expected {' or '.join(LAYOUTS)}")
        if not found and self.width % (2 * self.heads):
            found.append(f"model.width is {self.width}, no even number for each of the {self.heads} model.heads")
        wanted = len(self.proprioception.names)
        lengths = {
            "proprioception.units": self.proprioception.units,
            "proprioception_mean": self.proprioception_mean,
            "proprioception_std": self.proprioception_std,
        }
        found += [
            f"model.{name} has {len(values)} values, model.proprioception.names {wanted}"
            for name, values in lengths.items()
            if len(values) != wanted
        ]
        if not found:
            state = self.proprioception
            # of a gripper's opening both ends are known
            gripper = state.names.index(GRIPPER_OPENING) if GRIPPER_OPENING in state.names else None
            where = "model.proprioception"
            found += range_faults(state.names, state.units, state.low, state.high, where, gripper)
        limits = (("mean", self.proprioception_mean, 0.0), ("std", self.proprioception_std, SMALLEST_DEVIATION))
        for name, values, least in limits:
            found += [
                f"model.proprioception_{name}[{index}] is {value:g}, expected {least:g} to {LARGEST_STATISTIC:g}"
                for index, value in enumerate(values)
                if not least <= (abs(value) if name == "mean" else value) <= LARGEST_STATISTIC
            ]
        return found

    def to_json(self) -> dict[str, Any]:
        """Return plain values for ``config.json``; what files of before did not name is not named, as then."""
        values = asdict(self) | {"action": action_to_json(self.action)}
        for end in ("low", "high"):
            if not values["proprioception"][end]:
                del values["proprioception"][end]
        if self.layout == LAYOUTS[0]:
            del values["layout"]
        return values


@dataclass(frozen=True)
class ReferenceFiles:
    """A folder of this family, its weights unread."""

    config: ReferenceConfig
    weights_hash: str
    shapes: Shapes  # of the weights, by their names

    @property
    def base_hash(self) -> str:
        """SHA-256 of all of it that decides the motion."""
        return base_hash(FAMILY, self.config.to_json(), self.weights_hash)


def read_reference(checkpoint: Path) -> ReferenceFiles:
    """Read a folder whose hashes were checked, but for the weights themselves.

    Raises:
        CheckpointError: its config.json is of no model, or not of these weights.
    """
    values = read_config(checkpoint)
    config = ReferenceConfig.from_json(values.get("model"), checkpoint / "config.json")
    if WEIGHTS not in values["files"]:
        raise CheckpointError(f"{checkpoint / 'config.json'}: files has no {WEIGHTS}; {RESTORE}")
    shapes = read_shapes(checkpoint / WEIGHTS)
    words = shapes["words.weight"][0] - 2 if shapes.get("words.weight") else len(config.vocabulary)
    if words != len(config.vocabulary):
        raise CheckpointError(
            f"{checkpoint / 'config.json'}: model.vocabulary has {len(config.vocabulary)} words, {WEIGHTS} was "
            f"trained with {words}; {RESTORE}"
        )
    layers = len({name.split(".")[1] for name in shapes if name.startswith("layers.")})
    if layers != config.layers:  # each costs memory even where its weights have none
        raise CheckpointError(
            f"{checkpoint / 'config.json'}: model.layers is {config.layers}, {WEIGHTS} has {layers}; {RESTORE}"
        )
    return ReferenceFiles(config, values["files"][WEIGHTS], shapes)


def encode_words(instruction: str, config: ReferenceConfig) -> list[int]:
    """Return word ids (W,), padded with 0.

    Raises:
        InstructionError: empty, too long, or not one known word.
    """
    words = re.findall(r"[a-z]+", instruction.lower())
    if not words:
        raise InstructionError(
            f"the instruction {instruction!r:.80} has no words of the letters a to z; say for example "
            f"'{config.instructions[0]}'"
        )
    if len(words) > config.max_words:
        raise InstructionError(
            f"the instruction has {len(words)} words, this policy reads {config.max_words}; shorten it"
        )
    known = {word: index + 2 for index, word in enumerate(config.vocabulary)}
    ids = [known.get(word, UNKNOWN) for word in words]
    if all(index == UNKNOWN for index in ids):
        raise InstructionError(
            f"the policy knows no word of {instruction!r:.80}; it was trained on: {'; '.join(config.instructions)}"
        )
    return ids + [PADDING] * (config.max_words - len(ids))


def unknown_words(instruction: str, config: ReferenceConfig) -> list[str]:
    """Return what :func:`encode_words` leaves out or takes for unknown: words, numbers, other scripts, symbols.

    Punctuation means nothing and is not named.
    """
    apart = {"P": " ", "Z": " ", "C": " ", "S": " {} "}  # by Unicode category; a symbol stands by itself
    spaced = "".join(apart.get(unicodedata.category(letter)[0], "{}").format(letter) for letter in instruction.lower())
    return [word for word in dict.fromkeys(spaced.split()) if word not in config.vocabulary]


def instruction_warnings(instruction: str, config: ReferenceConfig) -> tuple[str, ...]:
    """Return a warning that names the words which the policy was not trained on.

    Raises:
        InstructionError: see :func:`encode_words`.
    """
    encode_words(instruction, config)
    if not (unknown := ", ".join(unknown_words(instruction, config))):
        return ()
    return (f"the policy does not know {unknown:.200}; it was trained on: {'; '.join(config.instructions)}",)
