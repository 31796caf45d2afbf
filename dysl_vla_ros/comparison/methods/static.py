"""``static``: the floor: static layers and adapters in every inference."""

from dysl_vla_ros.comparison.methods.method import (
    Library,
    Matched,
    Method,
    MethodOptions,
    Prepared,
    loaded,
    trained,
    unguided,
)
from dysl_vla_ros.settings import RuntimeSettings
from dysl_vla_ros.skipping.depth_rules import StaticOnly


def _prepare(library: Library, options: MethodOptions, settings: RuntimeSettings, _: Matched) -> Prepared:
    runtime, dysl = loaded(library, options)
    runtime.rule_override = lambda points: StaticOnly(dysl.partition, dysl.modules)
    return Prepared(runtime, unguided(settings), trained(dysl, dysl.partition.floor))


METHOD = Method("static layers and adapters, always", _prepare)
