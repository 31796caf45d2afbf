"""``shallow``, ``shallow_distilled``: policies of fewer layers, checkpoints of their own, at full depth."""

from functools import partial
from pathlib import Path

from dysl_vla_ros.comparison.methods.method import Library, Matched, Method, MethodOptions, Prepared, Trained
from dysl_vla_ros.policies.checkpoint import read_config, total_training
from dysl_vla_ros.policies.interface import parameter_count
from dysl_vla_ros.settings import RuntimeSettings


def _prepare(name: str, library: Library, options: MethodOptions, settings: RuntimeSettings, _: Matched) -> Prepared:
    checkpoint = options.checkpoints[name]
    runtime = library.alone(checkpoint)
    count = parameter_count(runtime.policy)
    return Prepared(runtime, settings, Trained(count, *total_training(read_config(Path(checkpoint)).get("training"))))


SHALLOW = Method("a shallower policy at full depth", partial(_prepare, "shallow"), adapters=False)
SHALLOW_DISTILLED = Method(
    "a shallower policy distilled from the full one", partial(_prepare, "shallow_distilled"), adapters=False
)
