"""Which layers stay: chosen on data before anything is distilled, written to ``static_layers.json``."""

from pathlib import Path

from dysl_vla_ros.distillation.chosen_layers import STATIC_LAYERS
from dysl_vla_ros.distillation.static_choice import StaticChoice, choose_static
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.files import require_writable, write_json
from dysl_vla_ros.jobs.distill import record_teacher
from dysl_vla_ros.jobs.learning_data import folder_of, opened, recordings_entry
from dysl_vla_ros.jobs.settings import AnyPath, CalibrateSettings, Data
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.runs.training_data import TrainingData
from dysl_vla_ros.runtime.devices import device_named
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.skipping.importance import check_count, static_count

HELD_OUT = 256  # frames that both floors are judged on


def choose_layers(
    checkpoint: AnyPath,
    data: Data | TrainingData,
    adapters: AnyPath = "",
    settings: CalibrateSettings | None = None,
) -> StaticChoice:
    """Measure similarity, try both floors, write ``static_layers.json``.

    See :func:`~dysl_vla_ros.jobs.calibrate.calibrate`.
    """
    settings, folder = settings or CalibrateSettings(), folder_of(checkpoint, adapters)
    policy = load_policy(Path(checkpoint), device_named(settings.device, "--device"))
    layers, wanted = len(policy.layers), settings.static_layers
    count = static_count(layers, settings.static_ratio) if wanted is None else check_count(layers, wanted)
    require_writable(folder)
    seen = opened(data, settings.data, Runtime(policy, None))
    if seen is None:
        raise DataError(f"{folder} has no adapters yet, so static layers are chosen first: name the data folder too")
    frames, both = seen.learned_count(settings.observations), settings.static == "auto"
    kept = None if both else ()  # without a trial only similarity is measured
    activations = record_teacher(policy, seen, frames, kept, folder=folder)
    held_out = record_teacher(policy, seen, HELD_OUT, held_out=True, label="the same, held out") if both else None
    choice = choose_static(activations, count, settings.static, held_out=held_out)
    write_json(
        folder / STATIC_LAYERS,
        {
            "base_sha256": policy.weights_hash,
            "choice": choice.choice,
            "static": list(choice.partition.static),
            "similarity": list(choice.similarity),
            "floor_errors": choice.floor_errors,
            **recordings_entry(seen),
        },
    )
    return choice
