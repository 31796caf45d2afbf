"""``shallow``, ``shallow_distilled``: policies of fewer layers, checkpoints of their own, at full depth."""

from functools import partial
from pathlib import Path

from dysl_vla_ros.comparison.methods.method import Method, MethodInputs, Prepared, Trained
from dysl_vla_ros.policies.checkpoint import read_config, total_training


def _prepare(name: str, given: MethodInputs) -> Prepared:
    checkpoint = given.options.checkpoints[name]
    runtime = given.alone(checkpoint)
    return Prepared(
        runtime,
        given.settings,
        Trained(runtime.policy.weight_count, *total_training(read_config(Path(checkpoint)).get("training"))),
    )


SHALLOW = Method("a shallower policy at full depth", partial(_prepare, "shallow"), adapters=False)
SHALLOW_DISTILLED = Method(
    "a shallower policy distilled from the full one", partial(_prepare, "shallow_distilled"), adapters=False
)
