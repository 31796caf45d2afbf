"""The teacher, every layer run, over data: what adapters and controllers are trained on."""

from collections.abc import Sequence
from pathlib import Path

from dysl_vla_ros.distillation.activations import Activations, record_activations
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.runs.training_data import TrainingData


def record_teacher(
    policy: VlaPolicy,
    data: TrainingData,
    count: int,
    layers: Sequence[int] | None = None,
    *,
    held_out: bool = False,
    variants: int = 0,
    seed: int = 0,
    folder: Path | None = None,
    label: str = "teacher at full depth",
) -> Activations:
    """Run the teacher over data: frames from everywhere, or whole episodes where its decoding has a memory.

    Args:
        policy: the teacher.
        data: what it sees.
        count: frames that are wanted.
        layers: see ``record_activations``.
        held_out: of the frames that nothing is learned from.
        variants: of each frame, beside it.
        seed: of the variants.
        folder: see ``record_activations``.
        label: of the progress bar.

    Raises:
        DataError: too few frames; variants, which would break the order of an episode, for a policy with a memory.
    """
    if policy.initial_state() is None:
        seen = data.held_out_observations(count) if held_out else data.observations(count)
        if variants:
            from dysl_vla_ros.training.augmentation import with_variants

            seen, count = with_variants(seen, variants, seed), count * (1 + variants)
        return record_activations(policy, seen, count, layers, folder=folder, label=label)
    if variants:
        raise DataError(
            f"--variants {variants}: the {policy.family} policy decodes with a memory and learns from whole episodes, "
            "whose order variants would break; give --variants 0"
        )
    seen, begins = data.in_order(count, held_out=held_out)
    return record_activations(policy, seen, len(begins), layers, begins=begins, folder=folder, label=label)
