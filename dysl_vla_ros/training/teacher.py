"""A trained policy to start from: as teacher of a shallower one, or as the base whose weights are gone on from.

A teacher's chunks are the targets, computed once for all frames. As Shallow-pi does it: the student has the teacher's
sizes, words and statistics and fewer layers, and begins with the teacher's weights, its layers spread evenly over the
teacher's.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.files import write_atomically
from dysl_vla_ros.policies.checkpoint import fill_tensors
from dysl_vla_ros.policies.reference import ReferenceConfig, ReferencePolicy
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.simulation.tasks import Task
from dysl_vla_ros.skipping.importance import spread_static
from dysl_vla_ros.training.batches import Batches
from dysl_vla_ros.training.dataset import Episodes
from dysl_vla_ros.training.options import TrainingSettings

CHUNKS = "teacher-chunks.safetensors"
WORDS = "words.weight"
LAYERS = "layers."  # what the names of the stack's tensors begin with
PART = 64  # frames of one pass of the teacher, whatever the number of processes: bits depend on it


def load_teacher(checkpoint: Path, device: torch.device | None = None) -> ReferencePolicy:
    """Load a teacher onto ``device``, None: the CPU.

    Raises:
        CheckpointError: it is damaged or missing.
        DataError: it is of another family than what is trained here.
    """
    policy = _load(checkpoint, "teacher")
    policy.network.to(device)
    return policy


def with_tasks(config: ReferenceConfig, tasks: Sequence[Task]) -> ReferenceConfig:
    """Return a configuration with the instructions of tasks that it does not know, and their words, behind its own."""
    texts = [text for task in tasks for text in task.instructions]
    words = sorted({word for text in texts for word in text.split()} - {*config.vocabulary})
    instructions = [task.instruction for task in tasks if task.instruction not in config.instructions]
    return replace(
        config,
        vocabulary=(*config.vocabulary, *words),
        instructions=(*config.instructions, *instructions),
    )


def with_words(state: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return a network's state with embeddings of ``count`` words, new ones drawn from torch's global generator."""
    known = state[WORDS]
    drawn = torch.randn(count - len(known), known.shape[1], dtype=known.dtype) * known[2:].std()
    return state | {WORDS: torch.cat([known, drawn])}


class Origin(NamedTuple):
    """What a run starts from besides its data: nothing, a teacher, or a base; never both."""

    teacher: ReferencePolicy | None
    base: ReferencePolicy | None
    config: ReferenceConfig | None  # of the student; None: to be made from the data

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of the weights of what there is, by its role."""
        there = {"teacher": self.teacher, "base": self.base}
        return {role: policy.weights_hash for role, policy in there.items() if policy}

    def first_weights(self) -> dict[str, Tensor] | None:
        """Return the state that the student's network begins with; None: it is drawn."""
        if self.base and self.config:
            return with_words(dict(self.base.network.state_dict()), len(self.config.vocabulary) + 2)
        if self.teacher and self.config:
            return fewer_layers(self.teacher.network.state_dict(), self.teacher.config.layers, self.config.layers)
        return None


def load_origin(tasks: Sequence[Task], settings: TrainingSettings, device: torch.device | None = None) -> Origin:
    """Load what the settings name; a teacher onto ``device``, None: the CPU.

    Raises:
        CheckpointError: it is damaged or missing.
        DataError: it cannot teach this student, or is no base for these tasks and sizes.
    """
    if settings.teacher:
        teacher = load_teacher(Path(settings.teacher), device)
        if not 2 <= settings.layers <= teacher.config.layers:
            raise DataError(f"--layers {settings.layers}: a student has 2 to {teacher.config.layers}, its teacher's")
        return Origin(teacher, None, config_of(teacher.config, settings, "teacher", layers=settings.layers))
    if settings.base:
        base = _load(Path(settings.base), "base")
        config = with_tasks(config_of(base.config, settings, "base"), tasks)
        return Origin(None, base, replace(config, layout=settings.layout or config.layout))
    return Origin(None, None, None)


def _load(checkpoint: Path, role: str) -> ReferencePolicy:
    policy = load_policy(checkpoint)
    if not isinstance(policy, ReferencePolicy):
        raise DataError(f"--{role} {checkpoint} is of the family {policy.family}, expected a reference policy")
    return policy


def config_of(
    other: ReferenceConfig, settings: TrainingSettings, role: str, layers: int | None = None
) -> ReferenceConfig:
    """Return another policy's configuration, with ``layers`` in place of its own where given.

    Raises:
        DataError: the settings ask for another size than that policy has; ``role`` (teacher, base) names it.
    """
    own: dict[str, int | None] = {"layers": other.layers} if layers is None else {}
    own |= {
        "horizon": other.action.horizon,
        "width": other.width,
        "heads": other.heads,
        "feed_forward": other.feed_forward,
        "wrist_pixels": other.cameras.get("wrist_image"),
    }
    defaults = {field.name: field.default for field in fields(TrainingSettings)}
    faults = [
        f"--{name.replace('_', '-')} {getattr(settings, name)}: the {role}'s {value} "
        f"{'are' if name == 'layers' else 'is'} kept, leave it out"
        for name, value in own.items()
        if getattr(settings, name) not in (value, defaults[name])
    ]
    if faults:
        raise DataError("; ".join(faults))
    return replace(other, layers=layers or other.layers)


def fewer_layers(state: Mapping[str, Tensor], num_layers: int, count: int) -> dict[str, Tensor]:
    """Return a network's state with ``count`` of its ``num_layers`` layers, spread evenly from the first to the last.

    Raises:
        SettingError: there are not so many.
    """
    kept = dict(state)
    for name in [name for name in kept if name.startswith(LAYERS)]:
        del kept[name]
    for index, source in enumerate(spread_static(num_layers, count)):
        old, new = f"{LAYERS}{source}.", f"{LAYERS}{index}."
        kept |= {new + name.removeprefix(old): value for name, value in state.items() if name.startswith(old)}
    return kept


def teacher_chunks(
    teacher: ReferencePolicy, episodes: Episodes, accelerator: Accelerator, path: Path
) -> NDArray[np.float32]:
    """Return the teacher's normalised chunk for every frame (N, H, A), each under its episode's instruction.

    Read from ``path`` where they were computed before; else every process computes a part, and the first one writes it.
    """
    belongs_to = _identity(teacher, episodes)
    known = _read(path, belongs_to)
    if known is not None:
        return known
    batches = Batches(episodes, teacher.config, accelerator.device)
    action, count = teacher.config.action, len(episodes)
    chunks = torch.zeros(count, action.horizon, action.dimensions, device=accelerator.device)
    parts = torch.arange(count).split(PART)
    mine = parts[accelerator.process_index :: accelerator.num_processes]
    leads = accelerator.is_main_process
    with torch.inference_mode():
        for rows in tqdm(mine, desc="teacher's chunks", unit="batch", disable=not leads):
            batch = batches.plain(rows.numpy())
            chunks[rows], _ = teacher.network(batch.pictures, batch.words, batch.proprioception)
    chunks = accelerator.reduce(chunks, "sum")  # zeros elsewhere: exact
    if leads:
        tensors = {"chunks": chunks.cpu().contiguous()}
        write_atomically(path, fill_tensors(tensors, {"belongs_to": belongs_to}))
    return chunks.cpu().numpy()


def _identity(teacher: ReferencePolicy, episodes: Episodes) -> str:
    digest = hashlib.sha256(teacher.weights_hash.encode())
    for part in ("\n".join(episodes.instructions).encode(), episodes.proprioception.tobytes(), episodes.end.tobytes()):
        digest.update(part)
    return digest.hexdigest()


def _read(path: Path, belongs_to: str) -> NDArray[np.float32] | None:
    try:
        with safe_open(path, "np") as source:
            if (source.metadata() or {}).get("belongs_to") == belongs_to:
                return np.asarray(source.get_tensor("chunks"), np.float32)
    except (OSError, SafetensorError):
        pass  # none, or one that was damaged: computed anew
    return None
